"""Runs that launch steps as pods, as processes that a test may kill; `step_runs.py` runs them in the test itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import msgspec
import yaml
from botocore.config import Config
from kubernetes import client

from platform_assets.settings import REPOSITORY
from resources.launchers import Work
from tests.cluster import spaces
from tests.cluster.launched_run import Request, Result
from tests.cluster.waiting import wait_until

PATIENCE_S = 240.0
STEP = "tests.doubles.acting_step"
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
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
        """Return the run's log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, line: str) -> None:
        """Wait until the log has a line with this text."""
        wait_until(lambda: line in self.text(), PATIENCE_S, f"the run's log has {line!r}", self.tail)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the run a signal, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def ended(self, patience_s: float = PATIENCE_S) -> Result:
        """Return how the step ended, once the run is over."""
        self.process.wait(patience_s)
        assert self.result.exists(), self.tail()
        return msgspec.json.decode(self.result.read_bytes(), type=Result)

    def tail(self) -> str:
        return self.text()[-6000:]


@dataclass
class Launching:
    """Runs of one namespace.

    Attributes:
        core: with the rights of an administrator.
        settings: variables of the runs.
    """

    core: client.CoreV1Api
    namespace: str
    folder: Path
    settings: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    def start(
        self,
        *acts: str,
        module: str = STEP,
        profile: dict[str, Any] | None = None,
        patience_s: float = 120.0,
        **settings: str,
    ) -> Run:
        """Start a run whose step does `acts`, one line per try; see `tests/doubles/acting_step.py`.

        Args:
            module: another step, which knows no acts and finds its test's marks.
            settings: more variables of the run.
        """
        path = self.folder / f"run-{len(self.runs)}"
        bucket, folder = self._place()
        place = {"folder": folder, "bucket": bucket} if module == STEP else {"folder": f"s3://{bucket}/{folder}"}
        extras = {"acts": acts, **place}
        request = Request(
            work=WORK,
            profile=PROFILE | (profile or {}),
            module=module,
            extras=extras,
            patience_s=patience_s,
            result=str(path.with_suffix(".result")),
        )
        path.write_bytes(msgspec.json.encode(request))
        with path.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.launched_run", str(path)],
                cwd=REPOSITORY,
                env=self.environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.runs.append(Run(process, path.with_suffix(".result"), path.with_suffix(".log")))
        return self.runs[-1]

    def run(self, *acts: str, **more: Any) -> Result:
        """Run a step to its end."""
        return self.start(*acts, **more).ended()

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a run."""
        inherited = {name: value for name, value in spaces.environment().items() if not name.startswith("DRIFTLINE_")}
        return {**inherited, **self.settings, **more}

    def put(self, name: str) -> None:
        """Create the object for which a step waits."""
        bucket, folder = self._place()
        keys = {f"{name.lower()}": self.settings[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        address, config = self.settings["AWS_ENDPOINT_URL"], Config(proxies={})
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1", config=config, **keys)
        s3.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=b"")

    def _place(self) -> tuple[str, str]:
        """Return the bucket and the folder in it that steps and tests write to."""
        bucket, _, folder = self.settings["DRIFTLINE_ROOT"].removeprefix("s3://").partition("/")
        return bucket, f"{folder}/marks"

    def pod(self, *, is_there: Callable[[Any], bool] = lambda _: True) -> str:
        """Return the name of the step's newest pod, once there is one that fulfils a condition."""
        found: list[Any] = []

        def is_found() -> bool:
            items = self.core.list_namespaced_pod(self.namespace).items
            found[:] = [item for item in items if item.metadata.deletion_timestamp is None and is_there(item)]
            return bool(found)

        wait_until(is_found, PATIENCE_S, f"{self.namespace} has a pod", lambda: self.runs[-1].tail())
        return str(max(found, key=lambda item: item.metadata.creation_timestamp).metadata.name)

    def wait_until_gone(self) -> None:
        """Wait until no pod is left."""
        wait_until(
            lambda: not self.core.list_namespaced_pod(self.namespace).items,
            PATIENCE_S,
            f"{self.namespace} has no pods",
        )

    def close(self) -> None:
        """Kill the runs that are still there."""
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()


def write_kubeconfig(path: Path, configuration: client.Configuration) -> None:
    """Write address and token of an account as a kubeconfig."""
    server = {"server": configuration.host, "certificate-authority": configuration.ssl_ca_cert}
    token = configuration.api_key["authorization"].removeprefix("Bearer ")
    context = {"cluster": "tests", "user": "run"}
    config = {
        "clusters": [{"name": "tests", "cluster": server}],
        "users": [{"name": "run", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": context}],
        "current-context": "tests",
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
