"""The queries fit the installed Dagster, and what comes back is told plainly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from platform_assets.demo import graphql
from platform_assets.demo.graphql import Dagster, DagsterProblem, RunFailed


def _answering(*answers: dict[str, Any], seen: list[dict[str, Any]] | None = None) -> Dagster:
    waiting = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(json.loads(request.content))
        return httpx.Response(200, json={"data": waiting.pop(0)})

    return Dagster("http://dagster.test", httpx.MockTransport(handle))


def _page(*events: dict[str, Any], has_more: bool = True) -> dict[str, Any]:
    whole = [{"message": "", "stepKey": None, **event} for event in events]
    return {"logsForRun": {"__typename": "EventConnection", "cursor": "1", "hasMore": has_more, "events": whole}}


def _location(content: dict[str, Any] | None) -> dict[str, Any]:
    return {"workspaceOrError": {"__typename": "Workspace", "locationEntries": [{"locationOrLoadError": content}]}}


LOADED = {"__typename": "RepositoryLocation", "name": "driftline", "repositories": [{"name": "__repository__"}]}


def _nothing() -> None:
    return


@pytest.mark.parametrize("name", ["LOCATION", "LAUNCH", "STEPS", "EVENTS", "RUNS", "CANCEL"])
def test_query_is_valid_for_the_installed_webserver(name: str):
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    assert validate(create_schema().graphql_schema, parse(getattr(graphql, name))) == []


def test_every_end_of_a_run_is_known_to_the_installed_webserver():
    from dagster_graphql.schema import create_schema

    kinds = {kind.name for kind in create_schema().graphql_schema.type_map["DagsterRunEvent"].types}
    assert set(graphql.ENDS) <= kinds


def test_job_is_launched_in_the_location_that_was_loaded():
    seen: list[dict[str, Any]] = []
    launched = {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}}
    dagster = _answering(_location(None), _location(LOADED), launched, seen=seen)
    dagster.wait_for_location(_nothing, timeout_s=60)
    assert dagster.launch("advance__tiny", {graphql.RANGE_START: "1", graphql.RANGE_END: "2"}) == "r1"
    params = seen[-1]["variables"]["params"]
    assert params["selector"] == {
        "repositoryLocationName": "driftline",
        "repositoryName": "__repository__",
        "jobName": "advance__tiny",
    }
    assert params["executionMetadata"]["tags"] == [
        {"key": "dagster/asset_partition_range_start", "value": "1"},
        {"key": "dagster/asset_partition_range_end", "value": "2"},
    ]


def test_definitions_that_do_not_load_are_told_with_their_error():
    dagster = _answering(_location({"__typename": "PythonError", "message": "no module"}))
    with pytest.raises(DagsterProblem, match="the definitions do not load: no module"):
        dagster.wait_for_location(_nothing, timeout_s=60)


def test_refused_launch_tells_why():
    refusal = {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "missing digest"}]}
    with pytest.raises(
        DagsterProblem, match="job release__tiny was not launched: RunConfigValidationInvalid: missing digest"
    ):
        _answering({"launchRun": refusal}).launch("release__tiny", {})


def test_events_are_followed_over_pages_until_success(monkeypatch):
    monkeypatch.setattr(graphql, "POLL_S", 0.0)
    made = {"__typename": "MaterializationEvent", "assetKey": {"path": ["tiny", "features"]}, "partition": "0001"}
    dagster = _answering(_page(made), _page(has_more=False), _page({"__typename": "RunSuccessEvent"}))
    first, last = dagster.follow("r1", _nothing)
    assert (first.asset, first.partition) == ("features", "0001")
    assert last.kind == "RunSuccessEvent"


def test_runs_are_listed_with_who_launched_them():
    seen: list[dict[str, Any]] = []
    run = {"runId": "r1", "jobName": "advance__tiny", "status": "STARTED", "creationTime": 5.0}
    tags = [{"key": graphql.SENSOR, "value": "landings"}]
    dagster = _answering({"runsOrError": {"__typename": "Runs", "results": [{**run, "tags": tags}]}}, seen=seen)
    (found,) = dagster.runs(job="advance__tiny", limit=3)
    assert (found.id, found.is_under_way, found.tags) == ("r1", True, {graphql.SENSOR: "landings"})
    assert seen[0]["variables"] == {"filter": {"pipelineName": "advance__tiny"}, "limit": 3}


def test_runs_that_cannot_be_listed_are_an_error():
    refusal = {"runsOrError": {"__typename": "PythonError", "message": "no storage"}}
    with pytest.raises(DagsterProblem, match="the runs cannot be listed: no storage"):
        _answering(refusal).runs()


def test_states_under_way_are_known_to_the_installed_dagster():
    from dagster import DagsterRunStatus

    others = {"SUCCESS", "FAILURE", "CANCELED", "MANAGED", "SUSPENDED"}
    assert set(graphql.UNDER_WAY) == {status.value for status in DagsterRunStatus} - others


def test_failed_run_names_step_reason_and_address():
    wrapped = {"message": "Error occurred while executing op", "causes": [{"message": "dagster.Failure: no file"}]}
    failed = {"__typename": "ExecutionStepFailureEvent", "stepKey": "tiny__raw_facts", "error": wrapped}
    dagster = _answering(_page(failed, {"__typename": "RunFailureEvent", "error": None}))
    expected = r"(?s)step tiny__raw_facts: dagster\.Failure: no file.*http://dagster\.test/runs/r1"
    with pytest.raises(RunFailed, match=expected):
        list(dagster.follow("r1", _nothing))


def test_cancelled_run_is_no_success():
    dagster = _answering(_page({"__typename": "RunCanceledEvent", "message": "cancelled by ada"}))
    with pytest.raises(RunFailed, match="cancelled by ada"):
        list(dagster.follow("r1", _nothing))


def test_following_ends_when_a_server_is_gone():
    def gone() -> None:
        raise ChildProcessError("the daemon ended")

    with pytest.raises(ChildProcessError):
        list(_answering().follow("r1", gone))


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (lambda request: httpx.Response(200, json={"errors": [{"message": "no such field"}]}), "no such field"),
        (lambda request: httpx.Response(502, text="bad gateway"), "answered 502: bad gateway"),
    ],
)
def test_answer_that_is_no_result_is_an_error(handle: Callable[[httpx.Request], httpx.Response], words: str):
    with pytest.raises(DagsterProblem, match=words):
        Dagster("http://dagster.test", httpx.MockTransport(handle)).ask("query { version }")


def test_webserver_that_is_not_there_is_an_error():
    with pytest.raises(DagsterProblem, match="does not answer: ConnectError"):
        Dagster("http://127.0.0.1:9").ask("query { version }")
