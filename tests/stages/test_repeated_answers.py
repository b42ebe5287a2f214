"""Repeated, late or altered requests of callers change no measured quality and no decision."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.evaluation.releases import next_release
from platform_assets.monitoring import performance, policy
from platform_assets.product.contract import contract_of
from platform_assets.product.tasks.probabilities import log_losses
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Skew
from platform_assets.store.tables import TableStore
from tests.doubles import answered, deciding, documents, models
from tests.doubles.advancing import Advance, advancing
from tests.doubles.answered import FIELDS, KEYS, ROWS, SPEC, answer, build, label, notes, rows_of

pytestmark = pytest.mark.slow

CLOSED_AT = datetime(2020, 1, 20, tzinfo=UTC)
FEW = KEYS[:4]


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def advance(settings: Settings, instance: dg.DagsterInstance) -> Advance:
    return advancing(settings, instance, SPEC, "predictions", "performance")


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


@pytest.mark.costly
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


@pytest.mark.costly
def test_for_a_live_product_the_time_of_the_answer_decides(settings: Settings, instance: dg.DagsterInstance) -> None:
    live = replace(SPEC, is_live=True)
    tables, advance = (
        TableStore(settings.root, live.name),
        advancing(settings, instance, live, "predictions", "performance"),
    )
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


@pytest.mark.costly
def test_below_the_limit_answers_to_our_own_features_decide(settings: Settings, tables: TableStore, advance: Advance):
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
    assert performance_facts.log_loss == pytest.approx(log_losses(truth, probabilities).mean(), abs=1e-6)
    entropy = float(np.mean(-probabilities * np.log(probabilities) - (1 - probabilities) * np.log(1 - probabilities)))
    assert performance_facts.excess == pytest.approx(log_losses(truth, probabilities).mean() - entropy, abs=1e-6)
    rows = tables.read("performance", [FEW[0]])
    assert rows["entity"].to_list() == rows_of(FEW[0])["entity"].to_list()
    assert rows["prediction_id"].null_count() == ROWS, "no caller received these answers"
    assert notes(tables, FEW[0])["skew"]["own_answers"] == [digest]


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
