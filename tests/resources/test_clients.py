"""Dagster's own Pipes clients take the place of a launcher in one line, and the model is the same."""

# Annotations are not postponed: Dagster compares that of `context` as an object.

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets import clock, naming
from platform_assets.definitions import build_defs
from platform_assets.profiles import PROFILES, StepProfile
from platform_assets.records.attempts import Launch
from platform_assets.settings import REPOSITORY, Settings, SettingsProblem
from platform_assets.storage.ledgers import Ledgers
from resources.launchers import StepFailure, StepLauncher, Work, records
from resources.launchers.clients import ClientLauncher, Options, as_pod, as_process
from resources.launchers.endings import first_try
from resources.store import StoreResource
from tests.doubles import numbered_batches as batches
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.launcher import InProcessLauncher

SPEC = replace(batches.SPEC, holdout=3, min_keys=8)
CUTOFF = "0020"
IMAGE = "trainer@sha256:" + "0" * 64
STEP = "tests.doubles.step"
CHOSEN = [dg.AssetKey([SPEC.name, stage]) for stage in ("checkpoint", "onnx")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(images={IMAGE}, environment={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY, start_s=0.0) as cluster:
        yield cluster


def on_cluster(settings: Settings) -> Settings:
    return settings.replace(namespace="default", trainer_image=IMAGE)


def pipes_k8s(cluster: Cluster, folder: Path) -> dg.PipesClient:
    from dagster_k8s import PipesK8sClient

    return PipesK8sClient(kubeconfig_file=str(cluster.kubeconfig(folder / "kubeconfig")), poll_interval=0.1)


def run_step(launcher: StepLauncher, folder: Path, end: str, size: str = "cpu_small") -> dg.ExecuteInProcessResult:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": [end]}
        result = launcher.run(context=context, module=STEP, extras=extras, profile=PROFILES[size])
        return dg.MaterializeResult(metadata=result)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize([waits], resources={"launcher": launcher}, instance=instance)


def of_the_double(options: Options) -> Options:
    """Give the double the step's module as an argument: a pod has no file of this test's product."""

    def changed(module: str, size: StepProfile, launch: Launch) -> Mapping[str, Any]:
        command = [sys.executable, "-m", "tests.doubles.batches_step", module]
        return {**options(module, size, launch), "command": command}

    return changed


def train(settings: Settings, launcher: StepLauncher) -> str:
    """Train and export for one cutoff by a launcher; return the bundle's digest."""
    store = StoreResource(variables=settings.to_environment())
    clock.move(settings, SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))
    batches.land_all(settings.root, "0001", "0020")
    defs = build_defs(specs=[SPEC], resources={"store": store, "launcher": launcher})
    keys = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0020"}
    with dg.DagsterInstance.ephemeral() as instance:
        advance, retrain = (defs.resolve_job_def(naming.job(verb, SPEC.name)) for verb in ("advance", "retrain"))
        advance.execute_in_process(instance=instance, tags=keys)
        retrain.execute_in_process(instance=instance, partition_key=CUTOFF, asset_selection=CHOSEN)
    return store.tables(SPEC.name).records("onnx", [CUTOFF])[CUTOFF].content_digest


def test_a_product_is_trained_and_exported_by_pipes_k8s_client_to_the_same_bundle(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    by_pods = ClientLauncher(pipes_k8s(cluster, tmp_path), of_the_double(as_pod(on_cluster(settings))))
    result = train(settings, by_pods)
    entries = cluster.journal.entries()
    assert [entry["labels"]["driftline/step"] for entry in entries] == ["train", "export"]
    assert [entry["exit_code"] for entry in entries] == [0, 0]
    ((_, attempt),) = Ledgers(settings.root, SPEC.name).records(naming.ATTEMPTS)
    assert (attempt["by"], attempt["launcher"], attempt["reason"]) == ("step", "PipesK8sClient", "finished")

    beside = settings.replace(root=str(tmp_path / "beside"), state=tmp_path / "state_beside")
    assert train(beside, InProcessLauncher(SPEC, beside)) == result


def test_a_pod_of_pipes_k8s_client_has_the_size_of_the_profile(cluster: Cluster, settings: Settings) -> None:
    size, work = PROFILES["gpu_spot"], Work(product="p", step="train", cutoff="0001", fingerprint="f" * 64)
    launch = records.begin(work, first_try(size), run_id="r", launcher="client")
    options = as_pod(on_cluster(settings))(STEP, size, launch)
    (container,) = options["base_pod_spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "32000M", "nvidia.com/gpu": "1"}
    assert options["base_pod_spec"]["nodeSelector"] == {"driftline/spot": "true"}
    assert options["base_pod_meta"]["labels"]["driftline/profile"] == "gpu_spot"


def test_what_the_client_raises_is_raised(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    from dagster_k8s.client import DagsterK8sError

    launcher = ClientLauncher(pipes_k8s(cluster, tmp_path), as_pod(on_cluster(settings)))
    with pytest.raises(DagsterK8sError, match="the double was told to fail"):
        run_step(launcher, tmp_path, "code")
    assert not cluster.pods()


def test_a_subprocess_client_will_do_too_and_a_step_without_a_result_is_a_failure(
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
