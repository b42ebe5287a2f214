"""Dagster's API, asked as the UI asks it."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

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


def status(webserver: str, run: str) -> str:
    """Return the status of a run."""
    return str(ask(webserver, STATUS, run=run)["runOrError"]["status"])


def selector(job: str) -> dict[str, str]:
    """Return a job of the platform, as the UI names it."""
    return {"repositoryLocationName": "driftline", "repositoryName": "__repository__", "jobName": job}
