"""Run the double of a step once, by our launcher or by `PipesK8sClient`, and count what it asked.

The asset's context is annotated, which Dagster compares as an object: annotations are not postponed here.
"""

import contextlib
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets.profiles import StepProfile
from platform_assets.settings import Settings
from resources.launchers import StepFailure, StepLauncher, Work
from resources.launchers.api import Answer, Api
from resources.launchers.endings import Ending
from resources.launchers.kubernetes import KubernetesLauncher
from resources.launchers.pod_status import Pod
from tests.doubles.cluster.cluster import Cluster

STEP = "tests.doubles.step"
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
POLL_S, PIPES_POLL_S = 0.1, 0.5
MOST_ANSWERS = 300
"""After so many a class counts as undecided: half a minute."""


class CountedApi(Api):
    """Remembers every answer about a pod, with its time by the cluster's clock."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.answers: list[Answer] = []

    def pod(self, name: str) -> Answer:
        answer = super().pod(name)
        self.answers.append(answer)
        if len(self.answers) > MOST_ANSWERS:
            raise StopTrying(f"no decision after {MOST_ANSWERS} answers")
        return answer


class CountedLauncher(KubernetesLauncher):
    """Our launcher, without pauses between tries.

    Args:
        is_one_try: whether to stop after the first.
    """

    longest_pause_s = 0.0

    def __init__(self, settings: Settings, cluster: Cluster, *, is_one_try: bool = False) -> None:
        super().__init__(settings, configuration=cluster.client_configuration(), poll_s=POLL_S)
        self.api = self.counted = CountedApi(settings.namespace, cluster.client_configuration())
        self.is_one_try = is_one_try

    def attempt(self, *args: Any) -> Ending:
        if self.is_one_try and self.counted.answers:
            raise StopTrying
        return super().attempt(*args)

    def polls(self, *, is_gone: bool, not_before_s: float) -> int:
        """Return how many answers showed the evidence of the first try, the one that was decided on included.

        Args:
            is_gone: the evidence is that the pod answers 404.
            not_before_s: what is shown earlier after the pod's creation is no evidence yet.
        """
        answers = self.counted.answers
        for number, answer in enumerate(answers):
            created_at = answer.pod.created_at if answer.pod else None
            is_early = created_at is not None and (answer.now - created_at).total_seconds() < not_before_s
            is_new = number == 0 or answer.pod != answers[0].pod
            is_evidence = is_new and not _is_fresh(answer.pod)
            if is_gone:
                is_evidence = answer.pod is None or number == len(answers) - 1
            elif not_before_s:
                is_evidence = not is_early
            if is_evidence:
                return len(answers) - number
        return len(answers)


class StopTrying(Exception):
    """One try is enough, or waiting is."""


def launch(launcher: KubernetesLauncher, folder: Path, size: StepProfile) -> None:
    """Run the step by our launcher, whatever comes of it."""

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": ["hold"]}
        launcher.run(context=context, module=STEP, extras=extras, profile=size, work=WORK)
        return dg.MaterializeResult()

    with (
        dg.DagsterInstance.ephemeral() as instance,
        contextlib.suppress(StepFailure, StopTrying),
    ):
        dg.materialize([waits], resources={"launcher": launcher}, instance=instance)


def launch_with_pipes(cluster: Cluster, folder: Path, cap_s: float) -> float | None:
    """Run the step by `PipesK8sClient`; return when it ended, by the monotonic clock, or None when it went on."""
    from dagster_k8s import PipesK8sClient

    @dg.asset
    def waits(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        client = PipesK8sClient(
            kubeconfig_file=str(cluster.kubeconfig(folder / f"{uuid.uuid4().hex}.json")), poll_interval=PIPES_POLL_S
        )
        client.run(
            context=context,
            image="trainer",
            command=["python", "-m", STEP],
            extras={"folder": str(folder), "ends": ["hold"]},
            namespace="default",
        )
        return dg.MaterializeResult()

    ended: list[float] = []

    def work() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([waits], instance=instance, raise_on_error=False)
            ended.append(time.monotonic())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(cap_s + 10)
    return ended[0] if ended else None


def _is_fresh(pod: Pod | None) -> bool:
    """Tell whether a pod is as the double makes them, before anything has happened to it."""
    if pod is None or pod.phase not in ("Pending", "Running"):
        return False
    return pod.step is None or pod.step.state == "running" or pod.step.reason == "ContainerCreating"
