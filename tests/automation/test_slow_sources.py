"""A source that hangs, fails or is slow delays neither a tick nor another product, and is named."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.keys import DailyGrain
from platform_assets.data import source_calls
from platform_assets.operations import status
from platform_assets.product.channels import Channel, Landed
from platform_assets.product.spec import Product
from platform_assets.sensors import freshness, landings, ticks
from platform_assets.store.product_store import ProductStore
from tests.doubles import empty_jobs, recorded

pytestmark = pytest.mark.slow

GRAIN = DailyGrain(start="2020-01-01", end="2021-12-31")
NOW = datetime(2021, 6, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, eq=False)
class Warehouse(Channel):
    """A channel whose answers come from a function, such as one that never returns."""

    answer: Callable[[str], str | None]
    asked: list[str] = field(default_factory=list)

    def probe(self, key: str, companion: str = "") -> str | None:
        self.asked.append(key)
        return self.answer(key)

    def fetch(self, key: str, companion: str = "") -> Landed:
        return Landed(uri=key, data=b"", arrived_at_utc=NOW, mark="m")

    def cite(self, key: str | None = None) -> str:
        return f"warehouse {key}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Together(Warehouse):
    """A warehouse that answers for many keys at once."""

    calls: list[int] = field(default_factory=list)

    def marks(self, keys: Sequence[str], companion: str = "") -> Mapping[str, str | None]:
        self.calls.append(len(keys))
        return {key: mark for key in keys if (mark := self.answer(key)) is not None}


def spec_of(name: str = "recorded", **channels: Channel) -> Product:
    sources = tuple(replace(source, channel=channels.get(source.name)) for source in recorded.SPEC.sources)
    return replace(recorded.SPEC, name=name, sources=sources, grain=GRAIN)


def sensor_of(*specs: Product) -> dg.SensorDefinition:
    return landings.watch.build(specs, empty_jobs.of("advance", specs))


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that hanging calls wait for; set at the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a second for a call that hangs: at a load of 20 one that answers took more than a tenth."""
    monkeypatch.setattr(source_calls, "WAIT_S", 1.0)
    monkeypatch.setattr(ticks, "BUDGET_S", 600.0)  # the first tick imports what it needs, which took 4 s of 5


def threads() -> int:
    return sum(thread.name == "source" for thread in threading.enumerate())


def test_a_source_that_hangs_is_named_once_per_tick_and_blocks_one_thread(world: Any, gate: threading.Event) -> None:
    readings = Warehouse(answer=lambda key: None if key == "2020-01-01" and gate.wait() else "m")
    other = replace(recorded.SPEC, name="other")
    world.spec = spec_of(readings=readings)
    sensor, before = sensor_of(world.spec, other), threads()
    for name in ("recorded", "other"):
        clock.move(world.settings, name, datetime(2020, 1, 2, tzinfo=UTC))
    world.land_key("2020-01-01")
    world.spec = other
    world.land_key("2020-01-01")
    request = world.request(sensor)
    assert request.job_name == "advance__other", "the other product goes on"
    world.run(request, dg.DagsterRunStatus.STARTED)
    for _ in range(4):
        assert "recorded: readings of 2020-01-01 has not answered for" in world.reason(sensor)
    assert (readings.asked, threads() - before) == (["2020-01-01"], 1)
    state = status.of_product(ProductStore(spec_of(readings=readings), world.settings))
    assert state.slow is not None
    assert [(one.source, bool(one.problem)) for one in state.slow] == [("readings", True)]
    assert "sources    readings has not answered for" in status.as_text(state)


def test_a_source_that_answers_again_is_taken_up_where_it_stopped(world: Any, gate: threading.Event) -> None:
    plans = Warehouse(answer=lambda key: "m" if key != "2020-01-02" or gate.wait() else None)
    world.spec = spec_of(plans=plans)
    sensor, before = sensor_of(world.spec), threads()
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01", "2020-01-02")
    request = world.request(sensor)
    assert request.tags["dagster/asset_partition_range_end"] == "2020-01-01", "the key before goes on"
    world.run(request, dg.DagsterRunStatus.SUCCESS)
    world.decide("2020-01-01")
    assert "plans of 2020-01-02 has not answered for" in world.reason(sensor)
    gate.set()
    while threads() > before:
        time.sleep(0.01)
    assert world.request(sensor).tags["dagster/asset_partition_range_start"] == "2020-01-02"
    assert plans.asked.count("2020-01-02") == 1, "its late answer counts"
    assert status.of_product(ProductStore(world.spec, world.settings)).slow is None


@pytest.mark.parametrize("name", ["sites", "results"])
def test_slow_tables_and_labels_that_hang_are_named(world: Any, gate: threading.Event, name: str) -> None:
    world.spec = spec_of(**{name: Warehouse(answer=lambda _: str(gate.wait()))})
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01", "2020-01-02")
    world.decide("2020-01-01")
    sensor = sensor_of(world.spec)
    if name == "sites":
        assert "sites, which every key needs, has not answered for" in world.reason(sensor)
    else:
        assert world.request(sensor).tags["dagster/asset_partition_range_end"] == "2020-01-02"
        state = status.of_product(ProductStore(world.spec, world.settings))
        assert state.slow is not None and state.slow[0].source == "results"


