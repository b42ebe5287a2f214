"""Who asks for a run: on a real webserver and daemon, with the cluster's own coordinator.

Everything is asked through GraphQL, as the UI and anybody with access to it does.
"""

import getpass
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import httpx
import obstore
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from platform_assets.automation.factory import build_defs
from platform_assets.base import accounts, clock, naming
from platform_assets.base.settings import Settings
from platform_assets.demo.processes import HOST, Children, free_port, wait_for
from platform_assets.demo.servers import wait_for_definitions
from platform_assets.engine.requesters import NOBODY, Requester, of_daemon
from platform_assets.evaluation import signing
from platform_assets.instance import home
from platform_assets.instance.run_coordinator import RunCoordinator, RunRefused
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.tables import TableStore
from tests.doubles import documents
from tests.doubles.numbered_batches import SPEC
from tests.doubles.s3_server import SECRET, S3Server

pytestmark = pytest.mark.slow

HEADER = "X-Forwarded-User"
LOCATION = "tests.doubles.asked_location"
ADA = {HEADER: "ada@example.org"}
PATIENCE_S = 600.0
NOW = datetime(2024, 1, 3, tzinfo=UTC)
HELD, VERIFY = "0005", naming.job("verify", SPEC.name)
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
AGAIN = """mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
ANSWERS = ("LaunchRunSuccess", "LaunchBackfillSuccess", "PythonError")
FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


@dataclass(frozen=True)
class Platform:
    """A webserver behind a proxy, which is this test, with a daemon and a store on S3."""

    address: str
    instance: dg.DagsterInstance
    settings: Settings
    children: Children
    planted: Mapping[str, str]

    def graphql(self, query: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        body = {"query": query, "variables": {"params": params}}
        answer = httpx.post(f"{self.address}/graphql", json=body, headers=dict(headers), timeout=60).json()
        assert "data" in answer, answer
        [result] = answer["data"].values()
        assert isinstance(result, dict) and result["__typename"] in ANSWERS, result
        return result

    def launch(
        self,
        job: str,
        headers: Mapping[str, str],
        tags: Mapping[str, str] | None = None,
        ops: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> dict[str, Any]:
        selector = {
            "repositoryLocationName": "tests.doubles.asked_location",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        metadata = {"tags": [{"key": name, "value": text} for name, text in (tags or {}).items()]}
        run_config = json.dumps({"ops": ops or {}, **config})
        params = {"selector": selector, "runConfigData": run_config, "executionMetadata": metadata}
        return self.graphql(LAUNCH, params, headers)

    def ended(self, run_id: str) -> dg.DagsterRun:
        def look() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run is not None and run.is_finished else None

        return self.wait(look)

    def newest(self, job: str) -> dg.DagsterRun:
        [run] = self.instance.get_runs(dg.RunsFilter(job_name=job), limit=1)
        return run

    def wait(self, look: Callable[[], Any]) -> Any:
        until_s = time.monotonic() + PATIENCE_S
        while not (result := look()):
            self.children.check()
            assert time.monotonic() < until_s, [(run.job_name, run.status) for run in self.instance.get_runs()]
            time.sleep(0.2)
        return result

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(self.settings.root, SPEC.name)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, repository: Path, s3_server: S3Server) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    settings = Settings(root="s3://driftline/asked", state=folder / "state")
    signing.make_key(folder / "key.pem")
    planted = {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "DAGSTER_PG_PASSWORD": "planted-password-of-postgres",
        "DRIFTLINE_ALERTMANAGER": "http://127.0.0.1:9/planted-address",
        "DRIFTLINE_SIGNING_KEY": (folder / "key.pem").read_text(encoding="utf-8"),
    }
    variables = {**settings.child_environment(), **s3_server.environment(), **planted}
    variables |= {"DRIFTLINE_IDENTITY_HEADER": HEADER, "PYTHONPATH": str(repository)}
    with pytest.MonkeyPatch.context() as environment:
        for name, text in s3_server.environment().items():
            environment.setenv(name, text)
        environment.setenv("DRIFTLINE_IDENTITY_HEADER", HEADER)
        path = home.prepare(settings) / "dagster.yaml"
        ours = yaml.safe_load(path.read_text(encoding="utf-8"))
        cluster = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump({**ours, "run_coordinator": cluster["run_coordinator"]}), encoding="utf-8")
        dagster_home = path.parent
        clock.move(settings, SPEC.name, NOW)
        with (
            dg.DagsterInstance.from_config(str(dagster_home)) as instance,
            Children(variables, folder / "logs") as children,
        ):
            program, port = str(Path(sys.executable).with_name("dagster")), free_port(3400)
            place = ["--host", HOST, "--port", str(port)]
            dagster = children.start("dagster", [program, "dev", "--module-name", LOCATION, *place])
            address = f"http://{HOST}:{port}"
            wait_for(f"{address}/server_info", check=dagster.check)
            wait_for_definitions(address, check=children.check)
            yield Platform(address, instance, settings, children, planted)


def hold(platform: Platform, key: str) -> None:
    """Plant a fault, and a judgement that leads to it, as stage `drift` does."""
    platform.ledgers.append(f"faults/{key}", documents.fault("fault", key))
    tables = TableStore(platform.settings.root, SPEC.name)
    tables.record("drift", key, content_digest="0", inputs={}, code="0", notes={"is_faulty": True})


def settling(op: str, key: str, why: str) -> dict[str, Any]:
    return {naming.job(op, SPEC.name): {"config": {"key": key, "why": why}}}


@pytest.mark.thorough
def test_a_person_named_by_the_proxy_settles_a_key_under_that_name(platform: Platform) -> None:
    hold(platform, HELD)
    answer = platform.launch(naming.job("accept", SPEC.name), ADA, ops=settling("accept_key", HELD, "it is right"))
    run = platform.ended(answer["run"]["runId"])
    latest = platform.ledgers.latest(f"faults/{HELD}")
    assert latest is not None
    assert (run.status, latest[1]["kind"], latest[1]["by"]) == (SUCCESS, "accept", "ada@example.org")
    assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == ("ada@example.org", "person")


@pytest.mark.thorough
@pytest.mark.parametrize("verb", accounts.OF_A_PERSON)
@pytest.mark.parametrize("headers", [{}, {HEADER: ""}, {"X-User": "ada"}], ids=["none", "blank", "another"])
def test_without_the_header_the_requester_is_nobody_and_jobs_for_persons_are_refused(
    platform: Platform, verb: str, headers: dict[str, str]
) -> None:
    hold(platform, "0004")
    ops = {name: settling(f"{name}_key", "0004", "me") for name in ("accept", "repair")}
    ops["rebuild"] = {naming.job("rebuild_keys", SPEC.name): {"config": {"why": "me"}}}
    claims = {naming.TAG_BY: "ada", naming.TAG_BY_KIND: "person", "dagster/sensor_name": "retrain"}
    answer = platform.launch(naming.job(verb, SPEC.name), headers, claims, ops.get(verb))
    run = platform.newest(naming.job(verb, SPEC.name))
    assert answer["__typename"] == "PythonError"
    assert f"{verb}__{SPEC.name} needs a person, and the requester of this run is unknown" in answer["message"]
    record = platform.instance.get_run_record_by_id(run.run_id)
    assert record is not None and record.dagster_run.status is FAILURE and record.start_time is None
    kinds = {dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START}
    assert not platform.instance.all_logs(run.run_id, of_type=kinds)
    assert any("RunRefused" in log.message for log in platform.instance.all_logs(run.run_id))
    latest = platform.ledgers.latest("faults/0004")
    assert latest is not None and latest[1]["kind"] == "fault"


@pytest.mark.thorough
def test_a_tag_that_names_the_requester_is_overwritten(platform: Platform) -> None:
    claims = {naming.TAG_BY: "root", naming.TAG_BY_KIND: "sensor"}
    run = platform.ended(platform.launch(VERIFY, ADA, claims)["run"]["runId"])
    assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == ("ada@example.org", "person")
    run = platform.ended(platform.launch(VERIFY, {}, claims)["run"]["runId"])
    assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == ("nobody", "nobody")


@pytest.mark.thorough
def test_a_repeated_run_is_attributed_to_the_person_who_repeats_it(platform: Platform) -> None:
    parent = platform.ended(platform.launch(VERIFY, ADA)["run"]["runId"])
    params = {"parentRunId": parent.run_id, "strategy": "ALL_STEPS", "useParentRunTags": True}
    run = platform.ended(platform.graphql(AGAIN, params, {HEADER: "bob"})["run"]["runId"])
    assert (run.parent_run_id, run.tags[naming.TAG_BY]) == (parent.run_id, "bob")


@pytest.mark.thorough
def test_a_sensors_run_is_attributed_to_the_sensor_whatever_its_request_claims(platform: Platform) -> None:
    of_it = dg.RunsFilter(job_name=VERIFY, tags={"dagster/sensor_name": "asks"})
    [run] = platform.wait(lambda: platform.instance.get_runs(of_it))
    run = platform.ended(run.run_id)
    assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == ("asks", "sensor")


@pytest.mark.thorough
def test_a_backfills_run_is_attributed_to_the_backfill_whatever_its_tags_claim(platform: Platform) -> None:
    claims = {naming.TAG_BY: "ada", naming.TAG_BY_KIND: "person", "dagster/sensor_name": "retrain"}
    claims |= {naming.TAG_PRODUCT: "another"}
    path = {"path": naming.asset_key(SPEC.name, "raw", SPEC.sources[0].name)}
    tagged = [{"key": name, "value": text} for name, text in claims.items()]
    params = {"assetSelection": [path], "partitionNames": ["0001"], "tags": tagged}
    backfill = str(platform.graphql(BACKFILL, params, ADA)["backfillId"])
    of_it = dg.RunsFilter(tags={"dagster/backfill": backfill})
    run = platform.ended(platform.wait(lambda: list(platform.instance.get_runs(of_it)))[0].run_id)
    assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == (f"backfill {backfill}", "backfill")
    assert run.tags[naming.TAG_PRODUCT] == SPEC.name, "the queue counts a product's runs by it"


@pytest.mark.thorough
def test_no_planted_secret_is_in_logs_metadata_or_run_config(platform: Platform) -> None:
    """Dagster's databases (run config, tags, events, metadata), the output of runs, logs, and the store."""
    hold(platform, "0003")
    run = platform.ended(platform.launch(VERIFY, {HEADER: "searched-for"})["run"]["runId"])
    assert run.status is FAILURE, "a key is held, and the failure is on record with its traceback"
    files = [path for place in (platform.settings.state, platform.children.logs) for path in place.rglob("*")]
    content = b"".join(_bytes(path) for path in files if path.is_file())
    store = open_store(platform.settings.root)
    paths = [item["path"] for batch in obstore.list(store) for item in batch]
    content += b"".join(bytes(obstore.get(store, path).bytes()) for path in paths)
    values = {name: text.strip().splitlines()[-2:][0] for name, text in platform.planted.items()}
    assert b"searched-for" in content and run.run_id.encode() in content and b"0003" in content and paths
    assert [name for name, text in values.items() if text.encode() in content] == []


