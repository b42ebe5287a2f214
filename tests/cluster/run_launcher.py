"""Dagster's launcher of runs as deploy/kubernetes/base configures it, in this process, with an account of deploy/."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.launcher import LaunchRunContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes.config_class import ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from kubernetes import client

from platform_assets.base.settings import REPOSITORY
from tests.cluster import accounts
from tests.cluster.cluster import Cluster
from tests.doubles.rows import row

FILE, PRIORITIES = (REPOSITORY / "deploy/kubernetes/base" / f"{name}.yaml" for name in ("dagster", "priorities"))


def launcher_of(
    cluster: Cluster, namespace: str, account: str, image: str, folder: Path, instance: dg.DagsterInstance
) -> K8sRunLauncher:
    """Return the launcher of runs with an account's rights.

    Args:
        image: of the pods of runs.
        folder: for the account's kubeconfig.
    """
    kubeconfig = folder / f"{account}.kubeconfig"
    accounts.write_kubeconfig(kubeconfig, accounts.configuration_of(cluster, account, namespace))
    shipped = yaml.safe_load(FILE.read_text(encoding="utf-8"))["run_launcher"]
    config = shipped["config"] | {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "job_namespace": namespace,
        "job_image": image,
        "dagster_home": "/dagster",
    }
    data = ConfigurableClassData(shipped["module"], shipped["class"], yaml.safe_dump(config))
    launcher = data.rehydrate(as_type=K8sRunLauncher)
    launcher.register_instance(instance)
    return launcher


def prepare(core: client.CoreV1Api, namespace: str) -> None:
    """Create what pods of runs and steps name. Priority classes are the cluster's, which may have them."""
    for item in yaml.safe_load_all(PRIORITIES.read_text(encoding="utf-8")):
        with suppress(client.ApiException):
            client.SchedulingV1Api(core.api_client).create_priority_class(item)
    for name in ("driftline", "dagster-instance"):
        data = {"dagster.yaml": ""} if name == "dagster-instance" else {}
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name}, "data": data})
    for name in ("driftline-postgres", "driftline-store", "driftline-other-run"):
        core.create_namespaced_secret(namespace, {"metadata": {"name": name}})


def launch(
    launcher: K8sRunLauncher, instance: dg.DagsterInstance, stage: str = "features", **claims: Any
) -> DagsterRun:
    """Launch a queued run of a picked asset as a Job.

    Args:
        stage: of the asset.
        claims: what the run's row says otherwise.
    """
    asset = frozenset([dg.AssetKey(["orders", stage])])
    run = row("__ASSET_JOB", asset_selection=asset, **claims)
    instance.add_run(run)
    launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run
