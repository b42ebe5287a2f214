"""Dagster's own `PipesK8sClient` takes the place of our launcher in one line, and the model is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.kubernetes.pipes_clients import ClientLauncher, Options, as_pod
from platform_assets.launch.launchers import StepLauncher
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Launch
from tests.cluster.step_runs import SMALL, StepRuns, run_step
from tests.doubles import cluster_environment as environment
from tests.doubles import numbered_batches as batches
from tests.doubles.launcher import InProcessLauncher

SPEC = replace(batches.SPEC, holdout=3, min_keys=8)
CUTOFF = "0020"
CHOSEN = [dg.AssetKey([SPEC.name, stage]) for stage in ("checkpoint", "onnx")]


@pytest.fixture
def client(runs: StepRuns) -> dg.PipesClient:
    """Dagster's client, with the account of a run."""
    from dagster_k8s import PipesK8sClient

    return PipesK8sClient(kubeconfig_file=runs.process_environment()["KUBECONFIG"], poll_interval=0.2)


def of_the_product(options: Options[Mapping[str, Any]]) -> Options[Mapping[str, Any]]:
    """Give a step's module as an argument: the image has no file of this test's product."""

    def changed(module: str, size: StepProfile, launch: Launch) -> Mapping[str, Any]:
        command = ["python", "-m", "tests.doubles.batches_step", module]
        return {**options(module, size.replace(cores=1, memory_gb=2), launch), "command": command}

    return changed


def train(settings: Settings, launcher: StepLauncher, folder: Path) -> str:
    """Train and export for one cutoff by a launcher, with a folder for files; return the bundle's digest."""
    store = StoreResource(variables=settings.to_environment())
    clock.move(settings, SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))
    batches.land_all(folder, "0001", "0020")
    landing = folder / "landing"
    files = [path for path in landing.rglob("*") if path.is_file()]
    environment.land(
        settings.root, {str(path.relative_to(landing)): path.read_text(encoding="utf-8") for path in files}
    )
    defs = build_defs(specs=[SPEC], resources={"store": store, "launcher": launcher})
    keys = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0020"}
    with dg.DagsterInstance.ephemeral() as instance:
        advance, retrain = (defs.resolve_job_def(naming.job(verb, SPEC.name)) for verb in ("advance", "retrain"))
        advance.execute_in_process(instance=instance, tags=keys)
        retrain.execute_in_process(instance=instance, partition_key=CUTOFF, asset_selection=CHOSEN)
    return store.tables(SPEC.name).records("onnx", [CUTOFF])[CUTOFF].content_digest


@pytest.mark.long
def test_a_product_is_trained_and_exported_by_pipes_k8s_client_to_the_same_bundle(
    runs: StepRuns, client: dg.PipesClient, tmp_path: Path
) -> None:
    result = train(runs.settings, ClientLauncher(client, of_the_product(as_pod(runs.settings))), tmp_path / "files")
    ((_, attempt),) = Ledgers(runs.settings.root, SPEC.name).records(naming.ATTEMPTS)
    assert (attempt["by"], attempt["launcher"], attempt["reason"]) == ("step", "PipesK8sClient", "finished")
    runs.wait_until_empty()

    local_settings = runs.settings.replace(root=str(tmp_path / "local"), state=tmp_path / "local_state")
    assert train(local_settings, InProcessLauncher(SPEC, local_settings), tmp_path / "files") == result


def test_what_the_client_raises_is_raised(runs: StepRuns, client: dg.PipesClient) -> None:
    from dagster_k8s.client import DagsterK8sError

    launcher = ClientLauncher(client, as_pod(runs.settings))
    with pytest.raises(DagsterK8sError, match="the double was told to fail"):
        run_step(launcher, f"{runs.settings.root}/marks", ["code"], SMALL, None)
    runs.wait_until_empty()
