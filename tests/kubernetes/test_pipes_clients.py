"""Dagster's own Pipes clients take the place of a launcher in one line; with pods: `tests/cluster/test_clients.py`."""

# Annotations are not postponed: Dagster compares that of `context` as an object.

from pathlib import Path

import dagster as dg
import pytest

from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.engine.outside import Work
from platform_assets.kubernetes.pipes_clients import ClientLauncher, as_pod, as_process
from platform_assets.launch.attempt import begin
from platform_assets.launch.endings import first_try
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import PROFILES

IMAGE = "trainer@sha256:" + "0" * 64
STEP = "tests.doubles.step"


def on_cluster(settings: Settings) -> Settings:
    return settings.replace(namespace="default", trainer_image=IMAGE)


def run_step(launcher: StepLauncher, folder: Path, end: str, size: str = "cpu_small") -> dg.ExecuteInProcessResult:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": [end]}
        result = launcher.run(context=context, module=STEP, extras=extras, profile=PROFILES[size])
        return dg.MaterializeResult(metadata=result)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize([waits], resources={"launcher": launcher}, instance=instance)


def test_a_pod_of_pipes_k8s_client_has_the_size_of_the_profile(settings: Settings) -> None:
    size, work = PROFILES["gpu_spot"], Work(product="p", step="train", cutoff="0001", fingerprint="f" * 64)
    launch = begin(work, first_try(size), run_id="r", launcher="client")
    options = as_pod(on_cluster(settings))(STEP, size, launch)
    (container,) = options["base_pod_spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "32000M", "nvidia.com/gpu": "1"}
    assert options["base_pod_spec"]["nodeSelector"] == {"driftline/spot": "true"}
    assert options["base_pod_meta"]["labels"]["driftline/profile"] == "gpu_spot"


def test_a_subprocess_client_works_too_and_a_step_without_a_result_is_a_failure(
    settings: Settings, tmp_path: Path
) -> None:
    launcher = ClientLauncher(dg.PipesSubprocessClient(), as_process(settings))
    result = run_step(launcher, tmp_path, "well").asset_materializations_for_node("waits")[0].metadata
    assert (result["value"].value, result["root"].value) == (1, settings.root)
    with pytest.raises(StepFailure, match="PipesSubprocessClient reported success, but the step reported no result"):
        run_step(launcher, tmp_path, "quiet")


def test_pods_need_an_image(settings: Settings) -> None:
    with pytest.raises(SettingsProblem, match="DRIFTLINE_TRAINER_IMAGE is not set"):
        as_pod(settings)
