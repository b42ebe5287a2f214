"""Answers are joined with outcomes, on time or late; windows and skew follow from the rows, and nothing is invented."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import rows as compute_rows
from platform_assets.data import stage_inputs
from platform_assets.engine.metadata import rounded
from platform_assets.engine.outputs import StageOutput
from platform_assets.evaluation import metrics
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import answers, performance
from platform_assets.monitoring.performance_inputs import KeyRecords
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.product.tasks.probabilities import log_losses
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import documents
from tests.doubles.advancing import Advance, advancing, metadata_of
from tests.doubles.answered import KEYS, NEW, OLD, ROWS, SPEC, answer, build, label, notes, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def advance(settings: Settings, instance: dg.DagsterInstance) -> Advance:
    return advancing(settings, instance, SPEC, "predictions", "performance")


def check(result: dg.ExecuteInProcessResult, key: str = KEYS[0]) -> Any:
    return next(
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if (evaluation.check_name, evaluation.partition) == (performance.CHECK, key)
    )


@pytest.mark.costly
def test_answers_wait_for_their_labels_and_are_measured_when_they_arrive(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    key = KEYS[0]
    build(tables, key)
    answer(settings, key)
    advance(key)
    waiting = notes(tables, key)
    assert (waiting["rows"], waiting["labelled"], waiting["quality"], waiting["window"]) == (ROWS, 0, None, None)
    assert waiting["expected_log_loss"] is None
    label(tables, key)
    result = advance(key)
    rows, numbers = rows_of(key), notes(tables, key)
    truth, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
    assert numbers["quality"] == pytest.approx(measures_of(SPEC.task).quality(truth, probabilities))
    assert numbers["decided"] == measures_of(SPEC.task).decided(truth, probabilities)
    entropy = float(np.mean(-probabilities * np.log(probabilities) - (1 - probabilities) * np.log(1 - probabilities)))
    assert numbers["expected_log_loss"] == pytest.approx(entropy)
    assert numbers["excess_log_loss"] == pytest.approx(log_losses(truth, probabilities).mean() - entropy)
    joined = tables.read("performance", [key])
    assert joined.columns == ["key", *answers.columns(SPEC.task), "site"]
    assert joined["label"].to_list() == truth.tolist()
    metadata = metadata_of(result, "performance", key)
    assert next(iter(metadata)) == "result"
    assert metadata["result"].startswith(f"AUC {numbers['quality']['auc']:.3f} over 1 key, {ROWS} answers; log loss ")
    assert metadata["auc"] == rounded(numbers["quality"]["auc"])
    assert {"log_loss", "accuracy", "precision", "recall", "ece", "brier", "excess_log_loss"} <= set(metadata)
    numeric = [
        name for name, value in metadata.items() if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert len(numeric) <= 20, numeric
    for picture in ("quality_by_key", "calibration"):
        assert "data:image/svg+xml;base64," in metadata[picture]


@pytest.mark.costly
def test_a_key_too_large_to_hold_is_measured_as_any_other(
    settings: Settings, tables: TableStore, advance: Advance, monkeypatch: pytest.MonkeyPatch
) -> None:
    equal, skewed, blind = keys = KEYS[:3]
    build(tables, *keys)
    label(tables, *keys)
    answer(settings, equal, digest=lambda row: OLD if row % 3 else NEW)
    answer(settings, equal, digest=lambda row: "c" * 64, change=lambda features: {**features, "value": 77})
    answer(settings, skewed, change=lambda features: {**features, "size": features["size"] + 1, "site": "east"})
    answer(settings, blind, change=lambda features: None)
    advance(equal, blind)
    maker, product = Measuring.for_product(SPEC, measures_of(SPEC.task)), ProductStore(SPEC, settings)

    def make() -> StageOutput:
        records = KeyRecords.read(maker, tables, product.history, keys, keys)
        return maker.make(tables, records, keys, maker.own_answers(product.artifacts))[0]

    in_memory = make()
    monkeypatch.setattr(stage_inputs, "MOST_CELLS", 0)
    monkeypatch.setattr(compute_rows, "CELLS_AT_ONCE", ROWS)
    read = make()
    assert read.notes == in_memory.notes
    assert [in_memory.notes[key]["skew"]["is_skewed"] for key in keys] == [True, True, False]
    for key in keys:
        assert read.frames[key].equals(in_memory.frames[key])


@pytest.mark.costly
def test_late_labels_rewrite_their_key_and_the_windows_that_include_it(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, *KEYS)
    answer(settings, *KEYS)
    label(tables, *KEYS[:6])
    label(tables, KEYS[3], first=10)
    advance(KEYS[0], KEYS[-1])
    before = tables.records("performance")
    assert before[KEYS[3]].notes["labelled"] == 10
    again = advance(KEYS[0], KEYS[-1])
    assert all(metadata_of(again, "performance", key)["is_memoised"] for key in KEYS)
    assert tables.records("performance") == before
    label(tables, KEYS[3])
    advance(KEYS[0], KEYS[-1])
    after = tables.records("performance")
    assert {key for key in KEYS if after[key].sequence != before[key].sequence} == set(KEYS[3:])
    assert after[KEYS[3]].notes["labelled"] == ROWS
    assert {key for key in KEYS if after[key].content_digest != before[key].content_digest} == {KEYS[3]}


@pytest.mark.costly
def test_the_window_is_the_last_labelled_keys_for_one_key_and_for_a_range(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, *KEYS)
    answer(settings, *KEYS)
    label(tables, *(KEYS[index] for index in (0, 1, 2, 4, 5)))
    advance(KEYS[0], KEYS[-1])
    for key, expected in ((KEYS[0], [0]), (KEYS[2], [0, 1, 2]), (KEYS[4], [1, 2, 4]), (KEYS[7], [2, 4, 5])):
        window = notes(tables, key)["window"]
        assert window["key_names"] == [KEYS[index] for index in expected]
        assert window["keys"] == len(expected)
        rows = pl.concat(rows_of(KEYS[index]) for index in expected)
        truth, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
        assert window["quality"]["auc"]["value"] == pytest.approx(metrics.auc(truth, probabilities))
        assert window["model"]["log_loss"] == pytest.approx(log_losses(truth, probabilities).mean())
        assert (window["quality"]["auc"]["low"] is None) is (len(expected) == 1)
    assert 0 < notes(tables, KEYS[4])["window"]["model"]["p_value"] < 1
    in_range = {key: record.notes["window"] for key, record in tables.records("performance").items()}
    advance(KEYS[4])
    label(tables, *(KEYS[index] for index in (0, 1, 2, 4, 5)))
    for key in KEYS:
        advance(key)
    assert {key: record.notes["window"] for key, record in tables.records("performance").items()} == in_range
    assert (
        Measuring.for_product(SPEC, measures_of(SPEC.task)).of_model(tables, KEYS[7], OLD).document()
        == in_range[KEYS[7]]["model"]
    )
    assert Measuring.for_product(SPEC, measures_of(SPEC.task)).of_model(tables, KEYS[7], NEW) is None
    window = tables.records("performance", [KEYS[7]])[KEYS[7]].notes["window"]
    assert window["key_names"] == [KEYS[2], KEYS[4], KEYS[5]]


@pytest.mark.costly
def test_a_key_computed_too_early_is_recomputed_with_its_window(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, *KEYS[:2])
    answer(settings, *KEYS[:2])
    advance(KEYS[0], KEYS[1])
    label(tables, *KEYS[:2])
    advance(KEYS[1])
    assert notes(tables, KEYS[1])["window"]["key_names"] == [KEYS[1]], "the earlier key was not measured yet"
    advance(KEYS[0], KEYS[1])
    assert notes(tables, KEYS[1])["window"]["key_names"] == list(KEYS[:2])


def test_a_key_without_answers_has_no_number(settings: Settings, tables: TableStore, advance: Advance) -> None:
    build(tables, KEYS[0])
    label(tables, KEYS[0])
    result = advance(KEYS[0])
    numbers = notes(tables, KEYS[0])
    assert (numbers["rows"], numbers["digest"], numbers["quality"], numbers["decided"]) == (
        0,
        None,
        None,
        None,
    )
    assert numbers["skew"]["share"] is None
    assert "auc" not in metadata_of(result, "performance", KEYS[0])
    assert check(result).passed
    assert "nothing was judged" in check(result).description


@pytest.mark.costly
def test_a_held_key_counts_in_no_window_until_it_is_accepted(settings: Settings, tables: TableStore, advance: Advance):
    build(tables, *KEYS[:3])
    answer(settings, *KEYS[:3])
    label(tables, *KEYS[:3])
    fault(settings, tables, KEYS[1], "fault")
    advance(KEYS[0], KEYS[2])
    assert notes(tables, KEYS[2])["window"]["key_names"] == [KEYS[0], KEYS[2]]
    fault(settings, tables, KEYS[1], "accept")
    advance(KEYS[0], KEYS[2])
    assert notes(tables, KEYS[2])["window"]["key_names"] == list(KEYS[:3])


@pytest.mark.costly
@pytest.mark.parametrize(("source", "is_in"), [("readings", False), ("results", True)])
def test_a_repaired_key_counts_only_when_its_answers_were_sound(
    settings: Settings, tables: TableStore, advance: Advance, source: str, is_in: bool
) -> None:
    build(tables, *KEYS[:2])
    answer(settings, *KEYS[:2])
    label(tables, *KEYS[:2])
    fault(settings, tables, KEYS[0], "fault", source)
    fault(settings, tables, KEYS[0], "repaired", source)
    advance(KEYS[0], KEYS[1])
    assert notes(tables, KEYS[1])["window"]["key_names"] == list(KEYS[0 if is_in else 1 : 2])
    assert notes(tables, KEYS[0])["skew"]["share"] == (1.0 if is_in else None)


@pytest.mark.costly
def test_differing_features_fail_the_check_and_a_few_of_them_warn(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    """tests/monitoring/test_skew.py has the other mistakes of callers."""
    equal, few, upper = KEYS[:3]
    build(tables, equal, few, upper)
    answer(settings, equal)
    answer(settings, few, change=lambda features: {**features, "size": 4} if features["value"] == 1 else features)
    answer(settings, upper, change=lambda features: {**features, "site": features["site"].upper()})
    result = advance(equal, upper)
    checks = [check(result, key) for key in (equal, few, upper)]
    shares = [item.metadata["share"].value for item in checks]
    assert shares[:2] == pytest.approx([1.0, 1 - 1 / ROWS], abs=1e-6)
    assert shares[2] < performance.LEAST_EQUAL
    assert [(item.passed, item.severity) for item in checks[1:]] == [
        (False, dg.AssetCheckSeverity.WARN),
        (False, dg.AssetCheckSeverity.ERROR),
    ]
    assert (checks[0].passed, notes(tables, equal)["skew"]["rows_equal"]) == (True, ROWS)
    assert [entry["field"] for entry in notes(tables, upper)["skew"]["fields"]] == ["site"]
    assert result.success, "it blocks nothing"


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["null", "repaired"])
def test_a_key_whose_sources_changed_after_serving_is_not_compared_with_a_reason(
    settings: Settings, tables: TableStore, advance: Advance, kind: str
) -> None:
    build(tables, *KEYS[:3])
    answer(settings, *KEYS[:3], change=lambda features: {**features, "size": 9})
    fault(settings, tables, KEYS[0], "fault")
    fault(settings, tables, KEYS[0], kind)
    result = advance(KEYS[0], KEYS[2])
    assert check(result, KEYS[2]).metadata["rows"].value == ROWS, "the lookback is one key"
    for key in KEYS[:2]:
        assert check(result, key).passed
        assert check(result, key).metadata["not_compared"].value
    assert "since a fault" in str(notes(tables, KEYS[0])["skew"]["not_compared"]) or kind == "repaired"


def fault(settings: Settings, tables: TableStore, key: str, kind: str, source: str = "readings") -> None:
    """Record the outcome of a key's fault, as the drift stage would."""
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{key}", documents.fault(kind, key, source))
    tables.record("drift", key, content_digest="0", inputs={}, code="0", notes={"was_faulty": True})


def test_nothing_is_charted_or_written_without_answers(settings: Settings, tables: TableStore, advance: Advance):
    build(tables, KEYS[0])
    advance(KEYS[0])
    before = {path for path in Path(settings.root).rglob("*") if path.is_file()}
    advance(KEYS[0])
    assert {path for path in Path(settings.root).rglob("*") if path.is_file()} == before
