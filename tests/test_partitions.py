"""Dagster's partitions are the grain's keys, and its mappings are the windows that the stages read."""

from dataclasses import replace

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.keys import BatchGrain, DailyGrain, Grain, HourlyGrain
from platform_assets.base.settings import Settings
from platform_assets.engine import partitions
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

GRAINS = (
    DailyGrain(start="2013-03-01", end="2013-04-15", time_zone="America/New_York"),
    HourlyGrain(start="2013-03-09T20", end="2013-03-11T23"),
    BatchGrain(count=46),
)
for_each_grain = pytest.mark.parametrize("grain", GRAINS, ids=lambda grain: grain.kind)


def keys(grain: Grain) -> tuple[str, ...]:
    return grain.span(grain.first, str(grain.last))


def upstream(grain: Grain, mapping: dg.PartitionMapping, key: str) -> tuple[str, ...]:
    definition = partitions.definition(grain)
    subset = definition.subset_with_partition_keys([key])
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, definition, definition)
    return tuple(sorted(upstream.partitions_subset.get_partition_keys()))


@for_each_grain
def test_partitions_are_the_keys(grain: Grain) -> None:
    assert tuple(partitions.definition(grain).get_partition_keys()) == keys(grain)


def test_a_grain_without_end_offers_the_period_under_way_as_a_cutoff() -> None:
    from datetime import UTC, datetime, timedelta

    grain = DailyGrain(start=(datetime.now(UTC) - timedelta(days=3)).date().isoformat())
    offered = partitions.definition(grain).get_partition_keys()
    assert offered[0] == grain.start
    assert len(offered) >= 4


@for_each_grain
@given(position=st.integers(0, 45), lookback=st.integers(0, 9))
def test_features_depend_on_the_keys_they_look_back_on(grain: Grain, position: int, lookback: int) -> None:
    key = grain.key_at(position)
    expected = grain.with_lookback((key,), lookback)
    assert upstream(grain, partitions.mapping(grain, lookback=lookback), key) == expected


@for_each_grain
@given(position=st.integers(0, 45), width=st.none() | st.integers(4, 60), delay=st.integers(0, 3))
def test_a_cutoff_depends_on_its_window(grain: Grain, position: int, width: int | None, delay: int) -> None:
    cutoff = grain.key_at(position)
    mapping = partitions.window_mapping(grain, width=width, label_delay=delay)
    assert upstream(grain, mapping, cutoff) == grain.window(cutoff, width=width, label_delay=delay)


@for_each_grain
def test_a_changed_key_affects_the_keys_that_look_back_on_it(grain: Grain) -> None:
    definition = partitions.definition(grain)
    mapping = partitions.mapping(grain, lookback=3)
    changed = definition.subset_with_partition_keys([grain.key_at(5)])
    concerned = mapping.get_downstream_partitions_for_partitions(changed, definition, definition)
    assert sorted(concerned.get_partition_keys()) == list(grain.span(grain.key_at(5), grain.key_at(8)))


def test_many_batches_are_mapped_all_to_all_instead_of_listed() -> None:
    grain = BatchGrain(count=700)
    assert isinstance(partitions.window_mapping(grain, width=None), dg.AllPartitionMapping)
    assert isinstance(partitions.mapping(grain, lookback=7), dg.StaticPartitionMapping)


@for_each_grain
def test_a_recording_ends_with_its_announced_replay(grain: Grain, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    spec = replace(batches.SPEC, name="recorded", grain=grain)
    monkeypatch.setenv("DRIFTLINE_STATE", str(settings.state))
    assert partitions.keys_of(spec) == partitions.cutoffs_of(spec) == grain, "no replay was announced"
    clock.announce(settings, spec.name, grain.key_at(20))
    offered, cutoffs = (
        partitions.definition(partitions.keys_of(spec)),
        partitions.definition(partitions.cutoffs_of(spec)),
    )
    assert tuple(offered.get_partition_keys()) == keys(grain)[:21]
    assert tuple(cutoffs.get_partition_keys()) == keys(grain)[:22]
    mapping = partitions.window_mapping(partitions.cutoffs_of(spec), width=3)
    newest = cutoffs.subset_with_partition_keys([grain.key_at(21)])
    upstream_keys = mapping.get_upstream_mapped_partitions_result_for_partitions(newest, cutoffs, offered)
    assert tuple(sorted(upstream_keys.partitions_subset.get_partition_keys())) == keys(grain)[18:21]
    clock.announce(settings, spec.name, str(grain.last))
    assert partitions.keys_of(spec) == partitions.cutoffs_of(spec) == grain


def test_a_key_of_another_grain_ends_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(settings.state))
    clock.announce(settings, batches.SPEC.name, "2013-03-01")
    assert partitions.keys_of(batches.SPEC) == batches.GRAIN


def test_every_asset_of_a_replayed_recording_ends_with_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(settings.state))
    clock.announce(settings, batches.SPEC.name, "0020")
    graph = build_defs(specs=[batches.SPEC]).resolve_asset_graph()
    last: dict[str, set[str]] = {}
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        if node.partitions_def is not None:
            last.setdefault(str(node.group_name), set()).add(str(node.partitions_def.get_last_partition_key()))
    group = batches.SPEC.group
    assert last == {
        group(naming.DATA): {"0020"},
        group(naming.MONITORING): {"0020"},
        group(naming.TRAINING): {"0021"},
        group(naming.SERVING): {"0021"},
    }


def test_other_kinds_of_grain_are_refused() -> None:
    with pytest.raises(TypeError, match="grain is a Grain; expected one of the three"):
        partitions.definition(Grain())
