"""Each key is decided once, from records: the newest decides, a fault raises an alert, labels are awaited."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.launch.monthly_budget import MonthlyBudget
from platform_assets.monitoring import policy
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import deciding, documents, histories
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
Advanced = Callable[..., TableStore]
SPEC = batches.SPEC
NOW = datetime(2024, 1, 3, tzinfo=UTC)


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, SPEC.name)


@pytest.mark.costly
def test_the_newest_key_of_a_range_decides_and_decisions_are_final(
    settings: Settings, run: Run, advance_to: Advanced, ledgers: Ledgers, tables: TableStore
) -> None:
    advance_to("0012")
    decisions = {key: ledgers.read(naming.DECISIONS, key) for key in batches.GRAIN.span("0001", "0012")}
    assert {record["action"] for key, record in decisions.items() if record and key != "0012"} == {"wait"}
    assert decisions["0011"]["reasons"] == ["0011 is not the newest key: a later one decides."]
    newest = decisions["0012"]
    assert newest is not None
    assert (newest["action"], newest["cutoff"]) == ("retrain", "0013")
    assert newest["reasons"] == ["no model is live and 10 labelled keys are available."]
    assert newest["numbers"]["usable_keys"] == 10
    run("0011", "0012")
    assert ledgers.read(naming.DECISIONS, "0012") == newest
    assert set(tables.records("decision")) == set(decisions)


@pytest.mark.costly
def test_a_key_is_not_trained_on_before_its_labels_arrive(settings: Settings, run: Run, ledgers: Ledgers) -> None:
    batches.land_all(settings.root, "0001", "0012", labels_until="0008")
    run("0001", "0012")
    decided = ledgers.read(naming.DECISIONS, "0012")
    assert decided is not None
    assert (decided["action"], decided["numbers"]["unlabelled"]) == ("wait", ["0009", "0010"])
    assert "labels of 2 keys have not landed, the first is 0009" in decided["reasons"][0]


@pytest.mark.costly
def test_a_faulty_key_raises_an_alert_and_is_not_free_to_decide(
    settings: Settings, run: Run, ledgers: Ledgers, tables: TableStore
) -> None:
    batches.land_all(settings.root, "0001", "0020")
    doubled = batches.readings("0020").splitlines(keepends=True)
    batches.land(settings.root, "readings", "0020", "".join([*doubled, *doubled[1:]]))
    run("0001", "0020")
    decided = ledgers.read(naming.DECISIONS, "0020")
    assert decided is not None
    assert (decided["action"], decided["is_free"]) == ("alert_fault", False)
    assert (decided["fault"]["source"], decided["fault"]["check"]) == ("readings", "repeated_rows")
    assert decided["fault"]["episode"] == "0020"
    assert decided["reasons"][0].startswith("readings of 0020 is faulty (repeated_rows): ")
    assert "rows repeat another row of the delivery" in decided["reasons"][0]
    assert histories.of(ledgers).excluded(["0020"]).keys() == {"0020"}


@pytest.mark.costly
def test_a_request_is_answered_by_one_decision(settings: Settings, run: Run, ledgers: Ledgers, tables: TableStore):
    batches.land_all(settings.root, "0001", "0012")
    ledgers.append(naming.REQUESTS, documents.decision_request("0012"))
    run("0001", "0012")
    decided = ledgers.read(naming.DECISIONS, "0012")
    assert decided is not None
    assert decided["request"] == 1
    batches.land_all(settings.root, "0013", "0013")
    run("0013")
    later = ledgers.read(naming.DECISIONS, "0013")
    assert later is not None
    assert later["request"] is None


def test_a_first_training_over_budget_needs_a_persons_reason(
    settings: Settings, advance_to: Advanced, ledgers: Ledgers, tables: TableStore
) -> None:
    advance_to("0012")
    judged = tables.records("drift", ["0012"])["0012"]
    poor = replace(SPEC, retraining=replace(SPEC.retraining, monthly_budget_usd=1.0))
    facts = replace(
        deciding.facts(ProductStore(poor, settings), "0012", MonthlyBudget()).at("0012", judged, now=NOW),
        has_newer=False,
    )
    decision_made = policy.decide(facts, poor.retraining, NOW)
    assert decision_made.action == policy.WAIT
    assert "0.08 USD per hour x 6 h x 7 tries" in decision_made.reasons[0]
    assert "exceeded by 2.36. If it takes less, state Retraining.expected_hours" in decision_made.reasons[0]
    stated = replace(poor.retraining, expected_hours=0.1)
    rich = deciding.facts(ProductStore(replace(poor, retraining=stated), settings), "0012", MonthlyBudget()).at(
        "0012", judged, now=NOW
    )
    assert policy.decide(replace(rich, has_newer=False), stated, NOW).action == policy.RETRAIN
