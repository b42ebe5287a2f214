"""Run the double of a step once as a pod, by our launcher or by `PipesK8sClient`, and time the decision."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from kubernetes import client

from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.attempt import StepRequest, begin, prepare
from platform_assets.launch.endings import Ending
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import StepProfile
from tests.cluster.step_runs import StepRuns, run_step

LOOK_S = 0.1
WAITING = ("ErrImagePull", "ImagePullBackOff")
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)


class StopTrying(Exception):
    """One try is enough."""


class OneTry(KubernetesLauncher):
    """Our launcher, which gives up after its first try."""

    tries = 0

    def run_to_end(self, *args: Any) -> contextlib.AbstractContextManager[Ending]:
        self.tries += 1
        if self.tries > 1:
            raise StopTrying
        return super().run_to_end(*args)


class PeerLauncher(StepLauncher):
    """Runs the pod that our launcher would create by `PipesK8sClient`, once."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self.client, self.settings = client, settings

    def run_step(self, request: StepRequest) -> object:
        launch = begin(request.work, request.plan, run_id=request.context.run.run_id, launcher="PipesK8sClient")
        prepared = prepare(self.settings.root, launch)
        pod = manifest.pod(self.settings, request.module, request.plan, prepared, {})
        metadata = {"labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"]}
        return self.client.run(
            context=request.context.op_execution_context,
            extras={**request.extras, "attempt": launch.document()},  # type: ignore[dict-item]
            namespace=self.settings.namespace,
            base_pod_meta=metadata,
            base_pod_spec=pod["spec"],
        )


class Evidence:
    """Notes when the API first shows that the pod of a namespace has failed or cannot start.

    Attributes:
        at_s, created_s: when it did, and when there was a pod, by the monotonic clock.
    """

    def __init__(self, runs: StepRuns) -> None:
        self.runs, self.at_s, self.created_s = runs, float("inf"), float("inf")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def note(self) -> None:
        """Note that the evidence is there now: a fault that a pod does not show at once."""
        self.at_s = min(self.at_s, time.monotonic())

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_S):
            with contextlib.suppress(client.ApiException):
                pods = self.runs.pods.api.list_namespaced_pod(self.runs.pods.namespace).items
                if pods:
                    self.created_s = min(self.created_s, time.monotonic())
                if any(map(_is_evidence, pods)) or (not pods and self.created_s < float("inf")):
                    self.note()


def _is_evidence(pod: Any) -> bool:
    status = pod.status
    states = [item.state for item in status.container_statuses or [] if item.state]
    return bool(
        status.phase == "Failed"
        or pod.metadata.deletion_timestamp
        or any(state.terminated for state in states)
        or any(state.waiting and state.waiting.reason in WAITING for state in states)
    )


def launch(runs: StepRuns, launcher: KubernetesLauncher, end: str, size: StepProfile) -> None:
    """Run one try of the step by our launcher, whatever comes of it."""
    with contextlib.suppress(StepFailure, StopTrying):
        runs.run(end, launcher=launcher, profile=size, work=WORK)


def launch_with_pipes(runs: StepRuns, settings: Settings, end: str, size: StepProfile) -> Callable[[float], float]:
    """Start the step by `PipesK8sClient`; return a function that waits and returns when it ended.

    It returns infinity when the client still waits after so many seconds.
    """
    from dagster_k8s import PipesK8sClient

    peer = PeerLauncher(PipesK8sClient(kubeconfig_file=runs.process_environment()["KUBECONFIG"]), settings)
    ended: list[float] = []

    def work() -> None:
        with contextlib.suppress(Exception):  # how it fails is not measured
            run_step(peer, f"{runs.settings.root}/marks", [end], size, WORK)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait(cap_s: float) -> float:
        thread.join(cap_s)
        return ended[0] if ended else float("inf")

    return wait
