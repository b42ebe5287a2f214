"""The Kubernetes Job of a run, as the cluster's `dagster.yaml` has it made: valid, and what the cluster lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
current-context: nowhere
"""
"""The launcher reads one; nothing is asked of the cluster that it names."""


@pytest.fixture
def job(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from dagster._config import process_config, resolve_to_config_type
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    monkeypatch.setenv("DRIFTLINE_NAMESPACE", "driftline")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
    shipped = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    given = shipped["run_launcher"]["config"] | {"load_incluster_config": False}
    given |= {"kubeconfig_file": str(tmp_path / "kubeconfig")}
    config = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), given)
    assert config.success, config.errors
    launcher = K8sRunLauncher.from_config_value(None, config.value)
    context = K8sContainerContext.create_from_config({}).merge(_of(launcher))
    made = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image="driftline:1", run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        pod_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(made)
    return {"apiVersion": "batch/v1", "kind": "Job", **found}


def _of(launcher: Any) -> Any:
    import dagster as dg
    from dagster_k8s.container_context import K8sContainerContext

    return K8sContainerContext.create_for_run(dg.DagsterRun(job_name="some"), launcher, include_run_tags=False)


def test_it_is_valid_and_not_tried_again_by_kubernetes(job: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(job, "1.34", strict=True) == "1.34"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_it_keeps_the_pod_security_rules_and_gets_its_secrets_by_name(job: dict[str, Any]) -> None:
    spec = job["spec"]["template"]["spec"]
    (run,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert run["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert run["envFrom"] == [
        {"configMapRef": {"name": "driftline"}},
        {"secretRef": {"name": "driftline-postgres"}},
        {"secretRef": {"name": "driftline-store"}},
    ]
    assert not [each for each in run["env"] if "PASSWORD" in each["name"] or "KEY" in each["name"]]
