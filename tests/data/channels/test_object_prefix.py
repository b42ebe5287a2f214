"""Many files per key, with any names: complete by a marker or a manifest, in a folder and on a real S3 server."""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest

from driftline import DailyGrain, ObjectPrefix
from platform_assets.data.landed import UnreadableFile
from platform_assets.product.channel_sites import ChannelProblem, Site
from platform_assets.product.sources import Source
from platform_assets.store import objects
from tests.doubles.s3_server import S3Server
from tests.doubles.shop_orders import orders_schema

GRAIN = DailyGrain(start="2026-01-01", end="2026-03-31", time_zone="Europe/Berlin")
KEY = "2026-01-02"
HEADER = "id,at,amount\n"
DATED = "orders/%Y/%m/%d/*.csv"
MARKER = "orders/%Y/%m/%d/_SUCCESS"


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder, and a bucket of others on a real server."""
    if request.param == "folder":
        (tmp_path / "export").mkdir()
        yield str(tmp_path / "export")
        return
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.make_bucket("partner")
    yield "s3://partner/export"
    server.remove_bucket("partner")


def put(root: str, path: str, data: str | bytes = "") -> None:
    obstore.put(objects.open_store(root), path, data.encode() if isinstance(data, str) else data)


def source(root: str, **given: Any) -> Source:
    channel = ObjectPrefix(root, **{"pattern": DATED, "marker": MARKER, **given})
    return Source(
        name="orders",
        description="Orders.",
        schema=orders_schema,
        known_at="at",
        channel=channel,
        deadline=timedelta(days=30_000),
    )


def sited(root: str, **given: Any) -> ObjectPrefix:
    channel = source(root, **given).channel
    assert isinstance(channel, ObjectPrefix)
    at = channel.at(Site(grain=GRAIN, source="orders", folder=Path("/")))
    assert isinstance(at, ObjectPrefix)
    return at


def row(name: str) -> str:
    return f"{name},2026-01-02 10:00:00,1.5\n"


def ids(root: str, **given: Any) -> list[str]:
    read = source(root, **given).read
    assert read is not None
    return read(sited(root, **given).fetch(KEY).data)["id"].to_list()


def manifest(**files: str) -> str:
    return json.dumps({"files": {name: hashlib.sha256(data.encode()).hexdigest() for name, data in files.items()}})


def test_all_files_of_a_key_are_one_delivery_in_the_order_of_their_names(root: str) -> None:
    put(root, "orders/2026/01/02/z 7.csv", HEADER + row("c"))
    put(root, "orders/2026/01/02/part-1.csv", "at,id\n2026-01-02 10:00:00,a\n")
    put(root, "orders/2026/01/02/part-2.csv", HEADER + row("b"))
    put(root, "orders/2026/01/02/readme.txt", "not rows")
    put(root, "orders/2026/01/03/part-1.csv", HEADER + row("d"))
    assert sited(root).probe(KEY) is None, "its marker is not there"
    with pytest.raises(FileNotFoundError, match=r"is not complete without orders/2026/01/02/_SUCCESS"):
        sited(root).fetch(KEY)
    put(root, "orders/2026/01/02/_SUCCESS")
    assert sited(root).keys() == [KEY]
    assert ids(root) == ["a", "b", "c"]
    assert sited(root).fetch(KEY).mark == sited(root).probe(KEY)
    assert sited(root).fetch(KEY).data == sited(root).fetch(KEY).data


def test_a_file_that_is_added_or_replaced_moves_the_mark_of_its_key_alone(root: str) -> None:
    for day in ("02", "03"):
        put(root, f"orders/2026/01/{day}/a.csv", HEADER + row("a"))
        put(root, f"orders/2026/01/{day}/_SUCCESS")
    marks = [sited(root).marks([KEY, "2026-01-03"])]
    put(root, "orders/2026/01/02/b.csv", HEADER + row("b"))
    marks.append(sited(root).marks([KEY, "2026-01-03"]))
    put(root, "orders/2026/01/02/b.csv", HEADER + row("c"))
    marks.append(sited(root).marks([KEY, "2026-01-03"]))
    assert len({mark[KEY] for mark in marks}) == 3
    assert len({mark["2026-01-03"] for mark in marks}) == 1


def test_a_manifest_lists_what_is_read(root: str) -> None:
    given = {"pattern": "{key}/*.csv", "manifest": "{key}/manifest.json", "marker": None}
    a, b = HEADER + row("a"), HEADER + row("b")
    put(root, f"{KEY}/a.csv", a)
    put(root, f"{KEY}/old.csv", HEADER + row("old"))
    put(root, f"{KEY}/manifest.json", manifest(**{"a.csv": a, "b.csv": b}))
    assert sited(root, **given).probe(KEY) is None, "b.csv is not there yet"
    put(root, f"{KEY}/b.csv", b)
    assert ids(root, **given) == ["a", "b"]
    put(root, f"{KEY}/b.csv", HEADER + row("c"))
    with pytest.raises(FileNotFoundError, match=r"b\.csv has the sha256 .* in 39 bytes; its manifest says"):
        sited(root, **given).fetch(KEY)
    put(root, f"{KEY}/manifest.json", "[]")
    with pytest.raises(ChannelProblem, match=r"the manifest .*manifest\.json .* is '\[\]'; expected"):
        sited(root, **given).probe(KEY)


def test_parquet_files_keep_their_types(root: str) -> None:
    given = {"pattern": "{key}/*.parquet", "marker": "{key}/_SUCCESS"}
    for number in (1, 2):
        data = BytesIO()
        pl.DataFrame({"id": [f"{number}"], "amount": [float(number)]}).write_parquet(data)
        put(root, f"{KEY}/{number}.parquet", data.getvalue())
    put(root, f"{KEY}/_SUCCESS")
    read = source(root, **given).read
    assert read is not None
    assert read(sited(root, **given).fetch(KEY).data)["amount"].to_list() == [1.0, 2.0]


def test_a_file_that_cannot_be_read_is_named(root: str) -> None:
    put(root, "orders/2026/01/02/a.csv", HEADER + row("a"))
    put(root, "orders/2026/01/02/b.csv", HEADER + row("b").strip())
    put(root, "orders/2026/01/02/_SUCCESS")
    with pytest.raises(UnreadableFile, match=r"orders/2026/01/02/b\.csv: the file is cut short"):
        ids(root)


def test_more_than_memory_is_refused_before_it_is_read(root: str) -> None:
    put(root, "orders/2026/01/02/a.csv", HEADER + row("a") * 10_000)
    put(root, "orders/2026/01/02/_SUCCESS")
    with pytest.raises(
        ChannelProblem, match=r"has 1 file of 0.3 MB, which take some 2 MB of memory; most_memory_mb is 1"
    ):
        sited(root, most_memory_mb=1).fetch(KEY)


def test_files_may_still_change_until_the_lag_is_over(root: str) -> None:
    put(root, "orders/2026/01/02/_SUCCESS")
    assert sited(root).probe(KEY) is not None
    assert sited(root, lag=timedelta(days=20_000)).probe(KEY) is None


def test_a_bucket_that_is_not_there_is_named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in request.getfixturevalue("s3_server").environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ChannelProblem, match="the bucket s3://nobody does not exist"):
        sited("s3://nobody/export").probe(KEY)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"pattern": "orders/*.csv"}, r"pattern is 'orders/\*\.csv', which does not say the key"),
        ({"marker": None}, "needs either a marker or a manifest"),
        ({"manifest": "{key}/m.json"}, "needs either a marker or a manifest"),
        ({"marker": "{key}/*"}, r"one file per key, without '\*'"),
    ],
)
def test_a_pattern_that_says_no_key_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        source("export", **given)
