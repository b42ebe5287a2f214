"""Launch a step as a pod in a process of its own, which can be killed: the launchers of row Q4.

A fork server imports Dagster once; a launcher then costs tenths of a second instead of seconds. The asset's context
is annotated, which Dagster compares as an object: annotations are not postponed here.
"""

import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch import profiles
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import PROFILES

PRODUCT = "counted"
STEP = "proof.doubles.counting_step"
POLL_S = 0.5
SIZES = {
    name: PROFILES[name].replace(cores=1, memory_gb=0.5, shm_gb=0.05, schedule_timeout_s=60.0)
    for name in ("cpu_small", "cpu_spot")
}
"""The real prices; small, so that two fit on a node of two processors."""
FAILED = 3
"""The exit code of a launcher whose step ended without a result, as any run may."""

_server: ForkServerContext = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a launcher is to do.

    Attributes:
        folder: of the row, for logs.
        environment: settings, the way to S3, and the kubeconfig of a run's account.
        work: its number, and with it its fingerprint.
        fault: `image` or `unschedulable`: what is wrong with its order; None: nothing.
        count: what the step is told.
    """

    folder: Path
    environment: dict[str, str]
    work: int
    profile: str
    fault: str | None
    count: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Of the work, in hexadecimal; what a label holds of it is its own, too."""
        return f"{self.work:040x}{0:024x}"


def start(launch: Launch) -> ForkServerProcess:
    """Start a launcher; exit code 0: its step finished, `FAILED`: it did not."""
    _server.set_forkserver_preload([__name__, "kubernetes.client", "obstore"])
    process = _server.Process(target=run, args=(launch,))
    process.start()
    return process


def run(launch: Launch) -> None:
    """Materialise an asset that runs the step; what it says goes into a file."""
    log = os.open(launch.folder / f"launcher-{launch.work}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    tempfile.tempdir = str(launch.folder)
    profiles.PROFILES.update(SIZES)
    KubernetesLauncher.longest_pause_s = 0.0
    try:
        from kubernetes import client, config

        size = SIZES[launch.profile]
        if launch.fault == "unschedulable":
            size = size.replace(node_selector=(("driftline/none", "true"),), schedule_timeout_s=1.0)
        work = Work(product=PRODUCT, step="train", cutoff="0009", fingerprint=launch.fingerprint)

        @dg.asset
        def counted(
            context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]
        ) -> dg.MaterializeResult:
            launcher.run(context=context, module=STEP, extras={"count": launch.count}, profile=size, work=work)
            return dg.MaterializeResult()

        os.environ.update(launch.environment)
        settings = Settings.from_environment()
        if launch.fault == "image":
            name = (settings.trainer_image or "").partition("@")[0]
            settings = settings.replace(trainer_image=f"{name}@sha256:{0:064}", trainer_libraries=None)
        configuration = client.Configuration()
        config.load_kube_config(launch.environment["KUBECONFIG"], client_configuration=configuration)
        launcher = KubernetesLauncher(settings, configuration=configuration, poll_s=POLL_S)
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([counted], resources={"launcher": launcher}, instance=instance)
    except StepFailure:
        sys.exit(FAILED)
