"""Which code locations Dagster's webserver could load."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.core import GaugeMetricFamily, Metric

TIMEOUT_S = 4.0
QUERY = """
{ workspaceOrError { __typename ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }
"""


@dataclass(frozen=True)
class OfLocations:
    """The code locations of a webserver.

    Attributes:
        address: of the webserver.
    """

    address: str

    def __call__(self) -> list[Metric]:
        """Ask the webserver. One request."""
        place = f"{self.address.rstrip('/')}/graphql"
        answer = httpx.post(place, json={"query": QUERY}, timeout=TIMEOUT_S).raise_for_status().json()
        workspace = answer["data"]["workspaceOrError"]
        if workspace["__typename"] != "Workspace":
            raise ValueError(f"{self.address} has no workspace: {workspace['__typename']}.")
        loaded = GaugeMetricFamily(
            "dagster_code_location_loaded",
            "1 for a code location that is loaded, 0 for one that is not.",
            labels=["location"],
        )
        for entry in workspace["locationEntries"]:
            kind = (entry["locationOrLoadError"] or {}).get("__typename")
            loaded.add_metric([entry["name"]], float(kind == "RepositoryLocation"))
        return [loaded]
