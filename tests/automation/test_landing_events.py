"""What lands is in Dagster: each complete file once as a materialisation, other changes as observations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from driftline import for_each_key
from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.data import landing_reports
from platform_assets.sensors import freshness, landings
from platform_assets.store import landing
from platform_assets.store.artifacts import sha256
from tests.doubles import empty_jobs, recorded

pytestmark = pytest.mark.slow

FIRST, SECOND = "2020-01-01", "2020-01-02"
SENSOR = landings.watch.build([recorded.SPEC], empty_jobs.of("advance", [recorded.SPEC]))
Events = Callable[..., list[tuple[str | None, Any]]]


def key_of(source: str) -> dg.AssetKey:
    return dg.AssetKey(["recorded", f"landing_{source}"])


def landed(world: Any, source: str) -> list[tuple[str | None, str]]:
    """Return the partitions and data versions of what was reported, oldest first."""
    records = world.instance.fetch_materializations(key_of(source), limit=1_000, ascending=True).records
    return [(record.partition_key, record.asset_materialization.tags["dagster/data_version"]) for record in records]


def observed(world: Any, source: str) -> list[tuple[str | None, str]]:
    records = world.instance.fetch_observations(key_of(source), limit=1_000, ascending=True).records
    return [(record.partition_key, record.event_log_entry.asset_observation.description) for record in records]


def mark_of(world: Any, source: str, key: str) -> str:
    mark = landing.channels(world.spec, world.settings.root)[source].probe(key)
    assert mark is not None
    return mark


@pytest.fixture
def ready(world: Any) -> Any:
    """A world in which the first key's files have landed."""
    world.move("2020-01-02T00:00:00+00:00")
    world.land_key(FIRST)
    return world


def test_each_file_is_reported_once_with_its_mark_as_data_version_even_without_a_cursor(ready: Any) -> None:
    for _ in range(3):
        ready.tick(SENSOR)
    for source in ("plans", "readings"):
        assert landed(ready, source) == [(FIRST, mark_of(ready, source, FIRST))]
    assert landed(ready, "sites") == [(None, mark_of(ready, "sites", naming.UNPARTITIONED))]
    assert observed(ready, "plans") == []
    ready.cursors.clear()
    ready.tick(SENSOR)
    assert [len(landed(ready, source)) for source in ("plans", "readings", "sites")] == [1, 1, 1]


def test_a_file_that_was_replaced_is_reported_by_its_new_mark(ready: Any) -> None:
    ready.tick(SENSOR)
    before = mark_of(ready, "plans", FIRST)
    ready.land("plans", FIRST, "other text")
    ready.tick(SENSOR)
    assert landed(ready, "plans") == [(FIRST, before), (FIRST, mark_of(ready, "plans", FIRST))]


def test_a_file_that_is_not_complete_is_not_reported(ready: Any) -> None:
    sources = tuple(replace(item, arrives="marker") if item.name == "plans" else item for item in ready.spec.sources)
    spec = replace(ready.spec, sources=sources)
    sensor = landings.watch.build([spec], empty_jobs.of("advance", [spec]))
    ready.tick(sensor)
    assert landed(ready, "plans") == []
    ready.land("plans", f"{FIRST}.csv.done").rename(ready.land("plans", FIRST).with_suffix(".csv.done"))
    ready.tick(sensor)
    assert landed(ready, "plans") == [(FIRST, mark_of(ready, "plans", FIRST))]


