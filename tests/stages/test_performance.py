"""Answers are joined with outcomes, on time or late; windows and skew follow from the rows, and nothing is invented."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import rows as compute_rows
from platform_assets.data import stage_inputs
from platform_assets.engine.metadata import rounded
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.store_resource import StoreResource
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
from tests.doubles.answered import KEYS, NEW, OLD, ROWS, SPEC, answer, build, label, notes, rows_of, store

Advance = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def advance(settings: Settings, instance: dg.DagsterInstance) -> Advance:
    """Materialise `predictions` and `performance` for a range of keys."""
    defs = build_defs(specs=[SPEC], resources={"store": StoreResource(variables=settings.to_environment())})
    job = defs.resolve_job_def(naming.job("advance", SPEC.name))

    def run(first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([SPEC.name, stage]) for stage in ("predictions", "performance")],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        )

    return run


def metadata_of(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        if materialization.asset_key.path[-1] == "performance" and materialization.partition == key:
            return {name: entry.value for name, entry in materialization.metadata.items()}
    raise AssertionError(f"performance of {key} was not materialised")


def check(result: dg.ExecuteInProcessResult, key: str = KEYS[0]) -> Any:
    return next(
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if (evaluation.check_name, evaluation.partition) == (performance.CHECK, key)
    )


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
    metadata = metadata_of(result, key)
    assert next(iter(metadata)) == "result"
    assert metadata["result"].startswith(f"AUC {numbers['quality']['auc']:.3f} over 1 key, {ROWS} answers; log loss ")
    assert metadata["auc"] == rounded(numbers["quality"]["auc"])
    assert {"log_loss", "accuracy", "precision", "recall", "ece", "brier", "excess_log_loss"} <= set(metadata)
    numeric = [
        name for name, value in metadata.items() if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert len(numeric) <= 20, numeric
    for picture in ("quality_by_key", "calibration", "slice_chart"):
        assert "data:image/svg+xml;base64," in metadata[picture]


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
    assert all(metadata_of(again, key)["is_memoised"] for key in KEYS)
    assert tables.records("performance") == before
    label(tables, KEYS[3])
    advance(KEYS[0], KEYS[-1])
    after = tables.records("performance")
    assert {key for key in KEYS if after[key].sequence != before[key].sequence} == set(KEYS[3:])
    assert after[KEYS[3]].notes["labelled"] == ROWS
    assert {key for key in KEYS if after[key].content_digest != before[key].content_digest} == {KEYS[3]}


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
    assert "auc" not in metadata_of(result, KEYS[0])
    assert check(result).passed
    assert "nothing was judged" in check(result).description


def test_one_class_has_a_loss_and_no_auc(settings: Settings, tables: TableStore, advance: Advance) -> None:
    build(tables, KEYS[0])
    answer(settings, KEYS[0])
    label(tables, KEYS[0])
    ones = tables.read("outcomes", [KEYS[0]]).with_columns(pl.lit(1, dtype=pl.Int8).alias("label"))
    store(tables, "outcomes", KEYS[0], ones)
    advance(KEYS[0])
    numbers = notes(tables, KEYS[0])
    assert numbers["quality"]["auc"] is None
    assert numbers["quality"]["log_loss"] > 0
    assert numbers["window"]["quality"]["auc"] is None


def test_only_the_bundle_with_most_answers_counts_and_the_others_are_listed(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    key = KEYS[0]
    build(tables, key)
    answer(settings, key, digest=lambda row: OLD if row < 10 else NEW)
    label(tables, key)
    result = advance(key)
    numbers, rows = notes(tables, key), rows_of(key)[10:]
    assert (numbers["digest"], numbers["labelled"]) == (NEW, ROWS)
    assert numbers["quality"]["auc"] == pytest.approx(metrics.auc(rows["label"], rows["probability"]))
    assert [(model["digest"], model["rows"]) for model in numbers["models"]] == [(OLD, 10), (NEW, 30)]
    assert "models" in metadata_of(result, key)
    old = rows_of(key)[:10]
    tested = Measuring.for_product(SPEC, measures_of(SPEC.task)).of_model(tables, key, OLD)
    assert tested.log_loss == pytest.approx(log_losses(old["label"], old["probability"]).mean())
    assert (tested.keys, tested.p_value) == (1, None)


def test_rows_logged_without_inputs_get_their_slices_from_our_features(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, KEYS[0])
    answer(settings, KEYS[0], change=lambda features: None)
    advance(KEYS[0])
    assert tables.read("performance", [KEYS[0]])["site"].to_list() == ["north", "south"] * (ROWS // 2)
    assert notes(tables, KEYS[0])["skew"]["rows"] == 0


def test_a_held_key_counts_in_no_window_until_it_is_accepted(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, *KEYS[:3])
    answer(settings, *KEYS[:3])
    label(tables, *KEYS[:3])
    fault(settings, tables, KEYS[1], "fault")
    advance(KEYS[0], KEYS[2])
    assert notes(tables, KEYS[2])["window"]["key_names"] == [KEYS[0], KEYS[2]]
    fault(settings, tables, KEYS[1], "accept")
    advance(KEYS[0], KEYS[2])
    assert notes(tables, KEYS[2])["window"]["key_names"] == list(KEYS[:3])


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


# Served features next to our own -------------------------------------------------------------------------------------


def test_equal_features_pass(settings: Settings, tables: TableStore, advance: Advance) -> None:
    build(tables, *KEYS[:2])
    answer(settings, *KEYS[:2])
    evaluation = check(advance(KEYS[0], KEYS[1]))
    assert evaluation.passed
    assert evaluation.metadata["share"].value == 1.0
    assert evaluation.metadata["rows"].value == ROWS
    assert notes(tables, KEYS[0])["skew"]["rows_equal"] == ROWS


@pytest.mark.parametrize(
    ("change", "shift", "field"),
    [
        (lambda features: {**features, "value": features["value"] and features["value"] * 60}, timedelta(0), "value"),
        (lambda features: {**features, "site": features["site"].upper()}, timedelta(0), "site"),
        (lambda features: {**features, "value": features["value"] or 0}, timedelta(0), "value"),
        (lambda features: features, timedelta(hours=5), None),
    ],
    ids=["a unit", "a spelling", "zero for null", "asked in local time"],
)
def test_differing_features_fail_the_check(
    settings: Settings,
    tables: TableStore,
    advance: Advance,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    shift: timedelta,
    field: str | None,
) -> None:
    build(tables, KEYS[0])
    answer(settings, KEYS[0], change=change, shift=shift)
    result = advance(KEYS[0])
    evaluation = check(result)
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert evaluation.metadata["share"].value < performance.LEAST_EQUAL
    skew = notes(tables, KEYS[0])["skew"]
    assert [entry["field"] for entry in skew["fields"]] == ([field] if field else [])
    assert skew["rows_unknown"] == (ROWS if shift else 0)
    assert result.success, "it blocks nothing"


def test_a_few_differing_rows_warn(settings: Settings, tables: TableStore, advance: Advance) -> None:
    build(tables, *KEYS[:8])
    answer(settings, *KEYS[:7])
    answer(settings, KEYS[7], change=lambda features: {**features, "size": 4} if features["value"] == 1 else features)
    result = advance(KEYS[0], KEYS[7])
    evaluation = check(result, KEYS[7])
    assert check(result, KEYS[6]).passed
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["share"].value == pytest.approx(1 - 1 / ROWS, abs=1e-6)


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


def test_nothing_is_charted_or_written_without_answers(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, KEYS[0])
    advance(KEYS[0])
    before = {path for path in Path(settings.root).rglob("*") if path.is_file()}
    advance(KEYS[0])
    assert {path for path in Path(settings.root).rglob("*") if path.is_file()} == before