def test_what_a_source_raises_is_its_own_reason(world: Any) -> None:
    def broken(key: str) -> str | None:
        raise ZeroDivisionError(f"no row of {key}")

    world.spec = spec_of(readings=Warehouse(answer=broken))
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01")
    reason = world.reason(sensor_of(world.spec))
    assert "readings of 2020-01-01 cannot be asked: ZeroDivisionError: no row of 2020-01-01" in reason


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "folder"])
def test_what_is_in_a_files_place_hangs_no_tick_and_is_named(world: Any, tmp_path: Path, kind: str) -> None:
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01")
    world.land("plans", "2020-01-02")
    path = world.land("readings", "2020-01-02")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    sensor = sensor_of(recorded.SPEC)
    request = world.request(sensor)
    assert request.tags["dagster/asset_partition_range_end"] == "2020-01-01", "the key before goes on"
    world.run(request, dg.DagsterRunStatus.SUCCESS)
    world.decide("2020-01-01")
    reason = world.reason(sensor)
    assert "readings of 2020-01-02 has not landed" in reason
    assert f"{path} is a pipe, a folder or a device; expected a file" in reason


@pytest.mark.costly
def test_files_of_closed_keys_are_compared_although_a_source_hangs(world: Any, gate: threading.Event) -> None:
    world.spec = spec_of(plans=Warehouse(answer=lambda _: str(gate.wait())))
    world.move("2020-01-04T00:00:00+00:00")
    world.decide("2020-01-01")
    for source in ("plans", "readings"):
        world.tables.record(f"raw_{source}", "2020-01-01", content_digest="0", inputs={"file": "0"}, code="0")
    world.land("readings", "2020-01-01", "other")
    reason = world.reason(freshness.watch.build([world.spec]))
    assert "changed since they were taken in: readings 2020-01-01; plans has not answered for" in reason


def test_marks_of_many_keys_are_one_call(world: Any) -> None:
    channels = {name: Together(answer=lambda _: "m") for name in ("plans", "readings", "results")}
    world.spec = spec_of(**channels)
    world.move(NOW.isoformat())
    world.land("sites", naming.UNPARTITIONED)
    request = world.request(sensor_of(world.spec))
    assert request.tags["dagster/asset_partition_range_start"] == "2020-01-01"
    assert {name: channel.calls for name, channel in channels.items()} == {
        "plans": [100],
        "readings": [100],
        "results": [],
    }
    assert [channel.asked for channel in channels.values()] == [[], [], []]
    for key in GRAIN.span("2020-01-01", "2020-01-20"):
        world.decide(key)
    world.run(request, dg.DagsterRunStatus.SUCCESS)
    world.tick(sensor_of(world.spec))
    assert channels["results"].calls == [100], "and so are labels"


def test_a_channel_without_a_call_for_many_keys_is_asked_no_further_than_needed(world: Any) -> None:
    plans = Warehouse(answer=lambda key: "m" if key < "2020-01-04" else None)
    world.spec = spec_of(plans=plans, readings=Warehouse(answer=lambda _: "m"))
    world.move(NOW.isoformat())
    world.land("sites", naming.UNPARTITIONED)
    world.spec = replace(world.spec, sources=tuple(replace(s, deadline=timedelta(9999)) for s in world.spec.sources))
    world.request(sensor_of(world.spec))
    assert plans.asked == list(GRAIN.span("2020-01-01", "2020-01-04"))


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replace the ticks' clock by one that only moves when a probe takes its time."""
    passed, lock = [0.0], threading.Lock()

    class Stopped:
        """The module `time`, standing still."""

        sleep = staticmethod(time.sleep)

        @staticmethod
        def perf_counter() -> float:
            return passed[0]

    def take(seconds: float) -> None:
        with lock:
            passed[0] += seconds

    from platform_assets.data import landed_marks

    for module in (ticks, source_calls, landed_marks):
        monkeypatch.setattr(module, "time", Stopped)
    monkeypatch.setattr(source_calls, "WAIT_S", 1e9)
    monkeypatch.setattr(ticks, "BUDGET_S", 5.0)
    return take


def test_products_take_turns_until_each_was_looked_at(
    world: Any, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "LOOKS_AT_ONCE", 1)

    def answer(key: str) -> str | None:
        stopwatch(0.075)
        return "m"

    names = [f"p{number:02d}" for number in range(12)]
    specs = [
        spec_of(name, **{source: Warehouse(answer=answer) for source in ("plans", "readings", "sites", "results")})
        for name in names
    ]
    for name in names:
        clock.move(world.settings, name, NOW)
    sensor = sensor_of(*specs)
    launched: list[str] = []
    for _ in range(40):
        result = world.tick(sensor)
        for request in result.run_requests or ():
            launched.append(str(request.job_name).removeprefix("advance__"))
            world.run(request, dg.DagsterRunStatus.STARTED)
        if set(launched) == set(names):
            break
    assert sorted(launched) == names, "each once, and none is left out"
    # 63 keys of two sources and a slow one are 127 probes, 9.5 s: two ticks of 5 s per product.
    state = status.of_product(ProductStore(specs[0], world.settings))
    assert state.slow is not None
    assert {one.source for one in state.slow} <= {"plans", "readings"}


def test_a_failing_run_of_a_slow_product_is_given_up_as_any_other(
    world: Any, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landings, "MOST_ATTEMPTS", 2)
    monkeypatch.setattr(landings, "PAUSES_S", (0,))
    duration = [0.2]

    def answer(key: str) -> str | None:
        stopwatch(duration[0])
        return "m"

    world.spec = spec_of(plans=Warehouse(answer=answer), readings=Warehouse(answer=answer))
    world.move(NOW.isoformat())
    world.land("sites", naming.UNPARTITIONED)
    sensor, attempts = sensor_of(world.spec), []
    for number in range(60):
        duration[0] = 0.2 + number % 5 / 10
        for request in world.tick(sensor).run_requests or ():
            attempts.append(request.tags[naming.TAG_EPISODE])
            world.run(request, dg.DagsterRunStatus.FAILURE)
    assert len(attempts) == 2 and len(set(attempts)) == 1, "the same keys, however far each tick came"
    assert [alert["kind"] for alert in world.alerts()] == ["gave_up"]
