"""Daemon and webserver use each right that they have, and a right that is missing is named.

Dagster's launcher of runs works here with the account of either. The pod of a run ends at once, without a word to
Dagster: its image has a shell alone.
"""

import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.client import DagsterK8sUnrecoverableAPIError
from kubernetes import client

from tests.cluster import accounts, run_launcher
from tests.cluster.cluster import Cluster
from tests.cluster.requirements import KUBECONFIG
from tests.cluster.rights import DAEMON, REASONS, WEBSERVER, Right, granted, used
from tests.cluster.waiting import wait_until

ENDED_S = 120.0
JOB = "job-name=dagster-run-{run}"


@dataclass
class Runs:
    """Runs that an account launches, explains and ends.

    Attributes:
        run: the last one.
    """

    cluster: Cluster
    namespace: str
    instance: dg.DagsterInstance
    launcher: K8sRunLauncher
    run: DagsterRun | None = None

    @property
    def last(self) -> DagsterRun:
        assert self.run is not None
        return self.run

    def launch(self, stage: str = "features", **claims: Any) -> None:
        self.run = run_launcher.launch(self.launcher, self.instance, stage, **claims)

    def check(self) -> str:
        return str(self.launcher.check_run_worker_health(self.last))

    def explain(self) -> str:
        return self.launcher.get_run_worker_debug_info(self.last) or ""

    def explain_without_pod(self) -> str:
        """Explain it when nothing but the Job is left."""
        selector = JOB.format(run=self.last.run_id)
        self.cluster.core.delete_collection_namespaced_pod(self.namespace, label_selector=selector)
        wait_until(lambda: not self.pods(), ENDED_S, "its pod is gone")
        return self.explain()

    def end(self) -> str:
        """Terminate it, and return what its page says of that."""
        self.launcher.terminate(self.last.run_id)
        entries = self.instance.all_logs(self.last.run_id)
        errors = [
            entry.dagster_event.engine_event_data.error
            for entry in entries
            if entry.dagster_event and entry.dagster_event.is_engine_event
        ]
        return "\n".join([*(entry.message for entry in entries), *map(str, errors)])

    def pods(self) -> list[client.V1Pod]:
        selector = JOB.format(run=self.last.run_id)
        return list(self.cluster.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def wait_for_end(self) -> None:
        wait_until(
            lambda: [pod.status.phase for pod in self.pods()] == ["Failed"],
            ENDED_S,
            "its pod has failed",
            lambda: str([pod.status for pod in self.pods()]),
        )


@pytest.fixture
def launching(
    reachable: Cluster, namespace: str, granted: None, shell: str, tmp_path: Path
) -> Iterator[Callable[[str], Runs]]:
    run_launcher.prepare(reachable.core, namespace)
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:

        def of(account: str) -> Runs:
            launcher = run_launcher.launcher_of(reachable, namespace, account, shell, tmp_path, instance)
            return Runs(reachable, namespace, instance, launcher)

        yield of


@pytest.fixture
def daemon(launching: Callable[[str], Runs]) -> Runs:
    """A run of the daemon's whose pod has ended without a word."""
    runs = launching(DAEMON)
    runs.launch()
    runs.wait_for_end()
    return runs


def test_the_daemon_uses_every_right_to_start_watch_explain_and_end_runs(daemon: Runs) -> None:
    wait_until(lambda: daemon.check().startswith("FAILED"), ENDED_S, "its Job has failed", daemon.check)
    assert "python: not found" in daemon.explain()
    assert "BackoffLimitExceeded" in daemon.explain_without_pod()
    daemon.launch()
    daemon.wait_for_end()
    assert "Run was terminated successfully." in daemon.end()
    assert _used(daemon) >= {right for right in granted() if right.account == DAEMON}


def test_the_webserver_uses_every_right_to_end_a_run(daemon: Runs, launching: Callable[[str], Runs]) -> None:
    webserver = launching(WEBSERVER)
    webserver.run = daemon.run
    assert "Run was terminated successfully." in webserver.end()
    assert daemon.pods() == [] or all(pod.metadata.deletion_timestamp for pod in daemon.pods())
    assert _used(webserver) >= {right for right in granted() if right.account == WEBSERVER}


@pytest.mark.parametrize(
    "right",
    sorted(right for right in REASONS if right.account in (DAEMON, WEBSERVER)),
    ids=lambda right: f"{right.account} {right.verb} {right.resource}",
)
def test_a_right_that_is_missing_is_named(
    right: Right, daemon: Runs, launching: Callable[[str], Runs], caplog: pytest.LogCaptureFixture
) -> None:
    runs = launching(right.account)
    runs.run = daemon.run
    accounts.revoke(daemon.cluster, daemon.namespace, right)
    with caplog.at_level(logging.INFO):
        text = _outcome(ACTS[right.verb, right.resource], runs)
    resource, _, subresource = right.resource.partition("/")
    name = f"{resource}/{subresource}" if subresource else resource
    assert f'cannot {right.verb} resource \\"{name}\\"' in f"{text}{caplog.text}", (text, caplog.text)


ACTS: dict[tuple[str, str], Callable[[Runs], object]] = {
    ("create", "jobs"): Runs.launch,
    ("get", "jobs/status"): Runs.check,
    ("list", "jobs"): Runs.explain_without_pod,
    ("list", "pods"): Runs.end,
    ("get", "pods/log"): Runs.explain,
    ("list", "events"): Runs.explain,
    ("delete", "jobs"): Runs.end,
    ("delete", "pods"): Runs.end,
}
"""What needs a right."""


def _outcome(act: Callable[[Runs], object], runs: Runs) -> str:
    """Return what an act says, or the error with which it ends: the daemon logs it, the webserver shows it."""
    try:
        return str(act(runs))
    except (client.ApiException, DagsterK8sUnrecoverableAPIError) as problem:
        return "".join(traceback.format_exception(problem))


def _used(runs: Runs) -> set[Right]:
    if runs.cluster.control is None:
        pytest.skip(f"the audit log of the cluster in {KUBECONFIG} is not ours to read")
    return {right for right, _ in used(runs.cluster.control.folder / "audit.log", [runs.namespace])}
