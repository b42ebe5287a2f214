"""A key closes after its period, by the product's clock, unless its sources deliver everything before."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.data import closing
from platform_assets.product.spec import Product
from platform_assets.sensors import landings
from tests.doubles import empty_jobs, recorded

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)


def spec_of(*early: str, **changes: Any) -> Product:
    """Return a product whose named sources deliver before the end of a key."""
    sources = tuple(replace(source, is_early=source.name in early) for source in recorded.SPEC.sources)
    return replace(recorded.SPEC, sources=sources, **changes)


def ready(spec: Product, now: datetime) -> tuple[tuple[str, ...], str]:
    """Return the keys that can be closed while a delivery of each source is there for each key."""
    keys, reason, _ = closing.find(spec, None, now, lambda *_: "m", lambda *_: None)
    return keys, reason


@pytest.mark.parametrize(
    ("grain", "end"),
    [
        (DailyGrain(start="2020-01-01"), "2020-01-02T00:00:00+00:00"),
        (DailyGrain(start="2020-03-08", time_zone="America/New_York"), "2020-03-09T04:00:00+00:00"),
        (DailyGrain(start="2020-11-01", time_zone="America/New_York"), "2020-11-02T05:00:00+00:00"),
        (DailyGrain(start="2020-01-01", time_zone="Pacific/Kiritimati"), "2020-01-01T10:00:00+00:00"),
        (HourlyGrain(start="2020-01-01T23", time_zone="Asia/Kolkata"), "2020-01-02T00:00:00+00:00"),
        (HourlyGrain(start="2020-03-29T00", time_zone="Europe/Berlin"), "2020-03-29T01:00:00+00:00"),
        (DailyGrain(start="2020-01-01", end="2020-01-01"), "2020-01-02T00:00:00+00:00"),
    ],
    ids=["day", "23 hours", "25 hours", "ahead of UTC", "hour", "hour of a change", "last key"],
)
def test_a_key_closes_at_the_end_of_its_period_and_not_before(grain: Grain, end: str) -> None:
    over = datetime.fromisoformat(end)
    spec = spec_of(grain=grain, history=None, is_live=True)
    keys, reason = ready(spec, over - SECOND)
    assert keys == ()
    assert f"plans of {grain.first} has landed, and is taken in when its period is over, from {end} on" in reason
    assert ready(spec, over)[0] == (grain.first,)


def test_a_source_that_is_early_waits_for_those_that_are_not() -> None:
    before = datetime(2019, 12, 31, 12, tzinfo=UTC)
    keys, reason = ready(spec_of("plans"), before)
    assert (keys, "readings of 2020-01-01 has landed" in reason) == ((), True)
    assert len(ready(spec_of("plans", "readings"), before)[0]) == 31, "all of its sources are timetables"


def test_a_product_of_slow_sources_alone_closes_no_key_ahead() -> None:
    sources = tuple(source for source in recorded.SPEC.sources if source.is_slow or source.is_label)
    spec = replace(recorded.SPEC, sources=sources)
    keys, reason = ready(spec, datetime(2020, 1, 2, 23, tzinfo=UTC))
    assert keys == ("2020-01-01",)
    assert reason.startswith("2020-01-02 is not over before 2020-01-03T00:00:00+00:00")


def test_only_what_is_early_may_be_due_before_the_end() -> None:
    source = recorded.SPEC.source("plans")
    with pytest.raises(ValueError, match="source 'plans' has deadline=-1 day, 12:00:00, before the end of the key"):
        replace(source, deadline=timedelta(hours=-12))
    assert replace(source, deadline=timedelta(hours=-12), is_early=True).deadline < timedelta(0)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the wall clock."""
    now = [datetime(2020, 1, 1, tzinfo=UTC)]
    monkeypatch.setattr(clock, "now", lambda *_, **__: now[0])

    def move(moment: str) -> None:
        now[0] = datetime.fromisoformat(moment)

    return move


def test_a_file_that_stood_still_in_its_period_settles_after_it(world: Any, wall: Callable[[str], None]) -> None:
    spec = replace(recorded.SPEC, is_live=True, history=None)
    sensor = landings.watch.build([spec], empty_jobs.of("advance", [spec]))
    wall("2020-01-01T09:10:00+00:00")
    world.land_key("2020-01-01")
    for moment in ("09:10:00", "09:12:00", "23:59:59"):
        wall(f"2020-01-01T{moment}+00:00")
        world.reason(sensor)
    wall("2020-01-02T00:00:01+00:00")
    assert "plans of 2020-01-01 has not settled: unchanged for 0 s of 30 s" in world.reason(sensor)
    wall("2020-01-02T00:00:32+00:00")
    assert world.request(sensor).tags["dagster/asset_partition_range_end"] == "2020-01-01"


def test_labels_of_a_key_that_is_closed_early_are_left_until_its_end(world: Any) -> None:
    spec = spec_of("plans", "readings")
    sensor = landings.watch.build([spec], empty_jobs.of("advance", [spec]))
    world.move("2020-01-01T12:00:00+00:00")
    world.land("sites", naming.UNPARTITIONED)
    world.decide("2020-01-01")
    world.land("results", "2020-01-01")
    assert "plans of 2020-01-02 has not landed" in world.reason(sensor)
    world.move("2020-01-02T00:00:00+00:00")
    request = world.request(sensor)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/asset_partition_range_start"] == "2020-01-01"
