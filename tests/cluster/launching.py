"""Runs of `step_runs.py` as processes of their own, which a test may kill."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from kubernetes import client

from platform_assets.base.settings import REPOSITORY
from platform_assets.engine.outside import Work
from tests.cluster.launched_run import Request, Result
from tests.cluster.step_runs import WORK, StepRuns
from tests.cluster.waiting import wait_until

PATIENCE_S = 240.0
STEP = "tests.doubles.acting_step"
PROFILE = {
    "name": "cpu_small",
    "cores": 1,
    "memory_gb": 0.3,
    "shm_gb": 0.1,
    "usd_per_hour": 3600.0,
    "priced_on": "2026-11-01",
    "grace_s": 30.0,
    "schedule_timeout_s": 60.0,
}
"""A dollar a second: the ledger's price is the time that was paid for."""


@dataclass
class Run:
    """One run that waits for a step, as a process.

    Attributes:
        log: what the run has printed so far.
    """

    process: subprocess.Popen[bytes]
    result: Path
    log: Path

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, line: str) -> None:
        wait_until(lambda: line in self.text(), PATIENCE_S, f"the run's log has {line!r}", self.tail)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the run a signal, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def ended(self, patience_s: float = PATIENCE_S) -> Result:
        self.process.wait(patience_s)
        assert self.result.exists(), self.tail()
        return msgspec.json.decode(self.result.read_bytes(), type=Result)

    def tail(self) -> str:
        return self.text()[-6000:]


@dataclass
class Launching:
    """Runs of one namespace, as processes.

    Attributes:
        steps: the namespace, its accounts and its storage root.
    """

    steps: StepRuns
    folder: Path
    runs: list[Run] = field(default_factory=list)

    @property
    def core(self) -> client.CoreV1Api:
        """The core API, with the rights of an administrator."""
        return self.steps.pods.api

    @property
    def namespace(self) -> str:
        return self.steps.pods.namespace

    def start(
        self,
        *acts: str,
        module: str = STEP,
        extras: dict[str, Any] | None = None,
        profile: dict[str, Any] | None = None,
        patience_s: float = 120.0,
        work: Work = WORK,
        is_shared: bool = False,
        **settings: str,
    ) -> Run:
        """Start a run whose step does `acts`, one line per try; see `tests/doubles/acting_step.py`.

        Args:
            module: another step, which knows no acts.
            extras: more of its input.
            is_shared: whether the ranks of the profile share the step.
            work: another one; two runs of the same work share a pod.
            settings: more variables of the run.
        """
        path = self.folder / f"run-{len(self.runs)}"
        request = Request(
            work=work,
            profile=PROFILE | (profile or {}),
            module=module,
            extras={"acts": acts, "folder": self.steps.marks.url, **(extras or {})},
            patience_s=patience_s,
            result=str(path.with_suffix(".result")),
            is_shared=is_shared,
        )
        path.write_bytes(msgspec.json.encode(request))
        with path.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.launched_run", str(path)],
                cwd=REPOSITORY,
                env=self.steps.process_environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.runs.append(Run(process, path.with_suffix(".result"), path.with_suffix(".log")))
        return self.runs[-1]

    def run(self, *acts: str, **more: Any) -> Result:
        return self.start(*acts, **more).ended()

    def put(self, name: str) -> None:
        """Create the object for which a step waits."""
        self.steps.marks.touch(name)

    def pod(self, *, is_there: Callable[[Any], bool] = lambda _: True) -> str:
        """Return the name of the step's newest pod, once there is one that fulfils a condition."""
        pods: list[Any] = []

        def is_found() -> bool:
            items = self.core.list_namespaced_pod(self.namespace).items
            pods[:] = [item for item in items if item.metadata.deletion_timestamp is None and is_there(item)]
            return bool(pods)

        wait_until(is_found, PATIENCE_S, f"{self.namespace} has a pod", lambda: self.runs[-1].tail())
        return str(max(pods, key=lambda item: item.metadata.creation_timestamp).metadata.name)

    def close(self) -> None:
        """Kill the runs that are still there."""
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
