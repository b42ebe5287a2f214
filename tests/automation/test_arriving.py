"""A key is closed only with complete files, by the completeness rule of each source."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data.arriving import Watch
from platform_assets.product.spec import Product
from platform_assets.sensors import landings
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents, empty_jobs, recorded
from tests.volume import draws

pytestmark = pytest.mark.slow

KEY = "2020-01-01"
BEFORE, OVERDUE = "2020-01-02T06:00:00+00:00", "2020-01-03T00:00:00+00:00"


def arriving(spec: Product = recorded.SPEC, **changes: Any) -> Product:
    """Return a product whose readings arrive with these changes."""
    sources = tuple(replace(source, **changes) if source.name == "readings" else source for source in spec.sources)
    return replace(spec, sources=sources)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances the wall clock by some seconds; recordings have a clock of their own."""
    passed = [0.0]
    real = clock.now

    def now(settings: Any, product: str, *, is_live: bool) -> Any:
        return real(settings, product, is_live=is_live) + timedelta(seconds=passed[0] if is_live else 0)

    def advance(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(clock, "now", now)
    return advance


def sensor_of(spec: Product) -> dg.SensorDefinition:
    return landings.watch.build([spec], empty_jobs.of("advance", [spec]))


def test_a_growing_file_is_waited_for_until_two_looks_agree(world: Any, wall: Callable[[float], None]) -> None:
    sensor = sensor_of(arriving(arrives="settled", settle=timedelta(seconds=30)))
    world.move(BEFORE)
    world.land_key(KEY)
    reason = world.reason(sensor)
    assert f"readings of {KEY} has not settled: unchanged for 0 s of 30 s" in reason
    wall(29)
    assert "unchanged for 29 s of 30 s" in world.reason(sensor)
    world.land("readings", KEY, "anything\nand one line more\n")
    wall(2)
    assert "unchanged for 0 s of 30 s" in world.reason(sensor), "it has grown, so the wait starts again"
    wall(30)
    request = world.request(sensor)
    assert request.tags["dagster/asset_partition_range_end"] == KEY
    assert len(request.tags[naming.TAG_SETTLED].split()) == 1


STEP = st.tuples(st.floats(-50, 50), st.booleans())


@given(steps=st.lists(STEP, min_size=1, max_size=12))
@settings(max_examples=draws(100), deadline=None)
def test_a_file_is_taken_only_after_it_was_unchanged_whatever_the_clock_does(steps: list[tuple[float, bool]]) -> None:
    spec, at_s, version, looks = arriving(arrives="settled"), 1e9, 0, dict[str, Any]()
    source = spec.source("readings")
    unchanged_at: list[float] = []
    for passed, is_written in steps:
        at_s += passed
        version += is_written
        unchanged_at = [*([] if is_written else unchanged_at), at_s]
        moment = datetime.fromtimestamp(at_s, UTC)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now", lambda *_, at=moment, **__: at)
            product = ProductStore(spec, Settings.from_environment())
            watch = Watch(product, lambda *_: None, json.loads(json.dumps(looks)), fetch=lambda *_: [])
        reason = watch.check(source, KEY, f"{version}")
        looks = watch.looks
        is_still = at_s - min(unchanged_at) >= 30
        assert is_still or reason is not None
        if all(before <= after for before, after in pairwise(unchanged_at)):
            assert (reason is None) == (at_s - unchanged_at[0] >= 30)
        assert (reason is None) == bool(watch.settled)


def test_the_files_of_a_backlog_settle_together(world: Any, wall: Callable[[float], None]) -> None:
    sensor = sensor_of(arriving(arrives="settled"))
    keys = recorded.GRAIN.span("2020-01-01", "2020-01-20")
    world.move("2020-01-21T00:00:00+00:00")
    world.land_key(*keys)
    assert "readings of 2020-01-01 has not settled" in world.reason(sensor), "although its deadline is over"
    wall(31)
    request = world.request(sensor)
    assert request.tags["dagster/asset_partition_range_start"] == keys[0]
    assert request.tags["dagster/asset_partition_range_end"] == keys[-1]
    assert len(request.tags[naming.TAG_SETTLED].split()) == len(keys)


def test_a_file_still_growing_after_its_deadline_does_not_keep_its_key_open(
    world: Any, wall: Callable[[float], None]
) -> None:
    sensor = sensor_of(arriving(arrives="settled", settle=timedelta(seconds=30)))
    world.move(OVERDUE)
    world.land_key(KEY)
    for lines in range(1, 5):
        wall(25 if lines > 1 else 0)
        world.land("readings", KEY, "line\n" * lines)
        assert "has not settled" in world.reason(sensor)
    wall(25)
    world.land("readings", KEY, "x" * 100)
    assert world.request(sensor).tags["dagster/asset_partition_range_end"] == KEY


def test_a_run_request_names_the_requested_keys(world: Any) -> None:
    sensor = sensor_of(recorded.SPEC)
    world.move("2020-01-04T00:00:00+00:00")
    world.land_key()
    for key in recorded.GRAIN.span("2020-01-01", "2020-01-03"):
        world.decide(key)
    for first in ("2020-01-02", "2020-01-20"):
        world.ledgers.append(naming.REQUESTS, documents.advance(first))
    assert world.request(sensor).tags[naming.TAG_REQUESTED] == "2020-01-02"


def test_a_marker_shows_that_a_file_is_complete(world: Any) -> None:
    sensor = sensor_of(arriving(arrives="marker"))
    world.move(BEFORE)
    world.land_key(KEY)
    assert f"readings of {KEY} is there, and its marker {KEY}.csv.done is not; due" in world.reason(sensor)
    path = Path(naming.landing_location(world.settings.root, "recorded/readings", KEY, ".csv.done"))
    path.touch()
    assert world.request(sensor).tags["dagster/asset_partition_range_end"] == KEY


LINE = "2020-01-01T02:00:00Z,2,2020-01-01T02:30:00Z\n"
TEXT = f"read_at_utc,value,known_at_utc\n{LINE}{LINE}"


def manifest_of(text: str, rows: int) -> str:
    return json.dumps({"rows": rows, "sha256": sha256(text.encode()).hexdigest()})


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, f"is there, and its manifest {KEY}.csv.manifest.json is not"),
        ("1000", "has the manifest '1000'; expected JSON such as "),
        ('{"rows": true, "sha256": "x"}', "has the manifest "),
        (manifest_of(TEXT + LINE, 3), f"has the sha256 {sha256(TEXT.encode()).hexdigest()[:12]}"),
        (manifest_of(TEXT, 1_000), "has 2 rows; its manifest says 1,000"),
    ],
)
def test_a_manifest_is_compared_with_the_delivered_file(world: Any, manifest: str | None, reason: str) -> None:
    sensor = sensor_of(arriving(arrives="manifest"))
    world.move(BEFORE)
    world.land_key(KEY)
    world.land("readings", KEY, TEXT)
    path = Path(naming.landing_location(world.settings.root, "recorded/readings", KEY, ".csv.manifest.json"))
    if manifest is not None:
        path.write_text(manifest)
    assert f"readings of {KEY} {reason}" in world.reason(sensor)
    assert f"readings of {KEY} {reason}" in world.reason(sensor), "remembered from the previous tick"
    path.write_text(manifest_of(TEXT, 2))
    assert world.request(sensor).tags["dagster/asset_partition_range_end"] == KEY


def test_an_incomplete_file_at_its_deadline_does_not_keep_its_key_open(world: Any) -> None:
    sensor = sensor_of(arriving(arrives="marker"))
    world.land_key(KEY)
    world.move(OVERDUE)
    assert world.request(sensor).tags["dagster/asset_partition_range_end"] == KEY
