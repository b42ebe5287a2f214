"""No unmodified batch of photos raises a fault, and each injected fault is detected in its first broken batch."""

import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from platform_assets.data import images, landed, validation
from platform_assets.engine.product_files import load
from platform_assets.monitoring import faults, sketch
from platform_assets.product.spec import Deliver, FaultKind
from platform_assets.store.records.sketches import RuleCount, SourceSketch
from tests.volume import draws

SPEC = load("garment_photos")
ALL_KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.last or "")
KEYS = ALL_KEYS[: draws(len(ALL_KEYS))]
ARRIVED = datetime(2024, 2, 1, tzinfo=UTC)
BATCHES = 5
Sketched = tuple[dict[str, SourceSketch], dict[str, RuleCount]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/usr/share/datasets/fashion-mnist").is_dir(),
        reason="needs the photos: apt-get install dataset-fashion-mnist",
    ),
]


def sketched(deliver: Deliver, keys: tuple[str, ...]) -> dict[str, Sketched]:
    tables: dict[str, dict[str, pl.DataFrame]] = {key: {} for key in keys}
    sketches: dict[str, dict[str, SourceSketch]] = {key: {} for key in keys}
    for source in SPEC.sources:
        schema = source.columns()
        raws = {
            key: landed.rows(
                deliver(source.name, key) or b"",
                columns=[*schema.columns],
                arrived_at_utc=ARRIVED,
                read=source.read,
            )
            for key in keys
        }
        for key, split in validation.split_keys(raws, schema, schema_version=1, unique=source.unique).items():
            tables[key][source.name] = split.good
            sketches[key][source.name] = sketch.of_source(
                split.good,
                unique=source.unique,
                quarantined=split.quarantined.height,
                repeated=split.repeated,
                content=source.content,
                statistics=None if source.statistics is None else source.statistics(split.good),
            )
    return {key: (sketches[key], sketch.of_rules(SPEC.monitors.rules, tables[key])) for key in keys}


@pytest.fixture(scope="module")
def sound() -> dict[str, Sketched]:
    assert SPEC.history is not None
    result = {}
    for start in range(0, len(KEYS), 20):  # a few at a time: 140 batches of pixels would be held at once
        result |= sketched(SPEC.history.deliver, KEYS[start : start + 20])
    return result


def checks_of(sound: dict[str, Sketched], index: int, delivered: Sketched) -> tuple[faults.Check, ...]:
    monitors = SPEC.monitors
    record = [
        faults.Past(phase=earlier % monitors.season, sources=sound[KEYS[earlier]][0])
        for earlier in range(max(0, index - monitors.record_keys), index)
    ]
    before = [past.sources for past in record]
    return faults.check(*delivered, phase=index % monitors.season, record=record, before=before, monitors=monitors)


def shift(checks: tuple[faults.Check, ...]) -> float:
    (check,) = [item for item in checks if item.check == "shifted_statistics"]
    return float(check.came.partition(" is ")[2].partition(", ")[2].partition(" standard")[0])


@pytest.mark.thorough
def test_no_unmodified_batch_is_faulty_or_has_a_refused_photo(sound: dict[str, Sketched]) -> None:
    result = {key: faults.failing(checks_of(sound, index, sound[key])) for index, key in enumerate(KEYS)}
    assert {key: checks for key, checks in result.items() if checks} == {}
    assert {source.good for sources, _ in sound.values() for source in sources.values()} == {500}
    assert all(sources["photos"].statistics.keys() == images.STATISTICS.keys() for sources, _ in sound.values())


@pytest.mark.costly
def test_unmodified_batches_are_far_below_the_limit(sound: dict[str, Sketched]) -> None:
    judges = range(SPEC.monitors.min_record_keys, len(KEYS))
    assert (
        max(shift(checks_of(sound, index, sound[KEYS[index]])) for index in judges)
        < SPEC.monitors.max_statistic_shift / 2
    )


@pytest.mark.costly
@pytest.mark.parametrize("kind", SPEC.history.faults if SPEC.history else (), ids=lambda kind: kind.name)
def test_a_broken_delivery_is_named_in_its_first_batch(kind: FaultKind, sound: dict[str, Sketched]) -> None:
    assert SPEC.history is not None
    deliver = SPEC.history.deliver
    first = SPEC.monitors.min_record_keys
    indexes = sorted(random.Random(kind.name).sample(range(first, len(KEYS)), BATCHES))
    broken = sketched(lambda source, key: kind.deliver(deliver, source, key), tuple(KEYS[index] for index in indexes))
    for index in indexes:
        checks = checks_of(sound, index, broken[KEYS[index]])
        failing = faults.failing(checks)
        assert (failing[0].source, failing[0].check) == (kind.source, kind.check), failing[0]
        assert {item.source for item in failing} == {"photos"}
        if kind.check == "shifted_statistics":
            assert shift(checks) > 2 * SPEC.monitors.max_statistic_shift


def test_a_batch_delivered_again_is_an_overlap(sound: dict[str, Sketched]) -> None:
    assert SPEC.history is not None
    deliver = SPEC.history.deliver
    stale = sketched(lambda source, key: deliver(source, SPEC.grain.shift(key, -1)), (KEYS[-1],))
    failing = faults.failing(checks_of(sound, len(KEYS) - 1, stale[KEYS[-1]]))
    assert [(item.source, item.check) for item in failing] == [("photos", "overlap")]


@pytest.mark.costly
def test_labels_pass_through_a_broken_delivery_and_the_same_fault_gives_the_same_bytes() -> None:
    assert SPEC.history is not None
    deliver = SPEC.history.deliver
    for kind in SPEC.history.faults:
        assert kind.deliver(deliver, "labels", "0060") == deliver("labels", "0060")
        broken = kind.deliver(deliver, "photos", "0060")
        assert broken == kind.deliver(deliver, "photos", "0060") != deliver("photos", "0060")
        assert kind.deliver(deliver, "photos", "0141") is None
