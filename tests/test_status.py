"""How a product stands, told from its records: what is not on record is unknown."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from msgspec import to_builtins
from prometheus_client import values

from platform_assets import naming, status
from platform_assets.compute import ingest
from platform_assets.facts import latency, unlabelled
from platform_assets.handle import Product
from platform_assets.history.reader import History
from platform_assets.makers.predictions import Ingesting
from platform_assets.report import pages
from platform_assets.serving import availability
from platform_assets.settings import Settings
from platform_assets.status.state import State
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.doubles import documents, recorded, watched

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    place = tmp_path_factory.mktemp("kept")
    kept = Settings(root=str(place / "store"), state=place / "state")
    watched.write(kept, SPEC, KEYS)
    return status.of_product(Product(SPEC, kept))


def test_age_is_counted_in_keys_up_to_the_one_after_the_newest_closed(state: State):
    assert state.newest_closed_key == KEYS[-1]
    assert state.release.age_keys == len(KEYS)
    assert f"{len(KEYS)} keys old" in status.as_text(state)


def test_quality_is_that_of_the_newest_labelled_window(state: State):
    quality = state.quality
    assert (quality.first, quality.last, quality.keys) == (KEYS[0], KEYS[-2], len(KEYS) - 1)
    auc = quality.quality["auc"]
    assert auc.low < auc.value < auc.high
    assert f"auc {auc.value:.4f} ({auc.low:.4f} to {auc.high:.4f})" in status.as_text(state)


def test_drift_and_decision_are_the_newest_with_reasons(state: State):
    assert (state.drift.key, state.drift.verdict, state.drift.percentile) == (KEYS[-1], "fine", 0.5)
    assert state.decision.reasons == ("nothing asks for a training.",)
    assert f"{KEYS[-1]}: wait. nothing asks for a training." in status.as_text(state)


def test_nulled_key_is_no_longer_held_and_a_fault_is(settings: Settings, state: State):
    assert state.held == []
    watched.write(settings, SPEC, KEYS)
    fault = documents.fault("fault", KEYS[2], "plans")
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", fault)
    state = status.of_product(Product(SPEC, settings))
    (held,) = state.held
    assert (held.key, held.is_held, held.check) == (KEYS[2], True, "volume")
    assert f"{KEYS[2]} held (plans: volume)" in status.as_text(state)
    got = TableStore(settings.root, SPEC.name).records("performance")[KEYS[2]].notes["quality"]["auc"]
    assert state.quality.held == {KEYS[2]: got}
    assert f"without held keys, where callers got auc {got:.4f} on {KEYS[2]}" in status.as_text(state)
    told = pages.of_product(Product(SPEC, settings))
    assert f"without held ones: auc {got:.4f} on {KEYS[2]}" in told


def test_last_failure_is_told(settings: Settings):
    failure = documents.failure(first=KEYS[0], last=KEYS[1])
    Ledgers(settings.root, SPEC.name).append(naming.FAILURES, failure)
    text = status.as_text(status.of_product(Product(SPEC, settings)))
    assert f"advance__recorded of {KEYS[0]} to {KEYS[1]}: no file" in text


def test_keys_whose_labels_were_given_up_are_told_as_long_as_they_are_left_out(settings: Settings):
    tables, ledgers = TableStore(settings.root, SPEC.name), Ledgers(settings.root, SPEC.name)
    assert "no labels" not in status.as_text(status.of_product(Product(SPEC, settings)))
    unlabelled.give_up(tables, KEYS[:2], cutoff=KEYS[2], why="late", at=datetime(2026, 1, 1, tzinfo=UTC))
    ledgers.create(naming.DECISIONS, SPEC.grain.first, {})
    unlabelled.record_arrivals(
        tables, History(settings.root, SPEC.name), SPEC.grain, KEYS[1:3], "2026-01-02T00:00:00+00:00"
    )
    first, second = status.of_product(Product(SPEC, settings)).unlabelled
    assert (first.kind, second.kind, second.until_cutoff) == ("given_up", "arrived", SPEC.grain.key_at(2))
    text = status.as_text(status.of_product(Product(SPEC, settings)))
    assert f"no labels {KEYS[0]} left out from cutoff {KEYS[2]} on; {KEYS[1]} left out" in text


def test_how_fast_answers_were_is_judged_over_the_newest_keys_and_told_in_the_report(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    tables, none = TableStore(settings.root, SPEC.name), status.of_product(Product(SPEC, settings))
    assert none.latency is None
    assert "latency   unknown: no answer of the newest keys was counted" in status.as_text(none)
    for key, rows, slow in ((KEYS[-1], 400, 2), (KEYS[-2], 800, 30)):
        moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=row) for row in range(rows)]
        took = [150_000 if row < slow else 900 for row in range(rows)]
        told = {"answered_at_utc": moments, "latency_us": took, "digest": "a", ingest.LATE: False}
        given = pl.DataFrame(told, schema_overrides={"answered_at_utc": ingest.MOMENT})
        notes = Ingesting.of(SPEC).notes(given)
        tables.replace("predictions", {key: given}, inputs={key: {}}, code="1", notes={key: notes})
    found = status.of_product(Product(SPEC, settings)).latency
    assert (found.requests, found.slow, found.first, found.is_slow) == (1_200, 32, KEYS[-2], True)
    words = f"2.67% of 1,200 requests on {KEYS[-2]} to {KEYS[-1]} took longer than 100 ms"
    assert f"  latency   {words}" in status.as_text(status.of_product(Product(SPEC, settings)))
    assert words in pages.of_product(Product(SPEC, settings))
    assert latency.recent_latency(Product(SPEC, settings), KEYS[0]) is None
    json.dumps(to_builtins(found))


def test_nothing_on_record_is_unknown_and_never_good(settings: Settings):
    state = status.of_product(Product(SPEC, settings))
    assert {
        getattr(state, name)
        for name in ("release", "quality", "drift", "decision", "failure", "availability", "latency")
    } == {None}
    text = status.as_text(state)
    for words in ("none yet", "no answer has a label yet", "no key was judged yet", "unknown: no service"):
        assert words in text
    json.dumps(to_builtins(state))


# Availability --------------------------------------------------------------------------------------------------------


def _count(folder: Path, counts: dict[str, int], pid: int) -> None:
    """Leave what a worker leaves: counters in files of its server's folder."""
    folder.mkdir(parents=True)
    made = values.MultiProcessValue(lambda: pid)
    environment = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    try:
        for code, count in counts.items():
            made("counter", "driftline_requests", "driftline_requests_total", ("status",), (code,), "Requests.").inc(
                count
            )
    finally:
        if environment is None:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = environment


def test_running_service_is_up_with_its_answers_and_refusals(tmp_path: Path):
    _count(tmp_path / str(os.getpid()), {"200": 97, "422": 2, "503": 1}, os.getpid())
    found = availability.read(tmp_path)
    assert found is not None
    assert (found.is_up, found.answered, found.refused, found.failed, found.share) == (True, 97, 2, 1, 0.99)


def test_service_that_ended_is_down_and_its_numbers_stand(tmp_path: Path):
    _count(tmp_path / "4194999", {"200": 5}, 4_194_999)
    found = availability.read(tmp_path)
    assert found is not None
    assert (found.is_up, found.answered, found.share) == (False, 5, 1.0)


def test_service_that_was_never_asked_has_no_share(tmp_path: Path):
    (tmp_path / str(os.getpid())).mkdir()
    found = availability.read(tmp_path)
    assert found is not None
    assert found.share is None
    assert availability.read(tmp_path / "nobody") is None
