"""Which code locations Dagster's webserver could load."""

from __future__ import annotations

import httpx
from prometheus_client.core import GaugeMetricFamily, Metric

TIMEOUT_S = 4.0
LOADING = "it is being loaded"
QUERY = """
{ workspaceOrError { __typename ... on Workspace { locationEntries {
    name locationOrLoadError { __typename ... on PythonError { message causes { message } } }
} } } }
"""


def metrics(address: str) -> list[Metric]:
    """Ask a webserver, and return which of its code locations are loaded. One request."""
    about = "1 for a code location that is loaded, 0 for one that is not."
    loaded = GaugeMetricFamily("dagster_code_location_loaded", about, labels=["location"])
    for name, problem in problems(address).items():
        loaded.add_metric([name], float(problem is None))
    return [loaded]


def problems(address: str) -> dict[str, str | None]:
    """Return why each code location of a webserver is not loaded, None for one that is.

    Raises:
        ValueError: it cannot be asked, or has no workspace.
    """
    place = f"{address.rstrip('/')}/graphql"
    try:
        answer = httpx.post(place, json={"query": QUERY}, timeout=TIMEOUT_S).raise_for_status().json()
    except httpx.HTTPError as error:
        raise ValueError(f"Dagster's webserver, DRIFTLINE_DAGSTER_URL={address}, cannot be asked: {error}.") from error
    workspace = answer["data"]["workspaceOrError"]
    if workspace["__typename"] != "Workspace":
        raise ValueError(f"{address} has no workspace: {workspace['__typename']}.")
    found: dict[str, str | None] = {}
    for entry in workspace["locationEntries"]:
        known = entry["locationOrLoadError"] or {"__typename": LOADING}
        causes = [cause["message"] for cause in (known, *known.get("causes", ())) if "message" in cause]
        is_loaded = known["__typename"] == "RepositoryLocation"
        found[entry["name"]] = None if is_loaded else (causes or [known["__typename"]])[-1].strip()
    return found
