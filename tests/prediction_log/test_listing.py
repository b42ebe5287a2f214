"""What an ingestion lists: one page when nothing is new, however many old segments there are."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import obstore
import pytest

from platform_assets.base.settings import Settings
from platform_assets.prediction_log import prediction_log
from platform_assets.store import objects, segments
from platform_assets.store.product_store import ProductStore
from tests.doubles.faulty_s3 import Faults, in_front_of
from tests.doubles.s3_server import S3Server
from tests.doubles.shipped import SPEC, encoded, lines, ship

pytestmark = pytest.mark.slow

OLD, PAGE = 3_000, 1_000
KEYS = ("2020-01-05",)


@pytest.fixture
def faults(s3_server: S3Server) -> Iterator[Faults]:
    with in_front_of(s3_server.endpoint) as faults:
        yield faults


def pages(faults: Faults) -> list[dict[str, list[str]]]:
    asked = [parse_qs(urlsplit(path).query) for method, path in faults.requests if method == "GET"]
    return [query for query in asked if f"{segments.PREFIX}/" in query.get("prefix", [""])[0]]


async def put_all(root: str, first: datetime, count: int) -> None:
    store = objects.open_store(root)
    for start in range(0, count, 100):
        old = [encoded(first + timedelta(milliseconds=place), b"") for place in range(start, start + 100)]
        await asyncio.gather(*(obstore.put_async(store, path, data, mode="create") for path, data in old))


@pytest.mark.costly
def test_nothing_new_costs_one_page_of_3000_old_segments(
    s3_root: str, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    asyncio.run(put_all(s3_root, now - timedelta(days=2), OLD))
    monkeypatch.setenv("AWS_ENDPOINT_URL", faults.endpoint)
    product = ProductStore(SPEC, Settings(environment="cluster", root=s3_root, state=tmp_path))
    counts = []
    for body in (lines([1]), b"", b""):
        if body:
            ship(s3_root, now, body)
        faults.clear()
        prediction_log.ingest_segments(product, "code", KEYS)
        counts.append(len(pages(faults)))
    print(f"listings: {counts[0]} with {OLD:,} new segments, then {counts[1]} and {counts[2]} with nothing new")
    assert counts[0] > OLD // PAGE, "the first run lists everything"
    assert counts[1:] == [1, 1]
    [query] = pages(faults)
    [after] = query["start-after"]
    cursor_ms = round(now.timestamp() * 1000) - 600_000
    # S3 starts a listing after this name, so it does not pass over any older one, be they 3,000 or 1,000,000.
    assert after.endswith(segments.start_after(SPEC.name, cursor_ms))
