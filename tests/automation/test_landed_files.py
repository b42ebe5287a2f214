"""Landed files have the same marks on a folder and on S3, where a tick costs one listing per source folder."""

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import obstore
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.keys import DailyGrain
from platform_assets.base.settings import Settings
from platform_assets.data import closing, landed_marks
from platform_assets.data.key_changes import Mark
from platform_assets.product.spec import Product
from platform_assets.sensors import landings, ticks
from platform_assets.store import landing
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.product_store import ProductStore
from tests.doubles import empty_jobs, recorded
from tests.doubles import numbered_batches as batches
from tests.doubles.faulty_s3 import Faults, in_front_of
from tests.doubles.products import hourly_temperature
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.slow

GRAIN = DailyGrain(start="2020-01-01", end="2020-12-31")
CLOSED, NOW = "2020-05-31", datetime(2020, 6, 1, tzinfo=UTC)


def marks(spec: Product, root: str) -> Mark:
    """Return the function that finds the files of a product below a storage root."""
    return landed_marks.Marks(ProductStore(spec, Settings.from_environment().replace(root=root)))


def land(root: str, spec: Product, source: str, key: str, data: bytes = b"anything") -> None:
    folder = spec.landing_of(spec.source(source))
    obstore.put(open_store(root), naming.landing_location("", folder, key, ".csv").lstrip("/"), data)


@pytest.fixture
def proxy(s3_server: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A proxy that counts the requests to the S3 server; stores of the bucket are reached through it."""
    with in_front_of(s3_server.endpoint) as counted:
        monkeypatch.setenv("AWS_ENDPOINT_URL", counted.endpoint)
        yield counted


def awaiting(settings: Settings, count: int) -> list[Product]:
    """Return products that have closed months of keys and still lack a month of labels."""
    specs = [replace(recorded.SPEC, name=f"p{number}", grain=GRAIN) for number in range(count)]
    for spec in specs:
        clock.move(settings, spec.name, NOW)
        land(settings.root, spec, "sites", naming.UNPARTITIONED)
        Ledgers(settings.root, spec.name).create(naming.DECISIONS, CLOSED, {"key": CLOSED})
    return specs


def tick(specs: list[Product], instance: dg.DagsterInstance) -> dg.SensorResult:
    sensor = landings.watch.build(specs, empty_jobs.of("advance", specs))
    cursor = json.dumps({spec.name: {"closed": CLOSED} for spec in specs})
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


@pytest.mark.parametrize("count", [1, 10, 50])
def test_a_tick_costs_one_listing_per_source_folder_while_a_month_of_labels_is_awaited(
    settings: Settings,
    s3_root: str,
    proxy: Faults,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", s3_root)
    # On a busy machine sources are slow, which is noted in a file, and a tick may be over before its last product.
    monkeypatch.setattr(landed_marks, "SLOW_S", math.inf)
    monkeypatch.setattr(ticks, "BUDGET_S", 600.0)
    specs = awaiting(settings.replace(root=s3_root), count)
    proxy.clear()
    result = tick(specs, instance)
    assert str(result.skip_reason).count("plans of 2020-06-01 has not landed") == count
    requests = Counter("LIST" if "list-type" in path else method for method, path in proxy.requests)
    assert requests["LIST"] == 2 * count, "plans and results; readings are looked for only after plans have landed"
    # The slow source, two looks for the newest closed key, three for requests, one for renewals. It was 46 when each
    # key was requested.
    assert requests.total() == 9 * count, requests


def test_a_backlog_costs_one_listing_per_page_whatever_else_lies_in_the_folder(
    s3_root: str, proxy: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "PAGE", 10)
    spec = replace(recorded.SPEC, name="p", grain=GRAIN)
    keys = GRAIN.span("2020-03-01", "2020-03-25")
    for key in (*GRAIN.span("2020-02-01", "2020-02-29"), *keys):
        for source in ("plans", "readings"):
            land(s3_root, spec, source, key)
    land(s3_root, spec, "sites", naming.UNPARTITIONED)
    for name in ("2020-03-05", "2020-03-05.csv.part", "2020-03-07.csv/2020-03-08", "2020-03-2", "zzz"):
        land(s3_root, spec, "plans", name)
    mark = marks(spec, s3_root)
    proxy.clear()
    ready, waits, _ = closing.find(spec, "2020-02-29", NOW, mark, lambda *_: None)
    assert ready == (*keys, *GRAIN.span("2020-03-26", "2020-05-30")), "overdue keys are closed without their file"
    assert waits.startswith("plans of 2020-05-31 has not landed")
    requests = Counter("LIST" if "list-type" in path else method for method, path in proxy.requests)
    # 25 files and 4 others of plans, 25 files of readings, 10 per page; the last page of each is short.
    assert requests == {"HEAD": 1, "LIST": 3 + 3}


def test_marks_do_not_depend_on_how_files_are_found_and_change_with_the_file(root: str) -> None:
    spec = recorded.SPEC
    for key in ("2020-01-02", "2020-01-04"):
        land(root, spec, "results", key)
    label, keys = spec.label_source, GRAIN.span("2020-01-01", "2020-01-05")
    mark = marks(spec, root)
    result = [mark(label, key) for key in keys]
    assert [value is not None for value in result] == [False, True, False, True, False]
    backwards = marks(spec, root)
    assert [backwards(label, key) for key in reversed(keys)] == result[::-1], "in any order of requests"
    head = obstore.head(open_store(root), "landing/recorded/results/2020-01-02.csv")
    assert result[1] == head["e_tag"]
    land(root, spec, "results", "2020-01-02", b"another, and longer")
    assert marks(spec, root)(label, "2020-01-02") not in (None, result[1])


@pytest.mark.parametrize(
    ("spec", "source"),
    [(batches.SPEC, "readings"), (hourly_temperature.SPEC, "observations")],
    ids=["batches", "hours"],
)
def test_batches_and_hours_are_found_on_a_bucket(s3_root: str, spec: Product, source: str) -> None:
    keys = [spec.grain.key_at(index) for index in range(30)]
    for key in (keys[0], keys[9], keys[10], keys[25]):
        land(s3_root, spec, source, key)
    mark = marks(spec, s3_root)
    assert [index for index, key in enumerate(keys) if mark(spec.source(source), key)] == [0, 9, 10, 25]


def test_a_missing_bucket_is_not_mistaken_for_files_that_have_not_landed(s3_root: str) -> None:
    mark = marks(recorded.SPEC, f"s3://{uuid.uuid4().hex}/gone")
    with pytest.raises(obstore.exceptions.GenericError, match="NoSuchBucket"):
        mark(recorded.SPEC.label_source, "2020-01-01")