def _bytes(path: Path) -> bytes:
    with suppress(FileNotFoundError):  # SQLite removes its journal
        return path.read_bytes()
    return b""


def test_every_asset_whose_steps_are_pods_runs_with_the_account_that_may_create_them() -> None:
    assets = [item for item in build_defs(specs=[SPEC]).assets or () if isinstance(item, dg.AssetsDefinition)]
    launching = {item.key.path[-1] for item in assets if naming.LAUNCHER in item.required_resource_keys}
    assert {"checkpoint", "onnx"} <= launching
    assert {accounts.of_run("__ASSET_JOB", {stage}) for stage in launching} == {accounts.RETRAIN}


# -- a laptop --

ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("asked"), "__repository__"), VERIFY)
WEB, NO_REQUEST = SimpleNamespace(source=SimpleNamespace(headers=ADA)), SimpleNamespace(source=None)


@dg.op
def waits() -> None:
    """Never runs: nothing dequeues it."""


@dg.job
def waiting() -> None:
    waits()


def submitted(instance: dg.DagsterInstance, workspace: Any, tags: Mapping[str, str]) -> dg.DagsterRun:
    code = dg.reconstructable(waiting).get_python_origin()
    run = instance.create_run_for_job(waiting, tags=dict(tags), remote_job_origin=ORIGIN, job_code_origin=code)
    return instance.submit_run(run.run_id, workspace)


