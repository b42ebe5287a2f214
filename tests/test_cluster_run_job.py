"""The Kubernetes Job of a run, as the cluster's `dagster.yaml` has it made, whatever the run's row says."""

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._core.code_pointer import CustomPointer, FileCodePointer, ModuleCodePointer
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from platform_assets.automation.factory import build_defs
from platform_assets.base import accounts, naming
from platform_assets.base.settings import ONLY_PRODUCT
from platform_assets.engine import product_files
from platform_assets.instance import cluster_run, own_runs
from platform_assets.instance.run_coordinator import RunRefused
from tests.doubles import kustomize
from tests.doubles.numbered_batches import SPEC
from tests.doubles.rows import row

pytestmark = pytest.mark.slow

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
current-context: nowhere
"""
"""The launcher reads one; nothing is asked of the cluster that it names."""


IMAGE = "registry.example/driftline-platform@sha256:" + "1" * 64
OURS = re.compile(r"driftline-(postgres|signing|store).*")
RUN_CONFIG = "dagster-k8s/config"


@pytest.fixture
def launcher(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(own_runs, "_products", lambda: frozenset(["orders", "returns"]))
    monkeypatch.setenv("DRIFTLINE_NAMESPACE", "driftline")
    monkeypatch.setenv("DRIFTLINE_PLATFORM_IMAGE", IMAGE)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
    made = shipped(repository, {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.get_ref = lambda: None  # type: ignore[method-assign, assignment, return-value]
        made.register_instance(instance)
        yield made


def shipped(repository: Path, settings: dict[str, Any]) -> Any:
    from dagster._config import process_config, resolve_to_config_type

    from platform_assets.instance.run_launcher import RunLauncher

    file = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    given = file["run_launcher"]["config"] | settings
    config = process_config(resolve_to_config_type(RunLauncher.config_type()), given)
    assert config.success, config.errors
    return RunLauncher.from_config_value(None, config.value)


@pytest.fixture
def job(launcher: Any) -> dict[str, Any]:
    return job_of(launcher, row("advance__orders"))


def job_of(launcher: Any, run: dg.DagsterRun) -> dict[str, Any]:
    from kubernetes.client import ApiClient

    created: list[Any] = []
    api = SimpleNamespace(create_namespaced_job_with_retries=lambda body, namespace: created.append(body))
    launcher._instance.add_run(run)
    launcher._api_client = api
    launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    (body,) = created
    document: dict[str, Any] = ApiClient().sanitize_for_serialization(body)
    return document


def pod_of(launcher: Any, run: dg.DagsterRun) -> dict[str, Any]:
    return dict(job_of(launcher, run)["spec"]["template"]["spec"])


def test_the_job_is_valid_and_not_retried_by_kubernetes(job: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(job, "1.34", strict=True) == "1.34"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pod_carries_its_product_and_the_team_of_the_products_file(launcher: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(own_runs, "_products", lambda: frozenset(["flight_delays", "orders"]))

    def labels(name: str, **tags: Any) -> dict[str, str]:
        metadata = job_of(launcher, row(name, **tags))["spec"]["template"]["metadata"]
        return {key: value for key, value in metadata["labels"].items() if key.startswith("driftline/")}

    of_flights = {"driftline/product": "flight_delays", "driftline/team": "driftline"}
    assert labels("advance__flight_delays", tags={"driftline/team": "another", "driftline/product": "x"}) == of_flights
    assert labels("advance__orders") == {"driftline/product": "orders"}, "its file gives no product"


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
    assert run["envFrom"][:2] == [
        {"configMapRef": {"name": "driftline"}},
        {"secretRef": {"name": "driftline-postgres"}},
    ]
    mounted = {item["mountPath"]: item for item in run["volumeMounts"]}
    assert mounted["/dagster/dagster.yaml"]["subPath"] == "dagster.yaml", "its process reads the instance from there"
    assert {"name": "instance", "configMap": {"name": "dagster-instance"}} in spec["volumes"]
    assert not [variable for variable in run["env"] if "PASSWORD" in variable["name"] or "KEY" in variable["name"]]


@pytest.mark.parametrize(
    ("name", "account"),
    [("advance", "advance"), ("retrain", "retrain"), ("release", "release"), ("accept", "intervention")],
)
def test_each_kind_of_run_has_the_account_keys_and_token_of_its_own(launcher: Any, name: str, account: str) -> None:
    document = job_of(launcher, row(f"{name}__orders"))
    assert kubernetes_validate.validate(document, "1.34", strict=True) == "1.34"
    spec = document["spec"]["template"]["spec"]
    (run,) = spec["containers"]
    assert spec["serviceAccountName"] == f"driftline-{account}"
    assert spec["automountServiceAccountToken"] is (account == "retrain"), "the others ask Kubernetes for nothing"
    own = [f"driftline-store-{account}", *(["driftline-signing"] if account in ("retrain", "release") else [])]
    # If two sources set a variable, the later one wins: the account's own key.
    optional = [item["secretRef"]["name"] for item in run["envFrom"] if item.get("secretRef", {}).get("optional")]
    assert optional == own
    assert run["image"] == IMAGE
    assert run["args"][:3] == ["python", "-m", "platform_assets.instance.cluster_run"] and "command" not in run
    assert run["args"][4:] == [f"{name}__orders", account]
    assert document["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "run"


def variables(document: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in document["spec"]["template"]["spec"]["containers"][0]["env"]}


def picked(*products: str) -> frozenset[dg.AssetKey]:
    return frozenset(dg.AssetKey([product, "features"]) for product in products)


def test_a_run_gets_the_name_of_its_product_and_builds_no_other(launcher: Any) -> None:
    assert variables(job_of(launcher, row("advance__orders")))[ONLY_PRODUCT] == "orders"
    of_assets = row("__ASSET_JOB", asset_selection=picked("orders"))
    assert variables(job_of(launcher, of_assets))[ONLY_PRODUCT] == "orders"


def test_a_run_of_two_products_or_of_an_unknown_one_builds_all(launcher: Any) -> None:
    for run in (
        row("__ASSET_JOB", asset_selection=picked("orders", "returns")),
        row("__ASSET_JOB", asset_selection=picked("../evil")),
        row("__ASSET_JOB"),
    ):
        assert ONLY_PRODUCT not in variables(job_of(launcher, run))


def test_picked_assets_have_the_account_of_their_stages(launcher: Any) -> None:
    run = row("__ASSET_JOB", asset_selection=picked("orders"))
    assert pod_of(launcher, run)["serviceAccountName"] == accounts.ADVANCE.service_account()
    run = row("__ASSET_JOB", asset_selection=frozenset([dg.AssetKey(["orders", "checkpoint"])]))
    assert pod_of(launcher, run)["serviceAccountName"] == accounts.RETRAIN.service_account()


def test_the_image_of_a_row_from_before_a_rollout_is_replaced_by_ours(launcher: Any) -> None:
    run = row("retrain__orders", image=IMAGE.replace("1" * 64, "2" * 64), tags={"dagster/image": IMAGE[:-1] + "3"})
    assert pod_of(launcher, run)["containers"][0]["image"] == IMAGE


EVIL = "evil.example/tool@sha256:" + "0" * 64
TAGS = {
    "image": {"container_config": {"image": EVIL}},
    "command": {"container_config": {"command": ["sh", "-c", "id"]}},
    "variable": {"container_config": {"env": [{"name": "PYTHONPATH", "value": "/tmp"}]}},
    "account": {"pod_spec_config": {"service_account_name": "driftline-retrain"}},
    "deprecated account": {"pod_spec_config": {"service_account": "driftline-retrain"}},
    "token": {"pod_spec_config": {"automount_service_account_token": True}},
    "label": {"pod_template_spec_metadata": {"labels": {"driftline/proxy": "true"}}},
    "secret": {"container_config": {"env_from": [{"secret_ref": {"name": "driftline-signing"}}]}},
    "key of a secret": {
        "container_config": {
            "env": [{"name": "K", "value_from": {"secret_key_ref": {"name": "driftline-signing", "key": "K"}}}]
        }
    },
    "volume": {"pod_spec_config": {"volumes": [{"name": "v", "secret": {"secret_name": "driftline-store"}}]}},
    "projected volume": {
        "pod_spec_config": {
            "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "driftline-store-retrain"}}]}}]
        }
    },
    "init container": {
        "pod_spec_config": {
            "init_containers": [
                {"name": "i", "image": EVIL, "envFrom": [{"secretRef": {"name": "driftline-postgres"}}]}
            ]
        }
    },
    "pull secret": {"pod_spec_config": {"image_pull_secrets": [{"name": "driftline-signing"}]}},
    "namespace": {"job_metadata": {"namespace": "kube-system"}},
}
CLAIMS: dict[str, dict[str, Any]] = {
    **{f"tag with {name}": {"tags": {RUN_CONFIG: json.dumps(config)}} for name, config in TAGS.items()},
    "tag of resources": {"tags": {"dagster-k8s/resource_requirements": "{}"}},
    "tag of image": {"tags": {"dagster/image": "evil:latest"}},
    "image": {"image": EVIL},
    "entry point": {"entry_point": ["sh", "-c", "id", "--"]},
    "executable": {"executable_path": "/bin/sh"},
    "code in a module": {"code_pointer": ModuleCodePointer("antigravity", "defs")},
    "code in a file": {"code_pointer": FileCodePointer("/tmp/evil.py", "defs")},
    "code that is a call": {"code_pointer": CustomPointer(ModuleCodePointer("os", "system"), ("echo evil",), ())},
    "another job's code": {"origin_job": "release__orders"},
    "container context": {"container_context": {"k8s": {"env_secrets": ["driftline-signing"]}}},
    "variables of shared context": {"container_context": {"env_vars": ["PYTHONPATH=/tmp"]}},
    "resource": {"run_config": {"resources": {"store": {"config": {"variables": {"DRIFTLINE_ROOT": "s3://x"}}}}}},
    "variable in config": {"run_config": {"ops": {"x": {"config": {"why": {"env": "DRIFTLINE_SIGNING_KEY"}}}}}},
    "variable in a list": {"run_config": {"ops": {"x": {"config": {"names": [{"env": "AWS_SECRET_ACCESS_KEY"}]}}}}},
}


@pytest.mark.costly
@pytest.mark.parametrize("job", ["retrain__orders", "__ASSET_JOB"])
@pytest.mark.parametrize("claim", list(CLAIMS))
def test_a_row_of_our_own_job_that_says_more_than_which_job_is_refused_by_name(launcher: Any, job: str, claim: str):
    with pytest.raises(RunRefused, match=rf"run \S+ of {job} "):
        job_of(launcher, row(job, **CLAIMS[claim]))


def test_without_an_image_of_its_own_the_launcher_takes_none_from_a_row(launcher: Any) -> None:
    launcher._job_image = None
    with pytest.raises(RunRefused, match="has no image; set job_image"):
        job_of(launcher, row("retrain__orders", image=EVIL))


def test_an_empty_resource_of_the_uis_scaffold_is_no_claim(launcher: Any) -> None:
    config = {"resources": {"store": {"config": {"variables": None}}}}
    assert pod_of(launcher, row("retrain__orders", run_config=config))


@pytest.mark.costly
@pytest.mark.parametrize(
    "name", ["tag with " + name for name in TAGS if name not in ("namespace",)] + ["container context"]
)
@pytest.mark.parametrize(
    ("job", "location"), [("theirs", "theirs"), ("retrain__orders", "theirs"), ("retrain__unknown", "driftline")]
)
def test_another_job_gets_no_account_secret_token_or_label_of_ours(launcher: Any, name: str, job: str, location: str):
    run = row(job, location=location, image=EVIL, **CLAIMS[name])
    if any(word in name for word in ("secret", "volume", "init", "context", "label")):
        with pytest.raises(RunRefused, match=rf"run \S+ of {job} (names the secret|sets the label)"):
            job_of(launcher, run)
        return
    document = job_of(launcher, run)
    spec = document["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == accounts.OTHER_RUNS
    assert spec["automountServiceAccountToken"] is False
    assert [text for text in kustomize.strings(document) if OURS.fullmatch(text)] == []
    assert document["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "other-run"


@pytest.mark.parametrize(
    "context",
    [
        {"env_vars": ["AWS_SECRET_ACCESS_KEY"]},
        {"k8s": {"env_vars": ["A=b", "AWS_SECRET_ACCESS_KEY"]}},
        {"k8s": {"scheduler_name": {"env": "AWS_SECRET_ACCESS_KEY"}}},
        {"k8s": {"env_config_maps": [{"env": "AWS_SECRET_ACCESS_KEY"}]}},
    ],
)
def test_another_job_takes_no_variable_of_the_daemon(
    launcher: Any, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with pytest.raises(RunRefused, match="takes the variable AWS_SECRET_ACCESS_KEY from the daemon"):
        job_of(launcher, row("theirs", location="theirs", container_context=context))


def test_another_job_runs_as_dagster_k8s_runs_it(launcher: Any) -> None:
    config = {
        "container_config": {"env_from": [{"secret_ref": {"name": "theirs"}}], "env": [{"name": "A", "value": "b"}]},
        "pod_spec_config": {"node_selector": {"pool": "theirs"}},
    }
    run = row(
        "theirs", location="theirs", image=EVIL, entry_point=["their-dagster"], tags={RUN_CONFIG: json.dumps(config)}
    )
    spec = pod_of(launcher, run)
    (container,) = spec["containers"]
    assert container["image"] == EVIL
    assert container["args"][:3] == ["their-dagster", "api", "execute_run"]
    names = [next(iter(item.values()))["name"] for item in container["envFrom"]]
    assert names == ["driftline", "driftline-other-run", "theirs"]
    assert {"name": "A", "value": "b"} in container["env"]
    assert spec["nodeSelector"] == {"pool": "theirs"}


def test_without_a_token_the_launcher_loads_and_launches_nothing(launcher: Any, repository: Path) -> None:
    """As in the pods of runs, of the migration and of the read-only webserver."""
    powerless = shipped(repository, {})
    assert isinstance(powerless, RunLauncher)
    with pytest.raises(RunRefused, match="no token of Kubernetes"):
        powerless.launch_run(LaunchRunContext(dagster_run=row("advance__orders"), workspace=None))
    with pytest.raises(RunRefused, match="no token of Kubernetes"):
        powerless.terminate("run")


# -- in the pod --


@pytest.mark.costly
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (row("release__orders"), "was started for retrain__orders with the account retrain"),
        (row("__ASSET_JOB"), "was started for retrain__orders"),
        (row("retrain__orders", location="theirs"), "was started for retrain__orders"),
        *((row("retrain__orders", **claim), "run .* of retrain__orders ") for claim in CLAIMS.values()),
    ],
)
def test_a_row_that_is_changed_after_its_launch_is_refused_in_the_pod(
    launcher: Any, changed: dg.DagsterRun, message: str
) -> None:
    cluster_run.check(row("retrain__orders"), "retrain__orders", "retrain", IMAGE)
    with pytest.raises(RunRefused, match=message):
        cluster_run.check(changed, "retrain__orders", "retrain", IMAGE)


def test_the_jobs_that_are_our_own_are_those_that_are_built() -> None:
    built = build_defs(specs=[SPEC]).jobs or ()
    assert {job.name for job in built} == {naming.job(verb, SPEC.name) for verb in accounts.VERBS}
    assert product_files.names() == sorted(own_runs._products())


def test_no_config_of_a_job_has_dagster_read_or_unpickle_a_file() -> None:
    """As the config of an input without an asset does: `inputs: {x: {pickle: {path: ...}}}`."""
    defs = build_defs(specs=[SPEC])
    for verb in accounts.VERBS:
        snapshot = defs.resolve_job_def(naming.job(verb, SPEC.name)).get_config_schema_snapshot()
        types = snapshot.all_config_snaps_by_key.values()
        fields = {field.name for item in types for field in item.fields or ()}
        assert "ops" in fields and "inputs" not in fields, verb


@pytest.mark.parametrize(
    ("silent_s", "status"), [(None, "FAILURE"), (0, "STARTED"), (200, "STARTED"), (400, "FAILURE")]
)
def test_a_run_of_a_terminal_has_no_pod_and_is_alive_while_it_says_so(
    launcher: Any, silent_s: float | None, status: str
) -> None:
    instance = launcher._instance
    instance._run_launcher = launcher
    tags = {} if silent_s is None else {naming.TAG_ALIVE: f"{time.time() - silent_s:.0f}"}
    run = create_run_for_test(instance, "tune__orders", status=dg.DagsterRunStatus.STARTED, tags=tags)
    logger = logging.getLogger("monitor")
    logger.disabled = True  # it looks for the logs of a Job
    monitor_started_run(instance, None, instance.get_run_record_by_id(run.run_id), logger)  # type: ignore[arg-type]
    assert instance.get_run_by_id(run.run_id).status.value == status
