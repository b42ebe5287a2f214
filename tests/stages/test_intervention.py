"""A person accepts, drops or repairs a held key; a nulled source is left out, a held key is not trained on."""

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch.profiles import profile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from platform_assets.training.requests import training_request
from tests.doubles import documents, histories
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
NAME = batches.SPEC.name
KEY = "0005"


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    clock.move(settings, NAME, datetime(2024, 1, 3, tzinfo=UTC))
    return Ledgers(settings.root, NAME)


@pytest.fixture
def act(settings: Settings, ledgers: Ledgers, instance: dg.DagsterInstance) -> Run:
    defs = build_defs(specs=[batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())})

    def execute(verb: str, **config: Any) -> dg.ExecuteInProcessResult:
        job = defs.resolve_job_def(naming.job(verb, NAME))
        return job.execute_in_process(
            instance=instance,
            run_config={"ops": {f"{verb}_key__{NAME}": {"config": config}}},
            raise_on_error=False,
        )

    return execute


def plant(ledgers: Ledgers, tables: TableStore, kind: str, key: str = KEY) -> None:
    """Write a fault record, and a judgement that leads to it, as stage `drift` does."""
    ledgers.append(f"faults/{key}", documents.fault(kind, key))
    tables.record("drift", key, content_digest="0", inputs={}, code="0", notes={"is_faulty": True})


def problem(result: dg.ExecuteInProcessResult) -> str:
    [failed] = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    return f"{error.message} {error.cause.message if error.cause else ''}" if error else ""


def test_a_person_accepts_a_held_key(act: Run, ledgers: Ledgers, tables: TableStore) -> None:
    plant(ledgers, tables, "fault")
    assert histories.of(ledgers).excluded([KEY, "0006"]).keys() == {KEY}
    assert act("accept", key=KEY, why="the holiday was real").success
    hold = histories.of(ledgers).hold(KEY)
    assert hold is not None
    assert (hold.kind, hold.record.by, hold.record.why) == ("accept", getpass.getuser(), "the holiday was real")
    assert histories.of(ledgers).excluded([KEY]) == {}


def test_a_person_drops_a_key_permanently(act: Run, ledgers: Ledgers, tables: TableStore) -> None:
    plant(ledgers, tables, "fault")
    assert act("accept", key=KEY, why="beyond repair", outcome="drop").success
    [hold] = histories.of(ledgers).excluded([KEY]).values()
    assert (hold.kind, hold.is_held) == ("drop", False)


def test_free_text_for_the_author_is_refused(act: Run, ledgers: Ledgers, tables: TableStore) -> None:
    plant(ledgers, tables, "fault")
    with pytest.raises(dg.DagsterInvalidConfigError, match='unexpected config entry "by"'):
        act("accept", key=KEY, why="I am somebody else", by="Ada")
    assert ledgers.newest_number(naming.INTERVENTIONS) == 0


@pytest.mark.parametrize("verb", ["accept", "repair"])
def test_in_a_cluster_a_run_without_a_requester_may_not_intervene(
    verb: str, settings: Settings, ledgers: Ledgers, tables: TableStore, instance: dg.DagsterInstance
) -> None:
    plant(ledgers, tables, "fault")
    variables = {**settings.to_environment(), "DRIFTLINE_ENV": "cluster"}
    defs = build_defs(specs=[batches.SPEC], resources={"store": StoreResource(variables=variables)})
    result = defs.resolve_job_def(naming.job(verb, NAME)).execute_in_process(
        instance=instance,
        run_config={"ops": {f"{verb}_key__{NAME}": {"config": {"key": KEY, "why": "from a shell of a pod"}}}},
        tags={naming.TAG_BY: "ada", naming.TAG_BY_KIND: "person"},
        raise_on_error=False,
    )
    assert f"{verb}__{NAME} needs a person, and the requester of this run is unknown" in problem(result)
    assert ledgers.newest_number(naming.INTERVENTIONS) == 0
    assert ledgers.newest_number(naming.REQUESTS) == 0


def test_a_key_whose_labels_never_arrive_can_be_dropped(act: Run, ledgers: Ledgers, tables: TableStore) -> None:
    assert act("accept", key="0007", why="its labels are lost", outcome="drop").success
    assert histories.of(ledgers).excluded(["0006", "0007"]).keys() == {"0007"}


@pytest.mark.parametrize(
    ("key", "message"),
    [("0006", "0006 of numbered_batches has no fault on record"), ("6", "'6' is not a key of numbered_batches")],
)
def test_accepting_a_key_that_is_not_held_is_refused(act: Run, ledgers: Ledgers, key: str, message: str) -> None:
    result = act("accept", key=key, why="nothing")
    assert not result.success
    assert message in problem(result)
    assert ledgers.newest_number(f"{naming.FAULTS}/0006") == 0


@pytest.mark.costly
def test_a_repair_needs_a_new_delivery_and_requests_all_keys_that_look_back(
    settings: Settings, act: Run, run: Run, ledgers: Ledgers, tables: TableStore
) -> None:
    batches.land_all(settings.root, "0001", "0006")
    run("0001", "0006")
    plant(ledgers, tables, "fault")
    assert "no file of 0005 differs" in problem(act("repair", key=KEY, why="delivered again"))
    assert ledgers.newest_number(naming.REQUESTS) == 0
    batches.land(settings.root, "readings", KEY, batches.readings(KEY).replace(".0,", ".5,"))
    assert act("repair", key=KEY, why="delivered again").success
    latest = ledgers.latest(naming.REQUESTS)
    assert latest is not None
    assert (latest[1]["kind"], latest[1]["first"], latest[1]["last"]) == ("advance", "0005", "0006")
    assert latest[1]["why"] == "readings of 0005 delivered again: delivered again"
    hold = histories.of(ledgers).hold(KEY)
    assert hold is not None
    assert (hold.kind, hold.is_held) == ("repair", True)


def test_a_key_that_is_not_closed_cannot_be_repaired(act: Run, ledgers: Ledgers) -> None:
    assert "0009 of numbered_batches is not closed yet" in problem(act("repair", key="0009", why="early"))


@pytest.mark.costly
def test_rows_of_a_nulled_source_are_left_out_of_every_lookback(
    settings: Settings, run: Run, ledgers: Ledgers, tables: TableStore
) -> None:
    batches.land_all(settings.root, "0001", "0008")
    run("0001", "0008")
    plant(ledgers, tables, "null")
    run("0005", "0008")
    assert tables.read("features", [KEY]).height == 0
    means = {key: tables.read("features", [key])["recent_mean"][0] for key in ("0004", "0006", "0007", "0008")}
    assert means == {"0004": 30.0, "0006": 50.0, "0007": 65.0, "0008": 70.0}, "0006 and 0007 without 0005"


@pytest.mark.costly
def test_a_held_key_is_not_trained_on_and_the_holdout_moves_back(settings: Settings, run: Run, ledgers: Ledgers):
    batches.land_all(settings.root, "0001", "0020")
    run("0001", "0020")
    plant(ledgers, TableStore(settings.root, NAME), "fault", "0017")
    out = histories.of(ledgers).excluded(batches.GRAIN.span("0001", "0018"))
    request = training_request(ProductStore(batches.SPEC, settings), "0020", profile("cpu_small"), out)
    assert request.holdout_keys == ["0015", "0016"]
    assert "0017" not in request.training_keys + request.holdout_keys
    assert set(request.features) == set(request.training_keys + request.holdout_keys)