def test_a_tick_that_finds_nothing_new_asks_dagster_nothing(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.tick(SENSOR)
    asked: list[dg.AssetRecordsFilter] = []
    fetch = dg.DagsterInstance.fetch_materializations

    def fetched(instance: dg.DagsterInstance, wanted: dg.AssetRecordsFilter, limit: int) -> dg.EventRecordsResult:
        asked.append(wanted)
        return fetch(instance, wanted, limit=limit)

    monkeypatch.setattr(dg.DagsterInstance, "fetch_materializations", fetched)
    ready.tick(SENSOR)
    assert asked == []
    ready.land("plans", FIRST, "other text")
    ready.tick(SENSOR)
    assert [(wanted.asset_key, wanted.asset_partitions) for wanted in asked] == [(key_of("plans"), [FIRST])]


def test_a_backlog_is_reported_over_several_ticks(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_reports, "MOST", 4)
    world.move("2020-01-06T00:00:00+00:00")
    keys = recorded.GRAIN.span(FIRST, "2020-01-05")
    world.land_key(*keys)
    for _ in range(3):
        world.tick(SENSOR)
    for source in ("plans", "readings"):
        assert landed(world, source) == [(key, mark_of(world, source, key)) for key in keys]


def test_a_file_that_is_deleted_before_it_was_taken_in_is_observed(ready: Any) -> None:
    ready.tick(SENSOR)
    ready.land("plans", FIRST).unlink()
    for _ in range(2):
        ready.tick(SENSOR)
    assert observed(ready, "plans") == [(FIRST, f"plans of {FIRST}: it was deleted before it was taken in.")]


def take_in(world: Any, source: str, text: str) -> None:
    """Write a file and its record where landing and the stage `raw` do."""
    world.land(source, FIRST, text)
    inputs, notes = {"file": sha256(text.encode())}, {"mark": mark_of(world, source, FIRST)}
    world.tables.record(f"raw_{source}", FIRST, content_digest="0", inputs=inputs, code="0", notes=notes)


def test_what_happens_to_a_file_that_was_taken_in_is_observed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "LOOK_EVERY_S", 0.0)
    world.move("2020-01-02T00:00:00+00:00")
    for source in ("plans", "readings"):
        take_in(world, source, "one\n")
    world.decide(FIRST)
    sensor = freshness.watch.build([recorded.SPEC])
    world.land("plans", FIRST, "one\ntwo\n")
    world.land("readings", FIRST).unlink()
    for _ in range(2):
        world.tick(sensor)
    then, now = (sha256(text)[:12] for text in (b"one\n", b"one\ntwo\n"))
    changed = f"changed after it was taken in (sha256 was {then}, now {now})"
    assert observed(world, "plans") == [(FIRST, f"plans of {FIRST}: {changed}.")]
    gone = "it was deleted after it was taken in; a copy is kept"
    assert observed(world, "readings") == [(FIRST, f"readings of {FIRST}: {gone}.")]
    assert landed(world, "plans") == [], "conditions fire for nothing that is not taken in"


def test_what_a_host_hangs_onto_a_landing_folder_fires_once(ready: Any) -> None:
    keys = dg.DailyPartitionsDefinition(start_date=FIRST, end_date="2020-02-01")

    @dg.asset(deps=[key_of("plans")], partitions_def=keys, automation_condition=for_each_key())
    def mirror() -> None: ...

    ours = build_defs(specs=[replace(ready.spec, history=None)])
    defs = dg.Definitions.merge(ours, dg.Definitions(assets=[mirror]))

    def fired(cursor: Any = None) -> Any:
        return dg.evaluate_automation_conditions(
            defs, ready.instance, asset_selection=dg.AssetSelection.assets("mirror"), cursor=cursor
        )

    result = fired()
    ready.tick(SENSOR)
    result = fired(result.cursor)
    assert result.total_requested == 1
    ready.cursors.clear()
    ready.tick(SENSOR)
    assert fired(result.cursor).total_requested == 0


def test_raw_depends_on_the_folder() -> None:
    graph = build_defs(specs=[recorded.SPEC]).resolve_asset_graph()
    for source in recorded.SPEC.sources:
        node = graph.get(dg.AssetKey(["recorded", f"raw_{source.name}"]))
        assert node.parent_keys == {key_of(source.name)}
        assert node.partitions_def == graph.get(key_of(source.name)).partitions_def
        assert not graph.get(key_of(source.name)).is_executable
