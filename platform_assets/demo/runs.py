"""Watch Dagster's runs in the storage that webserver and daemon share.

One thing is asked of the webserver's GraphQL: whether the definitions are loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec

from platform_assets.automation import failed_runs
from platform_assets.base.problems import Problem

if TYPE_CHECKING:
    from dagster import DagsterInstance

SENSOR = "dagster/sensor_name"
POLL_S = 0.5
TIMEOUT_S = 600.0
LOCATION = """
query DriftlineLocation { workspaceOrError {
  ... on Workspace { locationEntries { locationOrLoadError {
    ... on PythonError { message }
    ... on RepositoryLocation { repositories { name } } } } } } }
"""


class DagsterProblem(Problem, RuntimeError):
    """An error of the webserver, in its own words."""


class RunFailed(DagsterProblem):
    """A run failed; the message names step, reason and the run's address."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run; the sensor that asked for it stands in its tags."""

    id: str
    job: str
    is_under_way: bool
    tags: Mapping[str, str]


class _Location(msgspec.Struct):
    """A code location, or an error."""

    message: str | None = None
    repositories: list[msgspec.Raw] = []


class _Entry(msgspec.Struct, rename="camel"):
    location_or_load_error: _Location | None


class _Workspace(msgspec.Struct, rename="camel"):
    location_entries: list[_Entry] = []


class _Data(msgspec.Struct, rename="camel"):
    workspace_or_error: _Workspace


class _Answer(msgspec.Struct):
    data: _Data | None = None
    errors: list[_Location] = []


class Dagster:
    """A running webserver, and the storage that it shows."""

    def __init__(self, address: str, home: Path, transport: httpx.BaseTransport | None = None) -> None:
        """Point to a webserver.

        Args:
            address: such as `http://127.0.0.1:3000`.
            home: Dagster's home; opened by the first request about runs.
            transport: replaces the network in tests.
        """
        self.address = address.rstrip("/")
        self._home = home
        self._client = httpx.Client(transport=transport, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close connections and storage."""
        self._client.close()
        if "_instance" in vars(self):
            self._instance.dispose()

    @cached_property
    def _instance(self) -> DagsterInstance:
        from dagster import DagsterInstance

        return DagsterInstance.from_config(str(self._home))

    def wait_for_location(self, check: Callable[[], None], timeout_s: float) -> None:
        """Wait until the definitions are loaded; raise `DagsterProblem` when they do not load."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            check()
            for entry in self._workspace().location_entries:
                location = entry.location_or_load_error
                if location and location.message is not None:
                    raise DagsterProblem(f"the definitions do not load: {location.message}")
                if location and location.repositories:
                    return
            time.sleep(POLL_S)
        log = self._home.parent / "logs" / "dagster.log"
        raise DagsterProblem(f"{self.address} did not load the definitions within {timeout_s:.0f} s; {log} says why.")

    def _workspace(self) -> _Workspace:
        place = f"{self.address}/graphql"
        try:
            response = self._client.post(place, json={"query": LOCATION})
        except httpx.HTTPError as error:
            raise DagsterProblem(f"{place} does not answer: {type(error).__name__}: {error}") from error
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
        except msgspec.MsgspecError as error:
            raise DagsterProblem(f"{place} answered {response.status_code}: {response.text[:200]}") from error
        reasons = [error.message or "no reason" for error in answer.errors]
        if answer.data is None or reasons:
            raise DagsterProblem(f"{place} refused a query: {'; '.join(reasons) or 'no data'}")
        return answer.data.workspace_or_error

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        """Return runs, the newest first.

        Args:
            job: only this job's.
            limit: how many at most.
        """
        from dagster import RunsFilter

        runs = self._instance.get_runs(RunsFilter(job_name=job), limit=limit)
        return [Run(id=run.run_id, job=run.job_name, is_under_way=not run.is_finished, tags=run.tags) for run in runs]

    def run_address(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{self.address}/runs/{run}"

    def cancel(self, run: str) -> None:
        """Have a run stopped and marked as cancelled, so that no daemon ever tries it again; nothing if it is over."""
        from dagster import DagsterError

        with suppress(DagsterError):  # the code server may have ended, and its runs with it
            self._instance.run_coordinator.cancel_run(run)
        current = self._instance.get_run_by_id(run)
        if current is not None and not current.is_finished:
            self._instance.report_run_canceled(current)

    def wait_for_run(self, run: str, check: Callable[[], None]) -> None:
        """Wait until a run has succeeded.

        Args:
            run: its id.
            check: called at every look; raises when waiting has become useless.

        Raises:
            RunFailed: when the run failed or was cancelled.
        """
        while (current := self._instance.get_run_by_id(run)) is None or not current.is_finished:
            check()
            time.sleep(POLL_S)
        if not current.is_success:
            step, reason = failed_runs.cause(self._instance, run)
            at_step = f"step {step}: " if step else ""
            raise RunFailed(f"{at_step}{reason}\nThe run and its log: {self.run_address(run)}")