@pytest.mark.parametrize(
    ("workspace", "tags", "requester"),
    [
        (WEB, {naming.TAG_BY: "root", "dagster/sensor_name": "retrain"}, Requester(getpass.getuser(), "person")),
        (NO_REQUEST, {}, Requester(getpass.getuser(), "person")),
        (NO_REQUEST, {"dagster/sensor_name": "retrain", naming.TAG_BY: "root"}, Requester("retrain", "sensor")),
        (NO_REQUEST, {"dagster/schedule_name": "maintain"}, Requester("maintain", "schedule")),
        (NO_REQUEST, {"dagster/backfill": "x", "dagster/sensor_name": "y"}, Requester("backfill x", "backfill")),
    ],
    ids=["ui", "command line", "sensor", "schedule", "backfill"],
)
def test_on_a_laptop_the_requester_is_the_operating_systems_user(
    settings: Settings, workspace: Any, tags: dict[str, str], requester: Requester
) -> None:
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        run = submitted(instance, workspace, tags)
        assert run.status is dg.DagsterRunStatus.QUEUED
        assert (run.tags[naming.TAG_BY], run.tags[naming.TAG_BY_KIND]) == (requester.name, requester.kind)


def test_a_coordinator_without_a_headers_name_is_refused_instead_of_trusting_everybody() -> None:
    with pytest.raises(RunRefused, match="identity_header is ''"):
        RunCoordinator(identity_header="")
    assert of_daemon({naming.TAG_BY: "ada"}) is None
    assert NOBODY.kind != "person"
