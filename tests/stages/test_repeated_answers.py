"""Repeated, late or altered requests of callers change no measured quality and no decision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation.releases import next_release
from platform_assets.monitoring import performance, policy
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Product
from platform_assets.product.tasks.probabilities import log_losses
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Skew
from platform_assets.store.tables import TableStore
from tests.doubles import answered, deciding, documents, models
from tests.doubles.answered import FIELDS, KEYS, ROWS, SPEC, answer, build, label, notes, rows_of

Advance = Callable[..., dg.ExecuteInProcessResult]
CLOSED_AT = datetime(2020, 1, 20, tzinfo=UTC)
FEW = KEYS[:4]


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def advance(settings: Settings, instance: dg.DagsterInstance) -> Advance:
    return advancing(settings, instance)


def advancing(settings: Settings, instance: dg.DagsterInstance, spec: Product = SPEC) -> Advance:
    """Return a function that materialises `predictions` and `performance` for a range of keys."""
    defs = build_defs(specs=[spec], resources={"store": StoreResource(variables=settings.to_environment())})
    job = defs.resolve_job_def(naming.job("advance", spec.name))

    def run(first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([spec.name, stage]) for stage in ("predictions", "performance")],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        )

    return run


def close(settings: Settings, *keys: str) -> None:
    """Record decisions, which closes the keys."""
    for key in keys:
        Ledgers(settings.root, SPEC.name).create(
            naming.DECISIONS, key, documents.decision(key, at_utc=CLOSED_AT.isoformat())
        )


def flood(
    key: str, times: int = 1_000, *, entities: int = 3, features: Callable[[dict[str, Any]], Any] = lambda ours: ours
) -> Iterator[dict[str, Any]]:
    """Yield answers to the same few questions again and again, with probabilities that are always right."""
    rows = rows_of(key).head(entities).to_dicts()
    for number, row in zip(range(times), itertools.cycle(rows), strict=False):
        ours = {name: row[name] for name in FIELDS}
        later = row["asked_at"] + timedelta(minutes=1 + number)
        yield answered.record(
            row,
            features(ours),
            prediction_id=f"flood-{key}-{number:05d}",
            probability=0.999 if row["label"] else 0.001,
            answered_at_utc=later.isoformat(),
        )


def measured(tables: TableStore) -> dict[str, Any]:
    """Return the measurements of each key: the digest of its rows and its numbers, without CPU time."""
    return {
        key: (record.content_digest, {name: value for name, value in record.notes.items() if name != "cpu_s"})
        for key, record in tables.records("performance").items()
    }


def quality(tables: TableStore) -> dict[str, Any]:
    """Return the same without the comparison of features."""
    return {
        key: (digest, {name: value for name, value in numbers.items() if name != "skew"})
        for key, (digest, numbers) in measured(tables).items()
    }


# Late answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_labelled_first", [True, False], ids=["labels before the flood", "labels after it"])
def test_a_thousand_requests_about_last_week_change_no_record(
    settings: Settings, tables: TableStore, advance: Advance, is_labelled_first: bool
) -> None:
    build(tables, *FEW)
    answer(settings, *FEW)
    advance(FEW[0], FEW[-1])
    close(settings, *FEW)
    label(tables, *FEW)
    if is_labelled_first:
        advance(FEW[0], FEW[-1])
        expected = measured(tables)
    answered.log(settings, [line for key in FEW[:2] for line in flood(key)])
    advance(FEW[0], FEW[-1])
    assert tables.records("predictions")[FEW[0]].rows == ROWS + 1_000, "late answers are stored"
    assert tables.records("predictions")[FEW[0]].notes["late"] == 1_000
    truth, probabilities = rows_of(FEW[0])["label"], rows_of(FEW[0])["probability"]
    assert notes(tables, FEW[0])["quality"]["log_loss"] == pytest.approx(log_losses(truth, probabilities).mean())
    assert {key: record.rows for key, record in tables.records("performance").items()} == dict.fromkeys(FEW, ROWS)
    if is_labelled_first:
        assert measured(tables) == expected


def test_a_line_that_is_read_again_after_its_key_was_closed_stays_in_time(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    """A run dies after it wrote the rows and before it recorded how far it had read."""
    build(tables, FEW[0])
    answer(settings, FEW[0])
    advance(FEW[0])
    close(settings, FEW[0])
    before = tables.records("predictions")[FEW[0]]
    answer(settings, FEW[0])
    advance(FEW[0])
    assert tables.records("predictions")[FEW[0]].content_digest == before.content_digest
    assert (before.rows, before.notes["late"]) == (ROWS, 0)


def test_for_a_live_product_the_time_of_the_answer_decides(settings: Settings, instance: dg.DagsterInstance) -> None:
    live = replace(SPEC, is_live=True)
    tables, advance = TableStore(settings.root, live.name), advancing(settings, instance, live)
    key = FEW[0]
    build(tables, key)
    label(tables, key)
    advance(key)
    close(settings, key)
    late = [
        answered.record(
            row,
            None,
            prediction_id=f"late-{row['entity']}",
            probability=0.5,
            answered_at_utc=(CLOSED_AT + timedelta(seconds=1)).isoformat(),
        )
        for row in rows_of(key).iter_rows(named=True)
    ]
    answered.log(settings, late)
    advance(key)
    assert (tables.records("predictions")[key].notes["late"], notes(tables, key)["rows"]) == (ROWS, 0)
    answer(settings, key)
    advance(key)
    assert (tables.records("predictions")[key].rows, notes(tables, key)["rows"]) == (2 * ROWS, ROWS)
    truth, probabilities = rows_of(key)["label"], rows_of(key)["probability"]
    assert notes(tables, key)["quality"]["log_loss"] == pytest.approx(log_losses(truth, probabilities).mean())


# Answers in time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [lambda ours: ours, lambda ours: {**ours, "size": 99}, lambda ours: None, lambda ours: dict.fromkeys(ours)],
    ids=["our features", "other features", "no features", "nulls"],
)
def test_repeating_requests_before_a_key_is_closed_changes_no_quality(
    settings: Settings, tables: TableStore, advance: Advance, features: Callable[[dict[str, Any]], Any]
) -> None:
    build(tables, *FEW)
    label(tables, *FEW)
    answer(settings, *FEW)
    advance(FEW[0], FEW[-1])
    expected = quality(tables)
    answered.log(settings, list(flood(FEW[1], entities=1, features=features)))
    advance(FEW[0], FEW[-1])
    skew = notes(tables, FEW[1])["skew"]
    assert skew["rows"] == ROWS, "one entity counts once"
    assert skew["rows_equal"] >= ROWS - 1
    assert quality(tables) == expected


def test_without_logged_inputs_the_first_answer_to_each_of_our_moments_counts(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, FEW[0])
    label(tables, FEW[0])
    answer(settings, FEW[0], change=lambda features: None)
    advance(FEW[0])
    expected = measured(tables)
    lines = list(flood(FEW[0], features=lambda ours: None))
    moved = [
        {**line, "prediction_id": f"moved-{number}", "asked_at": line["answered_at_utc"]}
        for number, line in enumerate(lines)
    ]
    answered.log(settings, [*lines, *moved])
    advance(FEW[0])
    assert measured(tables) == expected


def test_answers_in_tables_of_older_code_count_once_and_new_ones_join_them(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, FEW[0])
    label(tables, FEW[0])
    answer(settings, FEW[0])
    advance(FEW[0])
    expected = quality(tables)
    rows = tables.read("predictions", [FEW[0]]).drop("key", answer_rows.LATE)
    tables.replace("predictions", {FEW[0]: rows}, inputs={FEW[0]: {}}, code="older", notes={FEW[0]: {"models": {}}})
    advance(FEW[0])
    assert quality(tables) == expected
    close(settings, FEW[0])
    answered.log(settings, list(flood(FEW[0], 10)))
    advance(FEW[0])
    marks = tables.read("predictions", [FEW[0]])[answer_rows.LATE]
    assert (marks.null_count(), marks.sum()) == (ROWS, 10)
    assert quality(tables) == expected


def test_the_bundle_of_most_first_answers_stays_main_on_the_key_of_a_release(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, FEW[0])
    label(tables, FEW[0])
    answer(settings, FEW[0], digest=lambda row: answered.OLD if row < 30 else answered.NEW)
    advance(FEW[0])
    expected = measured(tables)
    answered.log(settings, [{**line, "digest": answered.NEW} for line in flood(FEW[0], entities=30)])
    advance(FEW[0])
    assert notes(tables, FEW[0])["digest"] == answered.OLD
    assert measured(tables) == expected


# Our own features ----------------------------------------------------------------------------------------------------


def bundle_of(settings: Settings, bias: float = 0.4) -> str:
    """Store a bundle of the product's contract, and release it."""
    digest = models.write_bundle(ArtifactStore(settings.root), document=contract_of(SPEC), bias=bias)
    release = {"product": SPEC.name, "contract_sha256": "c" * 64, "reason": "", "author": "a test", "previous": None}
    release = next_release(digest=digest, cutoff=KEYS[0], at=CLOSED_AT, **release)
    Ledgers(settings.root, SPEC.name).append(naming.RELEASES, release.document())
    return digest


