"""Runs are watched in the storage of a real Dagster, and the webserver's errors become plain messages."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.events import EngineEventData
from dagster._utils.error import SerializableErrorInfo

from platform_assets.demo import runs
from platform_assets.demo.runs import Dagster, DagsterProblem, RunFailed


@dg.asset(key=["tiny", "features"], partitions_def=dg.StaticPartitionsDefinition(["0001", "0002"]))
def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log.info("epoch 1 of 2")
    return dg.MaterializeResult()


@dg.asset(key=["tiny", "broken"])
def broken() -> None:
    try:
        raise FileNotFoundError("no file")
    except FileNotFoundError as problem:
        raise dg.Failure("the landing is empty") from problem


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def dagster(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Dagster]:
    client = Dagster("http://dagster.test/", tmp_path)
    yield client
    client.close()


def _answering(*answers: dict[str, Any]) -> Dagster:
    waiting = list(answers)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": waiting.pop(0)}))
    return Dagster("http://dagster.test", Path("unused"), transport)


def _location(content: dict[str, Any] | None) -> dict[str, Any]:
    return {"workspaceOrError": {"locationEntries": [{"locationOrLoadError": content}]}}


def _no_check() -> None:
    return


def _run_of(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, **options: Any) -> str:
    return dg.materialize([asset], instance=instance, raise_on_error=False, **options).run_id


def test_query_is_valid_for_the_installed_webserver():
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    assert validate(create_schema().graphql_schema, parse(runs.LOCATION)) == []


def test_definitions_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "POLL_S", 0.0)
    loaded = {"repositories": [{"name": "__repository__"}]}
    _answering({"workspaceOrError": {}}, _location(None), _location(loaded)).wait_for_location(_no_check, timeout_s=60)


def test_definitions_that_do_not_load_are_reported_with_their_error():
    dagster = _answering(_location({"message": "no module"}))
    with pytest.raises(DagsterProblem, match="the definitions do not load: no module"):
        dagster.wait_for_location(_no_check, timeout_s=60)


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (lambda request: httpx.Response(200, json={"errors": [{"message": "no such field"}]}), "no such field"),
        (lambda request: httpx.Response(502, text="bad gateway"), "answered 502: bad gateway"),
    ],
)
def test_response_without_a_result_is_an_error(handle: Callable[[httpx.Request], httpx.Response], message: str):
    dagster = Dagster("http://dagster.test", Path("unused"), httpx.MockTransport(handle))
    with pytest.raises(DagsterProblem, match=message):
        dagster.wait_for_location(_no_check, timeout_s=60)


def test_missing_webserver_is_an_error():
    with pytest.raises(DagsterProblem, match="does not answer: ConnectError"):
        Dagster("http://127.0.0.1:9", Path("unused")).wait_for_location(_no_check, timeout_s=60)


def test_a_run_is_waited_for(dagster: Dagster, instance: dg.DagsterInstance):
    dagster.wait_for_run(_run_of(features, instance, partition_key="0001"), _no_check)


def test_runs_are_listed_newest_first_with_their_launcher(dagster: Dagster, instance: dg.DagsterInstance):
    first = _run_of(features, instance, partition_key="0001", tags={runs.SENSOR: "landings"})
    job = dg.Definitions(assets=[broken], jobs=[dg.define_asset_job("advance__tiny")]).resolve_job_def("advance__tiny")
    last = instance.create_run_for_job(job)
    newest, oldest = dagster.runs(limit=2)
    assert (newest.id, newest.job, newest.is_under_way) == (last.run_id, "advance__tiny", True)
    assert (oldest.id, oldest.is_under_way, oldest.tags[runs.SENSOR]) == (first, False, "landings")
    assert [run.id for run in dagster.runs(job="advance__tiny")] == [last.run_id]
    dagster.cancel(last.run_id)
    dagster.cancel(last.run_id)
    assert not dagster.runs(job="advance__tiny")[0].is_under_way
    with pytest.raises(RunFailed, match=rf"(?s).*http://dagster\.test/runs/{last.run_id}"):
        dagster.wait_for_run(last.run_id, _no_check)


def test_failed_run_names_step_reason_and_address(dagster: Dagster, instance: dg.DagsterInstance):
    run = _run_of(broken, instance)
    expected = rf"(?s)step tiny__broken: FileNotFoundError: no file.*http://dagster\.test/runs/{run}"
    with pytest.raises(RunFailed, match=expected):
        dagster.wait_for_run(run, _no_check)


def _marked(instance: dg.DagsterInstance, how: str) -> str:
    """Leave a run that Dagster marked as failed, as its daemon, its code server or its launcher does."""
    job = dg.Definitions(assets=[broken], jobs=[dg.define_asset_job("advance__tiny")]).resolve_job_def("advance__tiny")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    if how == "launcher":
        error = SerializableErrorInfo("OSError: no process left\n", [], "OSError")
        instance.report_engine_event("the launch failed", run, EngineEventData.engine_error(error))
    elif how == "code server":
        instance.report_engine_event("Run execution process exited with exit code -9", run)
    instance.report_run_failed(run, "Exceeded maximum runtime of 5 seconds." if how == "monitor" else None)
    instance.report_engine_event("Process for run exited", run)
    return run.run_id


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("launcher", "OSError: no process left"),
        ("code server", "Run execution process exited with exit code -9"),
        ("monitor", "Exceeded maximum runtime of 5 seconds."),
        ("nobody", "This run has been marked as failed from outside the execution context."),
    ],
)
def test_run_that_dagster_marked_as_failed_names_the_reason(
    dagster: Dagster, instance: dg.DagsterInstance, how: str, reason: str
):
    run = _marked(instance, how)
    with pytest.raises(RunFailed, match=rf"(?s)^{re.escape(reason)}.*http://dagster\.test/runs/{run}"):
        dagster.wait_for_run(run, _no_check)


def test_waiting_for_a_run_ends_when_a_server_is_gone(dagster: Dagster):
    def server_gone() -> None:
        raise ChildProcessError("the daemon ended")

    with pytest.raises(ChildProcessError):
        dagster.wait_for_run("r1", server_gone)
