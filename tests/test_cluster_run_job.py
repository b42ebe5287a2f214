"""The Kubernetes Job of a run, as the cluster's `dagster.yaml` has it made: valid, and what the cluster lets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml

from platform_assets import accounts
from platform_assets.settings import ONLY_PRODUCT
from resources.run_coordinator import RUN_CONFIG, RunCoordinator

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
def launcher(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from dagster._config import process_config, resolve_to_config_type

    from resources.run_launcher import RunLauncher

    monkeypatch.setenv("DRIFTLINE_NAMESPACE", "driftline")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
    shipped = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    given = shipped["run_launcher"]["config"] | {"load_incluster_config": False}
    given |= {"kubeconfig_file": str(tmp_path / "kubeconfig")}
    config = process_config(resolve_to_config_type(RunLauncher.config_type()), given)
    assert config.success, config.errors
    return RunLauncher.from_config_value(None, config.value)


@pytest.fixture
def job(launcher: Any) -> dict[str, Any]:
    return job_of(launcher, dg.DagsterRun(job_name="some"))


def job_of(launcher: Any, run: dg.DagsterRun) -> dict[str, Any]:
    """Return the Job that the launcher makes for a run with its tags."""
    from dagster_k8s.job import construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    context = launcher.get_container_context_for_run(run)
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image="driftline:1", run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        pod_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    document: dict[str, Any] = ApiClient().sanitize_for_serialization(job)
    return {"apiVersion": "batch/v1", "kind": "Job", **document}


def test_the_job_is_valid_and_not_retried_by_kubernetes(job: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(job, "1.34", strict=True) == "1.34"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_job_keeps_the_pod_security_rules_and_gets_secrets_by_name(job: dict[str, Any]) -> None:
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
    assert not [variable for variable in run["env"] if "PASSWORD" in variable["name"] or "KEY" in variable["name"]]


@pytest.mark.parametrize(
    ("name", "account"),
    [("advance__a", "advance"), ("retrain__a", "retrain"), ("release__a", "release"), ("accept__a", "intervention")],
)
def test_each_kind_of_run_has_the_account_and_keys_of_its_own(
    launcher: Any, job: dict[str, Any], name: str, account: str
) -> None:
    coordinator = RunCoordinator(identity_header="X-Forwarded-User", has_accounts=True)
    own = job_of(launcher, dg.DagsterRun(job_name=name, tags=coordinator.pod_tags(dg.DagsterRun(job_name=name))))
    assert kubernetes_validate.validate(own, "1.34", strict=True) == "1.34"
    spec, others = own["spec"]["template"]["spec"], job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == f"driftline-{account}"
    own = [f"driftline-store-{account}", *(["driftline-signing"] if account in ("retrain", "release") else [])]
    # If two sources set a variable, the later one wins: the account's own key.
    assert spec["containers"][0]["envFrom"] == [
        *others["containers"][0]["envFrom"],
        *({"secretRef": {"name": secret, "optional": True}} for secret in own),
    ]


def variables(document: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in document["spec"]["template"]["spec"]["containers"][0]["env"]}


def picked(*products: str) -> frozenset[dg.AssetKey]:
    return frozenset(dg.AssetKey([product, "features"]) for product in products)


def test_a_run_gets_the_name_of_its_product_and_builds_no_other(launcher: Any, job: dict[str, Any]) -> None:
    own = job_of(launcher, dg.DagsterRun(job_name="advance__orders"))
    assert variables(own) == {**variables(job), ONLY_PRODUCT: "orders"}
    assert kubernetes_validate.validate(own, "1.34", strict=True) == "1.34"
    assert (
        own["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        == (job["spec"]["template"]["spec"]["containers"][0]["envFrom"])
    )
    of_assets = dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=picked("orders"))
    assert variables(job_of(launcher, of_assets))[ONLY_PRODUCT] == "orders"


def test_a_run_of_two_products_builds_all(launcher: Any) -> None:
    run = dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=picked("orders", "returns"))
    assert ONLY_PRODUCT not in variables(job_of(launcher, run))
    assert ONLY_PRODUCT not in variables(job_of(launcher, dg.DagsterRun(job_name="__ASSET_JOB")))


def test_a_run_that_says_nothing_has_the_account_with_the_fewest_rights(job: dict[str, Any]) -> None:
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == accounts.ADVANCE.service_account()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"container_config": {"image": "evil"}}, "container_config.image"),
        ({"container_config": {"command": ["sh"]}}, "container_config.command"),
        ({"container_config": {"env": [{"name": "DRIFTLINE_ENV", "value": "local"}]}}, "container_config.env"),
        ({"container_config": {"security_context": {}}}, "container_config.security_context"),
        ({"pod_spec_config": {"host_network": True}}, "pod_spec_config.host_network"),
        ({"pod_template_spec_metadata": {"labels": {}}}, "pod_template_spec_metadata.labels"),
    ],
)
def test_the_launcher_itself_refuses_what_only_its_own_settings_may_say(
    launcher: Any, config: dict[str, Any], field: str
) -> None:
    run = dg.DagsterRun(job_name="advance__a", tags={RUN_CONFIG: json.dumps(config)})
    with pytest.raises(Exception, match=f"violated the allowed list: {field}"):
        launcher.get_container_context_for_run(run)
