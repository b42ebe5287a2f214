"""Run steps as pods of the cluster, by the launcher, which is a process outside of the nodes."""

# Annotations are not postponed: Dagster compares that of `context` as an object.

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
from kubernetes import client

from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.attempt import begin, prepare
from platform_assets.launch.endings import Try
from platform_assets.launch.launchers import StepLauncher
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from tests.cluster.accounts import write_kubeconfig
from tests.cluster.pods import Pods
from tests.cluster.waiting import wait_until
from tests.doubles.marks import BucketMarks

STEP = "tests.doubles.step"
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
SMALL = StepProfile(
    name="cpu_small",
    cores=1,
    memory_gb=0.5,
    shm_gb=0.05,
    usd_per_hour=0.08,
    priced_on="2026-11-01",
    grace_s=30,
    schedule_timeout_s=30,
)
STARTED_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """A run that has ended.

    Attributes:
        result: of its step.
        lines: all messages of the run.
    """

    result: Mapping[str, Any]
    lines: Sequence[str]


def pod_of(settings: Settings, plan: Try, work: Work = WORK, attempt: str | None = None, **more: Any) -> Any:
    """Return the pod that the launcher makes of an attempt whose run nobody knows."""
    facts = begin(work, plan, run_id="unknown", launcher="kubernetes")
    prepared = prepare(settings.root, msgspec.structs.replace(facts, id=attempt or facts.id))
    return manifest.pod(settings, "platform_assets.launch.train", plan, prepared, {}, **more)


def run_step(
    launcher: KubernetesLauncher,
    folder: str,
    ends: Sequence[str],
    profile: StepProfile = SMALL,
    work: Work | None = WORK,
) -> Outcome:
    """Run the double of a step to its end; its tries end as `ends` say, and the last of them for ever."""

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": folder, "ends": list(ends)}
        result = launcher.run(context=context, module=STEP, extras=extras, profile=profile, work=work)
        return dg.MaterializeResult(metadata=result)

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([waits], resources={"launcher": launcher}, instance=instance)
        lines = [event.message for event in instance.all_logs(done.run_id)]
    (event,) = done.asset_materializations_for_node("waits")
    return Outcome({name: value.value for name, value in event.metadata.items()}, lines)


@dataclass
class StepRuns:
    """Runs of steps in one namespace, with one storage root on S3.

    Attributes:
        configuration: address and credentials of the launcher's account.
        environment: variables for a process that runs a launcher of its own.
    """

    pods: Pods
    settings: Settings
    configuration: client.Configuration
    environment: Mapping[str, str]
    marks: BucketMarks = field(init=False)

    def __post_init__(self) -> None:
        self.marks = BucketMarks(f"{self.settings.root}/marks")

    def launcher(
        self, type_: type[KubernetesLauncher] = KubernetesLauncher, *, patience_s: float = 60.0, **settings: Any
    ) -> KubernetesLauncher:
        """Return a launcher with the rights of a run.

        Args:
            settings: changes to the settings.
        """
        changed = self.settings.replace(**settings)
        launcher = type_(changed, configuration=self.configuration, patience_s=patience_s)
        launcher.longest_pause_s = 0.0
        return launcher

    def run(
        self, *ends: str, profile: StepProfile = SMALL, launcher: KubernetesLauncher | None = None, work: Work = WORK
    ) -> Outcome:
        """Run the double of a step to its end, as `run_step` does.

        Raises:
            StepFailure, Unattended: as the launcher says.
        """
        return run_step(launcher or self.launcher(), f"{self.settings.root}/marks", ends, profile, work)

    def when_ready(self, act: Callable[[str], object], *, count: int = 1) -> threading.Thread:
        """Do something with the name of the step's pod once the step waits, `count` times."""

        def wait() -> None:
            for _ in range(count):
                wait_until(lambda: self.marks.exists("ready"), STARTED_S, "the step waits")
                self.marks.remove("ready")
                act(self.only_pod())

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    def process_environment(self) -> dict[str, str]:
        """Return the environment of a process that runs launchers of its own, with the account of a run."""
        folder = Path(self.environment["DRIFTLINE_STATE"])
        folder.mkdir(parents=True, exist_ok=True)
        write_kubeconfig(folder / "kubeconfig", self.configuration)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        return {**inherited, **self.environment, "KUBECONFIG": str(folder / "kubeconfig")}

    def wait_until_empty(self) -> None:
        api, namespace = self.pods.api, self.pods.namespace
        wait_until(lambda: not api.list_namespaced_pod(namespace).items, STARTED_S, "there is no pod left")

    def only_pod(self) -> str:
        """Return the name of the one pod that has not ended."""
        pods = self.pods.api.list_namespaced_pod(self.pods.namespace).items
        (name,) = (pod.metadata.name for pod in pods if pod.status.phase in ("Pending", "Running"))
        return str(name)

    def records(self, work: Work = WORK) -> list[Mapping[str, Any]]:
        """Return each attempt once, the oldest first."""
        entries = Ledgers(self.settings.root, work.product).of(ATTEMPTS).records()
        return [record.document() for _, record in reversed(unique_attempts(entries))]

    def reasons(self) -> list[str]:
        return [record["reason"] for record in self.records()]
