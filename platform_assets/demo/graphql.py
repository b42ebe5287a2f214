"""Launch and follow Dagster runs through the webserver's GraphQL, as its own UI does.

Belongs here: queries and the few values they return. How they are shown does not belong here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from platform_assets.problems import Problem

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
SENSOR = "dagster/sensor_name"

POLL_S = 0.5
TIMEOUT_S = 600.0
"""Launching a range run writes a planned event an asset and key before it answers: 1,000 of them in 15-60 s."""
CANCEL_S = 5.0

LOCATION = """
query DriftlineLocation { workspaceOrError { __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message }
    ... on RepositoryLocation { name repositories { name } } } } } } }
"""

LAUNCH = """
mutation DriftlineLaunch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message }
  ... on PipelineNotFoundError { message }
  ... on RunConflict { message }
  ... on InvalidSubsetError { message }
  ... on UnauthorizedError { message } } }
"""

STEPS = """
query DriftlineSteps($run: ID!) { runOrError(runId: $run) { __typename
  ... on Run { executionPlan { steps { key } } } } }
"""

EVENTS = """
query DriftlineEvents($run: ID!, $after: String) { logsForRun(runId: $run, afterCursor: $after, limit: 500) { __typename
  ... on RunNotFoundError { message }
  ... on PythonError { message }
  ... on EventConnection { cursor hasMore events { __typename
    ... on MessageEvent { message stepKey timestamp }
    ... on MaterializationEvent { partition assetKey { path } }
    ... on ExecutionStepFailureEvent { error { message causes { message } } }
    ... on RunFailureEvent { error { message causes { message } } } } } } }
"""

RUNS = """
query DriftlineRuns($filter: RunsFilter!, $limit: Int!) { runsOrError(filter: $filter, limit: $limit) { __typename
  ... on Runs { results { runId jobName status creationTime tags { key value } } }
  ... on InvalidPipelineRunsFilterError { message }
  ... on PythonError { message } } }
"""

CANCEL = """
mutation DriftlineCancel($run: String!) {
  terminateRun(runId: $run, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename } }
"""

UNDER_WAY = ("NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING")
ENDS = {"RunSuccessEvent": True, "RunFailureEvent": False, "RunCanceledEvent": False}


class DagsterProblem(Problem, RuntimeError):
    """An answer of the webserver that is no result; the message is its own."""


class RunFailed(DagsterProblem):
    """A run that ended without success; the message names step, reason and the run's address."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What one line of a run's event log says.

    Attributes:
        kind: its GraphQL type, such as `ExecutionStepSuccessEvent`.
        message: as the UI shows it.
        step: the step it belongs to, if any.
        asset: the asset's name without its product, for a materialisation.
        partition: of a materialisation.
    """

    kind: str
    message: str
    step: str | None
    asset: str | None = None
    partition: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the list of runs tells it.

    Attributes:
        id, job: whose.
        status: of GraphQL, such as `STARTED`.
        tags: all of them; the sensor that asked for it is `dagster/sensor_name`.
        created_s: seconds since 1970 by the webserver's clock.
    """

    id: str
    job: str
    status: str
    tags: Mapping[str, str]
    created_s: float

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return self.status in UNDER_WAY


