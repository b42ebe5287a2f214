"""Before a release is written, its model answers the requests that callers sent in the last days."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.monitoring.retraining import describe_result
from platform_assets.operations import status
from platform_assets.prediction_log.prediction_log import ingest_log
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Field, Pods, Service
from platform_assets.serving import releasing, trials
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.follow.candidate import Trial, TrialProblem
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents, models, recorded
from tests.serving.conftest import App

pytestmark = pytest.mark.slow

SPEC = replace(
    recorded.SPEC,
    fields=tuple(Field(**item) for item in models.FIELDS),
    service=Service(latency_ms=50.0, max_rows=32),
    pods=Pods(memory_gb=1.0),
)
CONTRACT = json.loads(json.dumps(contract_of(SPEC)))
CUTOFF = "2020-01-10"
FATAL: dict[str, tuple[Callable[[], bytes], dict[str, Any], str]] = {
    "NaN": (lambda: models.not_a_number(CONTRACT), {"temp": 41.5}, r'gave no valid binary answer.*"temp":41.5'),
    "SIGFPE": (lambda: models.divides_by_minus_one_for(CONTRACT), {"seats": 181}, r'ended by SIGFPE.*"seats":181'),
    "memory": (lambda: models.takes_2_gb_for_ten(CONTRACT), {}, r"Failed to allocate memory.*1\d logged rows"),
    "slow": (lambda: models.slow(CONTRACT, 2_000_000), {"seats": 181}, r'more than latency_ms=50 of CPU.*"seats":181'),
}


def row(entity: str, day: int = 9, **features: Any) -> dict[str, Any]:
    moments = {"service_time": f"2020-01-{day:02d}T14:00:00Z", "asked_at": f"2020-01-{day:02d}T12:00:00Z"}
    return models.row(entity, features, **moments)


class World:
    """A product with logged requests, and models that passed their evaluation.

    Attributes:
        digest: of the model that is live.
    """

    def __init__(self, settings: Settings, folder: Path, instance: dg.DagsterInstance) -> None:
        self.product, self._instance = ProductStore(SPEC, settings), instance
        clock.move(settings, SPEC.name, datetime(2020, 1, 11, tzinfo=UTC))
        self.app = App(folder / "service", CONTRACT)
        self.app.follower.fall_back()
        self.artifacts, self.ledgers = ArtifactStore(settings.root), Ledgers(settings.root, SPEC.name)
        self.digest = self.seal(models.logistic(CONTRACT, 0.5))
        self.release(self.digest)

    def ask(self, *bodies: Any) -> None:
        """Have a service answer requests, and ingest its log."""
        for body in bodies:
            assert self.app.predict(body)[0] == 200
        ingest_log(self.product, self.app.log.folder, "0")

    def seal(self, graph: bytes) -> str:
        golden = models.golden_of(CONTRACT, graph=graph)
        digest = models.write_bundle(self.artifacts, document=CONTRACT, graph=graph, golden=golden)
        self.ledgers.create(naming.VERDICTS, digest, documents.verdict(digest, product=SPEC.name, cutoff=CUTOFF))
        return digest

    def release(self, digest: str) -> dg.ExecuteInProcessResult:
        config = {"ops": {f"{SPEC.name}__release": {"config": {"digest": digest}}}}
        return self._run(naming.job("release", SPEC.name), run_config=config)

    def release_cutoff(self, digest: str) -> dg.ExecuteInProcessResult:
        for stage in ("onnx", "evaluation", "service"):
            content = digest if stage == "onnx" else "0"
            self.product.tables.record(stage, CUTOFF, content_digest=content, inputs={"bundle": digest}, code="0")
        job, selection = naming.job("retrain", SPEC.name), [dg.AssetKey(naming.asset_key(SPEC.name, "release"))]
        return self._run(job, partition_key=CUTOFF, asset_selection=selection)

    def _run(self, job: str, **options: Any) -> dg.ExecuteInProcessResult:
        store = StoreResource(variables=self.product.settings.to_environment())
        defs = build_defs(specs=[SPEC], resources={"store": store})
        return defs.resolve_job_def(job).execute_in_process(instance=self._instance, **options)

    @property
    def live(self) -> str:
        return documents.live_digest(self.ledgers.latest(naming.RELEASES)[1])

    @property
    def text(self) -> str:
        return status.as_text(status.of_product(self.product))


@pytest.fixture
def world(settings: Settings, tmp_path: Path, instance: dg.DagsterInstance) -> World:
    return World(settings, tmp_path, instance)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: entry.value for name, entry in event.step_materialization_data.materialization.metadata.items()}


@pytest.mark.costly
@pytest.mark.parametrize("kind", FATAL)
def test_a_model_that_cannot_answer_a_real_row_is_not_released(world: World, kind: str) -> None:
    make, features, message = FATAL[kind]
    rows = [row(f"flight-{place}", seats=place) for place in range(19)]
    world.ask(*rows[:9], rows[9:], row("the one", **features))
    digest = world.seal(make())
    with pytest.raises(dg.Failure, match=f"{digest} is not released: It does not answer logged requests.*{message}"):
        world.release(digest)
    assert (world.live, world.ledgers.newest_number(naming.RELEASES)) == (world.digest, 1)
    assert f"refused    model {digest[:12]} of cutoff 2013-03-01: It does not answer logged requests" in world.text
    assert all(f'"{name}":{value}' in world.text for name, value in features.items()), "the row that shows it"


@pytest.mark.costly
def test_the_model_of_a_cutoff_is_tried_and_the_champion_kept_until_a_good_one_comes(world: World) -> None:
    world.ask(row("the one", temp=41.5))
    digest = world.seal(models.not_a_number(CONTRACT))
    for _ in range(2):
        metadata = metadata_of(world.release_cutoff(digest))
        assert (metadata["outcome"], metadata["challenger"], metadata["champion"]) == (
            "kept_champion",
            digest,
            world.digest,
        )
        assert '"temp":41.5' in metadata["reasons"]
    assert describe_result(world.product, CUTOFF).startswith("champion kept: It does not answer logged requests")
    assert f"refused    model {digest[:12]}" in world.text
    good = world.seal(models.logistic(CONTRACT, 1.0))
    metadata = metadata_of(world.release_cutoff(good))
    assert (world.live, metadata["outcome"]) == (good, "released")
    assert metadata["trial"].startswith("1 logged rows answered, 99 % of them within")
    assert "refused" not in world.text


def test_without_logged_requests_a_model_is_released_and_that_is_said(world: World) -> None:
    digest = world.seal(models.not_a_number(CONTRACT))
    assert metadata_of(world.release(digest))["trial"] == "No request is logged yet, so it was asked none."
    private = ProductStore(replace(SPEC, service=Service(logs_features=False)), world.product.settings)
    assert trials.trial_of(private, digest) == "Its contract logs no features, so it was not asked logged requests."


def test_a_contract_that_logs_no_features_any_more_is_not_tried_with_older_rows(world: World) -> None:
    """The rows are there, but their values must not be in a message."""
    world.ask(row("the one", temp=41.5))
    private = models.contract(logs_features=False)
    digest = models.write_bundle(world.artifacts, document=private, graph=models.not_a_number(private))
    assert trials.trial_of(world.product, digest) == "No logged request has features, so it was asked none."


@pytest.mark.costly
def test_a_person_releases_it_all_the_same_and_the_record_says_what_was_found(world: World) -> None:
    world.ask(row("the one", temp=41.5))
    digest = world.seal(models.not_a_number(CONTRACT))
    sentence = releasing.override(world.product, digest, "hot days are over")
    _, record = world.ledgers.latest(naming.RELEASES)
    assert (world.live, record["override"]["reason"]) == (digest, "hot days are over")
    assert "hot days are over. It does not answer logged requests as a service must" in record["why"]
    assert '"temp":41.5' in sentence


@pytest.mark.costly
def test_a_rollback_waits_for_no_trial(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.release(world.seal(models.logistic(CONTRACT, 1.0)))
    world.ask(row("the one"))
    monkeypatch.setattr(trials, "trial_of", None)
    releasing.roll_back(world.product, None)
    assert world.live == world.digest


@pytest.mark.costly
def test_a_trial_that_the_kernel_ended_refuses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node was short of memory: that says nothing about the model."""

    def killed(*_: Any) -> None:
        raise TrialProblem("the process was ended by SIGKILL.")

    world.ask(row("the one"))
    monkeypatch.setattr(Trial, "ask", killed)
    with pytest.raises(trials.Untried, match=r"could not be tried: the process was ended by SIGKILL. Release it again"):
        world.release(world.seal(models.logistic(CONTRACT, 1.0)))
    assert "refused" not in world.text