def own_answers(key: str, bias: float = 0.4) -> np.ndarray:
    """Return the bundle's answers to our own features, in closed form."""
    rows = rows_of(key)
    mean = (rows["size"] + rows["value"].fill_null(0)).to_numpy() / 2
    return 1 / (1 + np.exp(-(bias + mean / 1_000 - 0.5)))


def facts_of(settings: Settings, key: str) -> policy.Facts:
    fine = {"verdict": "fine", "is_faulty": False}
    judged = PartitionRecord(
        stage="drift", key=key, sequence=1, rows=0, content_digest="", inputs={}, code_digest="", notes=fine
    )
    return deciding.facts(ProductStore(SPEC, settings), key).at(key, judged, now=CLOSED_AT)


def in_other_units(features: dict[str, Any]) -> dict[str, Any]:
    return {**features, "size": features["size"] * 1_000}


def test_below_the_limit_answers_to_our_own_features_decide(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    digest = bundle_of(settings)
    build(tables, *FEW)
    label(tables, *FEW)
    answer(settings, *FEW, digest=lambda row: digest, change=in_other_units)
    result = advance(FEW[0], FEW[-1])
    checks = [
        evaluation for evaluation in result.get_asset_check_evaluations() if evaluation.check_name == performance.CHECK
    ]
    assert {(check.passed, check.severity) for check in checks} == {(False, dg.AssetCheckSeverity.ERROR)}
    facts = facts_of(settings, FEW[-1])
    assert facts.skew == Skew(rows=ROWS, share=0.0, limit=SPEC.monitors.min_equal_share, is_skewed=True)
    assert policy.decide(facts, SPEC.retraining, CLOSED_AT).numbers.skew == facts.skew
    performance_facts = facts.performance
    assert performance_facts is not None
    window = FEW[-SPEC.retraining.performance_window :]
    truth = np.concatenate([rows_of(key)["label"].to_numpy() for key in window])
    probabilities = np.concatenate([own_answers(key) for key in window])
    loss = log_losses(truth, probabilities).mean()
    assert performance_facts.log_loss == pytest.approx(loss, abs=1e-6)
    entropy = float(np.mean(-probabilities * np.log(probabilities) - (1 - probabilities) * np.log(1 - probabilities)))
    assert performance_facts.excess == pytest.approx(log_losses(truth, probabilities).mean() - entropy, abs=1e-6)
    rows = tables.read("performance", [FEW[0]])
    assert rows["entity"].to_list() == rows_of(FEW[0])["entity"].to_list()
    assert rows["prediction_id"].null_count() == ROWS, "no caller received these answers"
    assert notes(tables, FEW[0])["skew"]["own_answers"] == [digest]


def test_no_caller_can_skew_the_answers_to_our_own_features(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    digest = bundle_of(settings)
    build(tables, *FEW)
    label(tables, *FEW)
    answer(settings, *FEW, digest=lambda row: digest, change=in_other_units)
    advance(FEW[0], FEW[-1])
    before = quality(tables)
    lines = [{**line, "digest": digest} for key in FEW for line in flood(key, features=in_other_units)]
    answered.log(settings, lines)
    advance(FEW[0], FEW[-1])
    assert quality(tables) == before


def test_a_bundle_that_cannot_answer_our_features_is_named_and_stops_nothing(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    build(tables, FEW[0])
    label(tables, FEW[0])
    answer(settings, FEW[0], change=in_other_units)
    advance(FEW[0])
    skew = notes(tables, FEW[0])["skew"]
    assert (skew["is_skewed"], skew["own_answers"]) == (True, [])
    assert answered.OLD in skew["not_scored"][0]
    assert notes(tables, FEW[0])["quality"] is None, "answers to other features are not measured"


def test_invented_entities_and_moments_count_once_in_the_share_and_never_in_quality(
    settings: Settings, tables: TableStore, advance: Advance
) -> None:
    digest = bundle_of(settings)
    build(tables, *FEW)
    label(tables, *FEW)
    honest_rows = {key: own_answers(key) for key in FEW}
    for key in FEW:
        rows = rows_of(key).with_columns(pl.Series("probability", honest_rows[key]))
        answered.log(
            settings,
            [
                answered.record(row, {name: row[name] for name in FIELDS}, digest=digest)
                for row in rows.iter_rows(named=True)
            ],
        )
    advance(FEW[0], FEW[-1])
    expected = {key: notes(tables, key)["quality"] for key in FEW}
    invented = [{**line, "entity": f"invented-{number % 7}"} for number, line in enumerate(flood(FEW[2]))]
    answered.log(settings, invented)
    advance(FEW[0], FEW[-1])
    skew = notes(tables, FEW[2])["skew"]
    assert (skew["rows"], skew["rows_equal"], skew["rows_unknown"], skew["is_skewed"]) == (ROWS + 7, ROWS, 7, True)
    for key in FEW:
        assert notes(tables, key)["quality"] == pytest.approx(expected[key], abs=1e-6)