class Dagster:
    """A running webserver and the one code location that it serves."""

    def __init__(self, address: str, transport: httpx.BaseTransport | None = None) -> None:
        """Point to a webserver.

        Args:
            address: such as `http://127.0.0.1:3000`.
            transport: in place of the network.
        """
        self.address = address.rstrip("/")
        self._client = httpx.Client(transport=transport)
        self.selector: dict[str, str] = {}
        """Names the code location and its repository, once `wait_for_location` has found them."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, **variables: Any) -> dict[str, Any]:
        """Return the data of one query; raise `DagsterProblem` when it is refused."""
        try:
            answer = self._client.post(
                f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=timeout_s
            )
        except httpx.HTTPError as error:
            raise DagsterProblem(f"{self.address}/graphql does not answer: {type(error).__name__}: {error}") from error
        if answer.is_error and "json" not in answer.headers.get("content-type", ""):
            raise DagsterProblem(f"{self.address}/graphql answered {answer.status_code}: {answer.text[:200]}")
        body = answer.json()
        if body.get("errors"):
            raise DagsterProblem(f"{self.address}/graphql refused a query: {body['errors'][0]['message']}")
        return body["data"]

    def wait_for_location(self, check: Callable[[], None], timeout_s: float) -> None:
        """Wait until the definitions are loaded; raise `DagsterProblem` when they do not load."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            check()
            workspace = self.ask(LOCATION)["workspaceOrError"]
            for entry in workspace.get("locationEntries") or ():
                location = entry["locationOrLoadError"]
                if location and location["__typename"] == "PythonError":
                    raise DagsterProblem(f"the definitions do not load: {location['message']}")
                if location and location["repositories"]:
                    self.selector = {
                        "repositoryLocationName": location["name"],
                        "repositoryName": location["repositories"][0]["name"],
                    }
                    return
            time.sleep(POLL_S)
        raise DagsterProblem(f"{self.address} did not load the definitions within {timeout_s:.0f} s.")

    def launch(self, job: str, tags: Mapping[str, str], run_config: Mapping[str, Any] | None = None) -> str:
        """Launch a job and return the run's id; raise `DagsterProblem` with the reason when it is refused."""
        params = {
            "selector": {**self.selector, "jobName": job},
            "runConfigData": dict(run_config or {}),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        result = self.ask(LAUNCH, params=params)["launchRun"]
        if result["__typename"] != "LaunchRunSuccess":
            why = result.get("message") or "; ".join(error["message"] for error in result.get("errors", ()))
            raise DagsterProblem(f"job {job} was not launched: {result['__typename']}: {why}")
        return result["run"]["runId"]

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        """Return runs, the newest first.

        Args:
            job: only this job's.
            limit: how many at most.
        """
        answer = self.ask(RUNS, filter={"pipelineName": job} if job else {}, limit=limit)["runsOrError"]
        if answer["__typename"] != "Runs":
            raise DagsterProblem(f"the runs cannot be listed: {answer.get('message', answer['__typename'])}")
        return [
            Run(
                id=run["runId"],
                job=run["jobName"],
                status=run["status"],
                tags={tag["key"]: tag["value"] for tag in run["tags"]},
                created_s=run["creationTime"],
            )
            for run in answer["results"]
        ]

    def run_address(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{self.address}/runs/{run}"

    def steps(self, run: str) -> list[str]:
        """Return the keys of the steps that a run plans, in order."""
        plan = self.ask(STEPS, run=run)["runOrError"].get("executionPlan")
        return [step["key"] for step in plan["steps"]] if plan else []

    def cancel(self, run: str) -> None:
        """Have a run stopped and marked as cancelled, so that no daemon ever tries it again; nothing if it is over."""
        self.ask(CANCEL, run=run, timeout_s=CANCEL_S)

    def follow(self, run: str, check: Callable[[], None]) -> Iterator[Event]:
        """Yield a run's events as they come, until it has succeeded.

        Args:
            run: its id.
            check: called at every poll; raises when following has become useless.

        Raises:
            RunFailed: when the run failed or was cancelled.
        """
        cursor, failures = None, []
        while True:
            check()
            page = self.ask(EVENTS, run=run, after=cursor)["logsForRun"]
            if page["__typename"] != "EventConnection":
                raise DagsterProblem(f"run {run}: {page.get('message', page['__typename'])}")
            for event in page["events"]:
                yield _event(event)
                if event["__typename"] == "ExecutionStepFailureEvent" and event["error"]:
                    failures.append(f"step {event['stepKey']}: {_reason(event['error'])}")
                is_success = ENDS.get(event["__typename"])
                if is_success:
                    return
                if is_success is False:
                    reasons = failures or [_reason(event["error"]) if event.get("error") else event["message"]]
                    raise RunFailed(f"{reasons[0]}\nThe run and its log: {self.run_address(run)}")
            cursor = page["cursor"]
            if not page["hasMore"]:
                time.sleep(POLL_S)


def _event(event: Mapping[str, Any]) -> Event:
    asset = event.get("assetKey")
    return Event(
        kind=event["__typename"],
        message=event.get("message", ""),
        step=event.get("stepKey"),
        asset=asset["path"][-1] if asset else None,
        partition=event.get("partition"),
    )


def _reason(error: Mapping[str, Any]) -> str:
    """Return the innermost message: Dagster wraps what an asset raised."""
    causes = error.get("causes") or ()
    return (causes[-1] if causes else error)["message"].strip()
