"""From an answer back to the files that landed."""

import hashlib
import json
from datetime import UTC, datetime

import polars as pl
import pytest
from msgspec import to_builtins

from platform_assets.base import naming
from platform_assets.base.keys import KeyProblem
from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows, unlabelled
from platform_assets.operations import trace
from platform_assets.operations.trace import lineage
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import documents, recorded, watched

pytestmark = pytest.mark.slow

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")
ID = watched.prediction_id(KEYS[1], 3)
NOON = datetime(2020, 1, 14, 12, tzinfo=UTC)
TYPES = {item.name: answer_rows.FIELD_TYPES[item.dtype] for item in SPEC.fields}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A store that no test here writes to."""
    folder = tmp_path_factory.mktemp("kept")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    watched.write(settings, SPEC, KEYS)
    return settings


@pytest.fixture
def digest(settings: Settings) -> str:
    return watched.write(settings, SPEC, KEYS)


def test_an_answer_is_traced_to_model_release_and_verdict(stored: Settings):
    result = trace.of_prediction(ProductStore(SPEC, stored), ID)
    assert (result.answer["key"], result.answer["entity"]) == (KEYS[1], f"{KEYS[1]} thing 3")
    assert (result.model.digest, result.model.cutoff) == (result.answer["digest"], KEYS[0])
    assert (result.release.number, result.release.outcome) == (1, "released")
    assert (result.verdict.passed, result.verdict.challenger) == (True, watched.QUALITY)
    json.dumps(to_builtins(result))


def test_each_attempt_is_listed_once_with_its_cost_including_the_bundles_export(settings: Settings, digest: str):
    ledgers = Ledgers(settings.root, SPEC.name)
    export = {
        "id": "e",
        "step": "export",
        "fingerprint": "other",
        "cutoff": KEYS[0],
        "digest": digest,
        "cpu_s": None,
        "usd_per_hour": 0.5,
        "wall_s": 36.0,
        "profile": "cpu_small",
        "reason": "finished",
        "started_at_utc": "2026",
    }
    for origin in ("step", "launcher"):
        ledgers.append(naming.ATTEMPTS, {**export, "by": origin})
    result = trace.of_prediction(ProductStore(SPEC, settings), ID)
    tries = [(attempt.number, attempt.step, attempt.cost_usd) for attempt in result.training.attempts]
    assert tries == [(1, None, 0.002), (2, None, 0.002), (5, "export", 0.005)]
    assert result.training.is_exact
    assert "unknown CPU s on cpu_small, 0.0050 USD" in trace.as_text(result)


def test_a_launch_over_budget_is_shown_with_the_persons_reason(settings: Settings, digest: str):
    ledgers = Ledgers(settings.root, SPEC.name)
    for fingerprint in (watched.FINGERPRINT, "0" * 64):
        ledgers.append(naming.OVERSPENDINGS, documents.overspending(KEYS[0], fingerprint, why="the fair"))
    result = trace.of_prediction(ProductStore(SPEC, settings), ID)
    (overspending,) = result.training.over_budget
    assert (overspending.why, overspending.over_usd) == ("the fair", 1.5)
    assert "in 2020-01 it is too much. Allowed: the fair" in trace.as_text(result)


def test_a_retrained_model_shows_the_attempts_of_its_cutoff_and_says_so(settings: Settings, digest: str):
    TableStore(settings.root, SPEC.name).record("onnx", KEYS[0], content_digest="e" * 64, inputs={}, code="1")
    for step in ("backtest", "trial"):
        attempt = {"id": step, "step": step, "fingerprint": step, "cutoff": KEYS[0], "usd_per_hour": 0.5, "wall_s": 1.0}
        Ledgers(settings.root, SPEC.name).append(naming.ATTEMPTS, {**attempt, "by": "launcher", "reason": "finished"})
    result = trace.of_prediction(ProductStore(SPEC, settings), ID)
    assert not result.training.is_exact
    assert len(result.training.attempts) == 3, "no backtest, no trial of a search"
    assert "the training of this model itself is not on record" in trace.as_text(result)


def test_features_are_traced_to_table_versions_and_landed_files_with_their_sha256(stored: Settings):
    features = trace.of_prediction(ProductStore(SPEC, stored), ID).features
    assert (features.record.key, features.record.table_version) == (KEYS[1], 1)
    sources = {(source.source, source.key): source for source in features.sources}
    reach = SPEC.grain.with_lookback((KEYS[1],), SPEC.lookback)
    assert set(sources) == {(s, key) for s in ("plans", "readings") for key in reach} | {("sites", "all")}
    file = sources["plans", KEYS[0]].file
    assert file.sha256 == hashlib.sha256(f"plans {KEYS[0]}".encode()).hexdigest()
    assert file.sha256 in trace.as_text(trace.of_prediction(ProductStore(SPEC, stored), ID))


def test_training_rows_are_named_by_digest_and_version(stored: Settings):
    trained = trace.of_prediction(ProductStore(SPEC, stored), ID).trained_on
    assert (trained.training.keys, trained.holdout.keys) == (4, 2)
    first = trained.training.first
    record = TableStore(stored.root, SPEC.name).records("features", [first])[first]
    rows = trained.keys[first].features
    assert rows == lineage.Rows(content_digest=record.content_digest, table_version=record.sequence)
    assert trained.keys[first].files["results"].uri == f"landing/results/{first}.csv"


def test_rows_rewritten_since_have_no_table_version(settings: Settings, digest: str):
    first = trace.of_prediction(ProductStore(SPEC, settings), ID).trained_on.training.first
    tables = TableStore(settings.root, SPEC.name)
    rows = tables.read("features", [first]).drop("key").head(0)
    tables.replace("features", {first: rows}, inputs={first: {}}, code="1")
    trained_rows = trace.of_prediction(ProductStore(SPEC, settings), ID).trained_on.keys[first].features
    assert trained_rows.table_version is None


def test_keys_left_out_of_training_are_named(settings: Settings, digest: str):
    key, tables = SPEC.grain.shift(KEYS[0], -9), TableStore(settings.root, SPEC.name)
    reason, at = "its labels were due 7 keys ago or earlier.", datetime(2026, 1, 1, tzinfo=UTC)
    unlabelled.give_up(tables, [key], cutoff=SPEC.grain.shift(KEYS[0], -1), why=reason, at=at)
    unlabelled.give_up(tables, [SPEC.grain.shift(key, 1)], cutoff=KEYS[1], why="after this model", at=at)
    result = trace.of_prediction(ProductStore(SPEC, settings), ID)
    assert result.trained_on.unlabelled == {key: reason}
    assert f"without {key}: its labels were due 7 keys ago" in trace.as_text(result)


def test_answer_of_a_faulty_day_names_the_fault_its_settlement_and_the_outcome(settings: Settings, digest: str):
    tables, key = TableStore(settings.root, SPEC.name), KEYS[2]
    entity = f"{key} thing 3"
    outcomes = pl.DataFrame({"entity": [entity, "another"], "label": [1, 0], "known_at": [NOON, NOON]})
    tables.replace("outcomes", {key: outcomes}, inputs={key: {}}, code="1")
    result = trace.of_prediction(ProductStore(SPEC, settings), watched.prediction_id(key, 3))
    (fault,) = result.faults
    assert (fault.key, fault.kind, fault.is_held) == (key, "null", False)
    assert [item.kind for item in fault.records] == ["fault", "null"]
    assert fault.records[0].came == watched.ARRIVED
    assert result.outcome == lineage.Outcome(label=1, known_at=NOON.isoformat())
    text = trace.as_text(result)
    assert f"fault     key {key}: settled, the source was left out\n          1: fault plans: volume, by drift" in text
    assert f"arrived {watched.ARRIVED}; expected {watched.EXPECTED}" in text
    assert "plans is left out and the rows stay" in text
    assert "outcome   1, known at" in text
    json.dumps(to_builtins(result))


def test_answer_whose_lookback_has_a_faulty_day_names_it_and_an_earlier_answer_does_not(stored: Settings):
    after, before = (
        trace.of_prediction(ProductStore(SPEC, stored), watched.prediction_id(KEYS[number])).faults for number in (3, 1)
    )
    assert [fault.key for fault in after] == ([KEYS[2]] if SPEC.lookback else [])
    assert before == []


def test_logged_inputs_are_shown_with_those_that_differ_from_ours_now(settings: Settings, digest: str):
    tables, key = TableStore(settings.root, SPEC.name), KEYS[2]
    number = next(item.name for item in SPEC.fields if item.dtype in ("float", "int"))
    nulls = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in TYPES.items() if name != number]
    predictions = (
        tables.read("predictions", [key]).drop("key").with_columns(pl.lit(1).cast(TYPES[number]).alias(number), *nulls)
    )
    tables.replace("predictions", {key: predictions}, inputs={key: {}}, code="1")
    ours = predictions.select("entity", "service_time", "asked_at", *TYPES)
    identifier = watched.prediction_id(key, 3)
    for value, differing in ((1, []), (2, [number])):
        changed = ours.with_columns(pl.lit(value).cast(TYPES[number]).alias(number))
        tables.replace("features", {key: changed}, inputs={key: {}}, code=str(value))
        result = trace.of_prediction(ProductStore(SPEC, settings), identifier)
        assert result.inputs.logged == {**dict.fromkeys(TYPES), number: 1}
        assert [item.field for item in result.inputs.differing] == differing
        json.dumps(to_builtins(result))
    assert f"{number} 1 (ours 2)" in trace.as_text(result)


def test_missing_inputs_and_an_unknown_outcome_are_stated(stored: Settings):
    result = trace.of_prediction(ProductStore(SPEC, stored), ID)
    assert (result.inputs, result.outcome, result.faults) == (None, None, [])
    assert "inputs    not logged\noutcome   unknown\n" in trace.as_text(result)


def test_older_answer_is_found_by_its_key(stored: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace, "MOST_KEYS", 2)
    with pytest.raises(trace.UnknownPrediction, match="in the newest 2 keys with answers"):
        trace.of_prediction(ProductStore(SPEC, stored), ID)
    assert trace.of_prediction(ProductStore(SPEC, stored), ID, key=KEYS[1]).answer["prediction_id"] == ID


def test_unknown_id_and_unknown_key_are_errors(stored: Settings):
    with pytest.raises(trace.UnknownPrediction, match="'nobody'"):
        trace.of_prediction(ProductStore(SPEC, stored), "nobody")
    with pytest.raises(KeyProblem, match="2021-01-01"):
        trace.of_prediction(ProductStore(SPEC, stored), ID, key="2021-01-01")


def test_a_product_without_answers_says_so(settings: Settings):
    with pytest.raises(trace.UnknownPrediction, match="the newest 0 keys with answers"):
        trace.of_prediction(ProductStore(SPEC, settings), ID)
