"""Dagster's API, asked as the UI asks it."""

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.waiting import wait_until

LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


def ask(webserver: str, query: str, **variables: Any) -> dict[str, Any]:
    """Ask, and return the data of the answer.

    Raises:
        RuntimeError: the answer has errors.
    """
    place = urlsplit(webserver)
    body = json.dumps({"query": query, "variables": variables})
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)) as connection:
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    if "errors" in answer:
        raise RuntimeError(answer["errors"])
    return dict(answer["data"])


def launch(webserver: str, job: str, tags: Mapping[str, str], patience_s: float) -> str:
    """Start a run by the UI's own request, and return its id."""
    params = {
        "selector": selector(job),
        "executionMetadata": {"tags": [{"key": name, "value": value} for name, value in tags.items()]},
    }
    results: list[dict[str, Any]] = []

    def is_launched() -> bool:
        # A webserver that has just started may not have loaded the code server's jobs yet.
        results.append(ask(webserver, LAUNCH, params=params)["launchRun"])
        return bool(results[-1]["__typename"] == "LaunchRunSuccess")

    wait_until(is_launched, patience_s, f"a run of {job} is launched", lambda: str(results[-1]))
    return str(results[-1]["run"]["runId"])


def status(webserver: str, run: str) -> str:
    return str(ask(webserver, STATUS, run=run)["runOrError"]["status"])


def selector(job: str) -> dict[str, str]:
    """Return a job of the platform, as the UI names it."""
    return {"repositoryLocationName": "driftline", "repositoryName": "__repository__", "jobName": job}
