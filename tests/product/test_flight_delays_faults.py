"""A sound year of the reference product raises no fault, and each injected fault is detected on its first day."""

import random
from collections import Counter

import numpy as np
import polars as pl
import pytest

from platform_assets.data import landed, validation
from platform_assets.engine.product_files import load
from platform_assets.monitoring import drift_index, faults, sketch
from platform_assets.product.spec import FaultKind
from platform_assets.store.records.sketches import RuleCount, SourceSketch
from platform_assets.training.histograms import histograms
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from platform_assets.training.reference import reference_of
from tests.product.conftest import ARRIVED, Year

pytestmark = pytest.mark.slow

SPEC = load("flight_delays")
KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.last or "")
KEYED = [source.name for source in SPEC.sources if not source.is_slow]
DAYS = 18
Sketched = tuple[dict[str, SourceSketch], dict[str, RuleCount]]


@pytest.fixture(scope="module")
def tables(year: Year) -> dict[str, dict[str, pl.DataFrame]]:
    """Good rows by source and key; a key without rows has an empty frame."""
    result = {}
    for name in KEYED:
        frame = year.tables[name]
        parts = {str(key): part for (key,), part in frame.partition_by("key", as_dict=True).items()}
        result[name] = {key: parts.get(key, frame.clear()) for key in KEYS}
    return result


@pytest.fixture(scope="module")
def sketched(year: Year, tables: dict[str, dict[str, pl.DataFrame]]) -> dict[str, Sketched]:
    """Every key's sketches and counts of broken rules, as delivered."""
    quarantined = Counter(year.quarantined.select("source", "key").iter_rows())
    return {
        key: (
            {
                name: sketch.of_source(
                    tables[name][key],
                    unique=SPEC.source(name).unique,
                    quarantined=quarantined[name, key],
                    repeated=0,
                )
                for name in KEYED
            },
            sketch.of_rules(SPEC.monitors.rules, {name: tables[name][key] for name in KEYED}),
        )
        for key in KEYS
    }


def failing_checks(sketched: dict[str, Sketched], index: int, delivered: Sketched) -> tuple[faults.Check, ...]:
    """Return the failing checks of a key against the sound ones before it."""
    monitors = SPEC.monitors
    record = [
        faults.Past(phase=earlier % monitors.season, sources=sketched[KEYS[earlier]][0])
        for earlier in range(max(0, index - monitors.record_keys), index)
    ]
    before = [past.sources for past in record]
    return faults.failing(
        faults.check(*delivered, phase=index % monitors.season, record=record, before=before, monitors=monitors)
    )


@pytest.mark.thorough
def test_no_day_is_faulty_except_the_last_without_recorded_weather(
    sketched: dict[str, Sketched],
) -> None:
    """All days count: storms, holidays and both clock changes are sound."""
    result = {
        key: [(item.source, item.check) for item in failing_checks(sketched, index, sketched[key])]
        for index, key in enumerate(KEYS)
    }
    assert {key: checks for key, checks in result.items() if checks} == {"2013-12-31": [("weather", "empty_delivery")]}


def broken(kind: FaultKind, tables: dict[str, dict[str, pl.DataFrame]], keys: list[str]) -> dict[str, Sketched]:
    """Deliver the broken files, validate and sketch them; the other sources are unchanged."""
    assert SPEC.history is not None
    source = SPEC.source(kind.source)
    schema = source.schema()
    files = {key: kind.deliver(SPEC.history.deliver, kind.source, key) for key in keys}
    splits = validation.split_keys(
        {
            key: landed.rows(data or b"", columns=[*schema.columns], arrived_at_utc=ARRIVED)
            for key, data in files.items()
        },
        schema,
        schema_version=source.schema_version,
        unique=source.unique,
        key_of=validation.key_column(source.partition_by or "", SPEC.grain.key_of),
    )
    result = {}
    for key, split in splits.items():
        delivered = {name: tables[name][key] for name in KEYED} | {kind.source: split.good}
        counts = dict.fromkeys(KEYED, (0, 0))
        counts[kind.source] = (split.quarantined.height, split.repeated)
        sources = {
            name: sketch.of_source(
                frame, unique=SPEC.source(name).unique, quarantined=counts[name][0], repeated=counts[name][1]
            )
            for name, frame in delivered.items()
        }
        result[key] = (sources, sketch.of_rules(SPEC.monitors.rules, delivered))
    return result


@pytest.mark.costly
@pytest.mark.parametrize("kind", SPEC.history.faults if SPEC.history else (), ids=lambda kind: kind.name)
def test_a_broken_delivery_is_named_on_its_first_day(
    kind: FaultKind, sketched: dict[str, Sketched], tables: dict[str, dict[str, pl.DataFrame]]
) -> None:
    """On seeded days from the 15th on, the first failing check is the one the fault kind declares."""
    indexes = sorted(random.Random(kind.name).sample(range(14, len(KEYS) - 1), DAYS))
    delivered = broken(kind, tables, [KEYS[index] for index in indexes])
    first = {KEYS[index]: failing_checks(sketched, index, delivered[KEYS[index]])[:1] for index in indexes}
    named = {key: [(item.source, item.check) for item in checks] for key, checks in first.items()}
    assert named == {key: [(kind.source, kind.check)] for key in named}


def test_a_broken_delivery_leaves_other_sources_unchanged() -> None:
    assert SPEC.history is not None
    sound = SPEC.history.deliver
    for kind in SPEC.history.faults:
        for name in KEYED:
            same = kind.deliver(sound, name, "2013-05-05") == sound(name, "2013-05-05")
            assert same == (name != kind.source), f"{kind.name} of {name}"
        assert kind.deliver(sound, kind.source, "2014-01-01") is None


@pytest.mark.thorough
def test_at_most_two_percent_of_weeks_drift_when_the_days_are_permuted(year: Year) -> None:
    """The null hypothesis: days keep their rows but are in random order; Q2 of the targets."""
    parts = {str(key): part for (key,), part in year.built.partition_by("key", as_dict=True).items()}
    alarms = weeks = 0
    for seed in range(2):
        order = [KEYS[index] for index in np.random.default_rng(seed).permutation(len(KEYS) - 1)]
        trained, width = order[:60], SPEC.monitors.drift_window
        learned = learn(inputs_of(pl.concat([parts[key] for key in trained]), SPEC.fields), SPEC.fields)
        of = {key: histograms(parts[key], learned) for key in order}
        reference = reference_of({key: of[key] for key in trained})
        for index in range(len(trained), len(order) - width + 1, width):
            week = {key: of[key] for key in order[index : index + width]}
            result = drift_index.index(week, reference, limit=SPEC.monitors.drift_limit, margin=SPEC.monitors.margin)
            alarms, weeks = alarms + result.is_drift, weeks + 1
    assert weeks == 86
    assert alarms <= 0.02 * weeks