@pytest.mark.costly
def test_a_row_that_the_candidates_contract_does_not_take_is_left_out(world: World) -> None:
    """A field is new, so no logged request has it; another has another type."""
    world.ask(row("the one"), row("another", temp=-50.0))
    fields = [{**item, "low": -20.0} if item["name"] == "temp" else item for item in CONTRACT["fields"]]
    narrower = {**CONTRACT, "fields": [*fields, models.field("gusts", "float")]}
    digest = models.write_bundle(world.artifacts, document=narrower)
    assert trials.trial_of(world.product, digest).startswith("0 logged rows answered (2 more do not fit its contract)")
    narrower = {**CONTRACT, "fields": fields}
    digest = models.write_bundle(world.artifacts, document=narrower)
    assert trials.trial_of(world.product, digest).startswith("1 logged rows answered (1 more do not fit its contract)")


def test_the_lists_of_callers_and_every_rare_value_are_among_the_rows(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trials, "ROWS", 10)
    singles = [row(f"flight-{place}", day=8, seats=place) for place in range(5)]
    lists = [[row(f"{size}-{place}", wind=float(size)) for place in range(size)] for size in (3, 12, 3, 30)]
    world.ask(*singles, *lists, row("cold", temp=-59.0), row("rare", carrier="ZZ"))
    records = [*world.product.tables.records("predictions").values()]
    logged = trials._logged(world.product, world.artifacts.bundle(world.digest), records)
    assert [len(places) for places in logged.lists] == [3, 12, 30]
    rows = [json.loads(body) for body in logged.rows]
    assert {rows[place]["features"]["wind"] for place in logged.lists[1]} == {12.0}
    entities = {item["entity"] for item in rows}
    assert {"cold", "rare"} <= entities, "values that one row of fifty-five has"
    assert len(rows) < 55, "and not all the others"
    assert Decoding(world.app.contract).decode(b"[" + b",".join(logged.rows[:20]) + b"]").rows
