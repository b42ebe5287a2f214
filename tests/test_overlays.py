"""The overlays of deploy/kubernetes: valid, by digest, restricted, with quotas that fit Dagster's queue."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from platform_assets.base import accounts
from platform_assets.base.settings import AUTHORITIES, AUTHORITY_VARIABLES, Settings
from platform_assets.launch.profiles import PROFILES
from tests.doubles import kustomize, promql

pytestmark = [pytest.mark.slow, pytest.mark.skipif(kustomize.kubectl() is None, reason=kustomize.MISSING)]
OVERLAYS = sorted(path.name for path in (kustomize.FOLDER / "overlays").iterdir())
PARTS = ("code", "daemon", "exporter", "webserver", "webserver-read-only")
BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
OURS = re.compile(r"[^\s']*driftline-(?:platform|trainer|service)[:@][^\s']*")
"""An image of ours with a tag or a digest, wherever it stands."""


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return kustomize.rendered(kustomize.FOLDER / "overlays" / request.param)


def _named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (match,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return match


def test_each_object_is_strictly_valid(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        assert kubernetes_validate.validate(item, "1.35", strict=True) == "1.35", item["metadata"]


def test_each_image_has_its_digest_and_there_is_no_tag_anywhere(objects: list[dict[str, Any]]) -> None:
    containers = [
        container
        for spec in kustomize.pod_specs(objects)
        for container in [*spec["containers"], *spec.get("initContainers", ())]
    ]
    assert len(containers) >= 5
    assert [item["image"] for item in containers if not BY_DIGEST.fullmatch(item["image"])] == []
    named = [image for text in kustomize.strings(objects) for image in OURS.findall(text)]
    assert [image for image in named if not BY_DIGEST.fullmatch(image)] == []
    config = _named(objects, "ConfigMap", "driftline")["data"]
    for name in ("DRIFTLINE_TRAINER_IMAGE", "DRIFTLINE_SERVICE_IMAGE"):
        assert BY_DIGEST.fullmatch(config[name])
    (code,) = kustomize.pod_specs(_named(objects, "Deployment", "driftline-code"))
    (container,) = code["containers"]
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": container["image"]} in container["env"]


def test_the_policy_of_accounts_has_the_overlays_values(objects: list[dict[str, Any]]) -> None:
    policy = _named(objects, "ValidatingAdmissionPolicy", "driftline-accounts")["spec"]
    variables = {item["name"]: item["expression"] for item in policy["variables"]}
    config = _named(objects, "ConfigMap", "driftline")["data"]
    platform, trainer = config["DRIFTLINE_PLATFORM_IMAGE"], config["DRIFTLINE_TRAINER_IMAGE"]
    assert variables["platform"] == f"'{platform}'"
    registry = variables["registries"].removeprefix("'").removesuffix("'.split(',')")
    assert all(image.startswith(f"{registry}/") for image in (platform, trainer))
    assert variables["stepAccount"] == f"'{config['DRIFTLINE_STEP_SERVICE_ACCOUNT']}'"
    assert variables["stepSecret"] == f"'{config['DRIFTLINE_STEP_SECRET']}'"
    namespace = _named(objects, "Namespace", "driftline")["metadata"]["labels"]
    for name in ("driftline-accounts", "driftline-gangs", "driftline-images-by-digest"):
        binding = _named(objects, "ValidatingAdmissionPolicyBinding", name)["spec"]
        assert binding["matchResources"]["namespaceSelector"]["matchLabels"].items() <= namespace.items()


def test_overlays_replace_every_placeholder_address(objects: list[dict[str, Any]]) -> None:
    assert not [text for text in kustomize.strings(objects) if text.startswith("192.0.2.")]


def test_no_secret_has_an_entry(objects: list[dict[str, Any]]) -> None:
    secrets = [item for item in objects if item["kind"] == "Secret"]
    assert not [item for item in secrets if item.get("data") or item.get("stringData")]


def test_pods_are_restricted_and_have_a_class_and_an_account_each(objects: list[dict[str, Any]]) -> None:
    specs = list(kustomize.pod_specs(objects))
    accounts = [spec["serviceAccountName"] for spec in specs]
    assert len(set(accounts)) == len(accounts)
    classes = {item["metadata"]["name"]: item["value"] for item in objects if item["kind"] == "PriorityClass"}
    assert {spec["priorityClassName"] for spec in specs} == {"driftline-platform"}
    names = ("driftline-platform", "driftline-run", "driftline-step", "driftline-step-spot")
    assert sorted(classes, key=lambda name: -classes[name]) == list(names)
    assert min(classes.values()) >= -10, "a cluster autoscaler adds no nodes for pods below -10"
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_quotas_hold_what_dagster_starts_at_once(objects: list[dict[str, Any]]) -> None:
    """A run waits in Dagster's queue, where it may wait as long as it takes, and not for the quota."""
    instance = yaml.safe_load(_named(objects, "ConfigMap", "dagster-instance")["data"]["dagster.yaml"])
    runs, steps = (
        int(_named(objects, "ResourceQuota", f"driftline-{kind}")["spec"]["hard"]["pods"]) for kind in ("runs", "steps")
    )
    assert runs > instance["concurrency"]["runs"]["max_concurrent_runs"]
    assert steps > sum(profile.at_once for profile in PROFILES.values())
    run = instance["run_launcher"]["config"]["run_k8s_config"]
    assert run["pod_spec_config"]["priority_class_name"] == "driftline-run"
    config = _named(objects, "ConfigMap", "driftline")["data"]
    assert config["DRIFTLINE_STEP_PRIORITY_CLASS"] == "driftline-step"
    assert config["DRIFTLINE_SPOT_PRIORITY_CLASS"] == "driftline-step-spot"


def test_each_part_is_restarted_when_it_hangs_and_leaves_a_lost_node_after_ten_seconds(
    objects: list[dict[str, Any]],
) -> None:
    for part in PARTS:
        (spec,) = kustomize.pod_specs(_named(objects, "Deployment", f"driftline-{part}"))
        (container,) = spec["containers"]
        alive, started = container["livenessProbe"], container["startupProbe"]
        assert alive["timeoutSeconds"] >= 10
        assert alive["failureThreshold"] * alive["periodSeconds"] >= 60, "a busy node is slow, and kills nobody"
        assert started["failureThreshold"] * started["periodSeconds"] >= 300
        if ready := container.get("readinessProbe"):
            assert ready["timeoutSeconds"] >= 10, "the only pod would leave its Service on a busy node"
            assert ready["failureThreshold"] * ready["periodSeconds"] >= 60
        seconds = {item["key"]: item["tolerationSeconds"] for item in spec["tolerations"]}
        assert seconds == {"node.kubernetes.io/not-ready": 10, "node.kubernetes.io/unreachable": 10}


def test_the_code_server_answers_probes_while_all_sensors_are_asked(objects: list[dict[str, Any]]) -> None:
    instance = yaml.safe_load(_named(objects, "ConfigMap", "dagster-instance")["data"]["dagster.yaml"])
    (spec,) = kustomize.pod_specs(_named(objects, "Deployment", "driftline-code"))
    variables = {item["name"]: item["value"] for item in spec["containers"][0]["env"]}
    assert int(variables["DAGSTER_GRPC_MAX_WORKERS"]) >= 2 * instance["sensors"]["num_workers"]


def test_names_may_be_asked_at_the_port_of_their_pods_and_a_value_names_another(
    objects: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Egress is judged after a Service's address and port were replaced."""
    ports = _named(objects, "NetworkPolicy", "to-dns")["spec"]["egress"][0]["ports"]
    assert {(item["port"], item["protocol"]) for item in ports} == {
        (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
    }
    changed = _changed(tmp_path, "- PGSSLMODE=prefer", "- PGSSLMODE=prefer\n      - DRIFTLINE_DNS_PORT=1053")
    ports = _named(changed, "NetworkPolicy", "to-dns")["spec"]["egress"][0]["ports"]
    assert [item["port"] for item in ports] == [53, 53, 1053, 1053]


def test_a_server_may_have_several_addresses(tmp_path: Path) -> None:
    block = "{ipBlock: {cidr: 172.18.0.2/32}}"
    changed = _changed(tmp_path, block, f"{block}, {{ipBlock: {{cidr: 172.18.0.9/32}}}}")
    (rule,) = _named(changed, "NetworkPolicy", "to-kubernetes")["spec"]["egress"]
    assert [item["ipBlock"]["cidr"] for item in rule["to"]] == ["172.18.0.2/32", "172.18.0.9/32"]
    assert rule["ports"] == [{"port": 6443, "protocol": "TCP"}]


def test_the_page_fills_in_several_addresses_of_each_server(repository: Path, tmp_path: Path) -> None:
    overlay = _copied(tmp_path / "deploy").rename(tmp_path / "deploy/kubernetes/overlays/mine")
    page = (repository / "docs/deploy.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^(blocks\(\) .*?)^kubectl kustomize", page, re.M | re.S)
    servers = ("API_SERVER", "POSTGRES_NETWORK", "STORE_NETWORK")
    networks = {name: [f"10.{place}.0.1/32", f"10.{place}.0.2/32"] for place, name in enumerate(servers)}
    values = {name: ",".join(addresses) for name, addresses in networks.items()}
    others = {name: "1" for name in re.findall(r"\$(\w+)", commands) if name not in values}
    environment = {**os.environ, **others, **values, "API_SERVER_PORT": "7443", "STORE_PORT": "9000"}
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environment, check=True)
    objects = kustomize.rendered(overlay)
    for name, addresses in zip(("to-kubernetes", "to-postgres", "to-store"), networks.values(), strict=True):
        (rule,) = _named(objects, "NetworkPolicy", name)["spec"]["egress"]
        assert [item["ipBlock"]["cidr"] for item in rule["to"]] == addresses
    ports = [
        _named(objects, "NetworkPolicy", name)["spec"]["egress"][0]["ports"][0]["port"]
        for name in ("to-kubernetes", "to-store")
    ]
    assert ports == [7443, 9000]


def test_a_pull_secret_is_every_accounts(tmp_path: Path) -> None:
    overlay = _copied(tmp_path) / "kustomization.yaml"
    text = overlay.read_text(encoding="utf-8").replace("[values,", "[values, ../../components/pull-secret,")
    overlay.write_text(text, encoding="utf-8")
    accounts = [item for item in kustomize.rendered(overlay.parent) if item["kind"] == "ServiceAccount"]
    assert len(accounts) >= 10
    assert {str(item.get("imagePullSecrets")) for item in accounts} == {"[{'name': 'driftline-registry'}]"}


def test_who_asks_postgresql_or_the_store_finds_a_private_authority(objects: list[dict[str, Any]]) -> None:
    config = _named(objects, "ConfigMap", "driftline")["data"]
    place = str(Path(config["PGSSLROOTCERT"]).parent)
    assert place == AUTHORITIES
    assert config.keys().isdisjoint(AUTHORITY_VARIABLES), "a file that is not there would be all that pods trust"
    for spec in kustomize.pod_specs([item for item in objects if item["kind"] in ("Deployment", "CronJob")]):
        (container,) = spec["containers"]
        assert {"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}} in spec["volumes"]
        assert {"name": "ca", "mountPath": place} in container["volumeMounts"]
    run = yaml.safe_load(_named(objects, "ConfigMap", "dagster-instance")["data"]["dagster.yaml"])["run_launcher"]
    assert {"name": "ca", "mountPath": place} in run["config"]["volume_mounts"]


def _copied(folder: Path) -> Path:
    shutil.copytree(kustomize.FOLDER, folder / "kubernetes")
    return folder / "kubernetes/overlays/local"


def _changed(folder: Path, before: str, after: str) -> list[dict[str, Any]]:
    overlay = _copied(folder)
    path = overlay / "values/kustomization.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    return kustomize.rendered(overlay)


def test_the_read_only_webserver_differs_by_its_flag_workspace_account_and_user_of_the_database(
    objects: list[dict[str, Any]],
) -> None:
    (full,), (read_only,) = (
        kustomize.pod_specs(_named(objects, "Deployment", f"driftline-webserver{suffix}"))
        for suffix in ("", "-read-only")
    )
    (before,), (after,) = full.pop("containers"), read_only.pop("containers")
    *command, workspace = before.pop("command")
    assert workspace == "/workspace/workspace.yaml"
    assert after.pop("command") == [*command, "/app/workspace.yaml", "--read-only"]
    ours, reader = ({"secretRef": {"name": f"driftline-postgres{suffix}"}} for suffix in ("", "-read-only"))
    assert after.pop("envFrom") == [reader if item == ours else item for item in before.pop("envFrom")]
    assert after == before
    assert full.pop("serviceAccountName") == "driftline-webserver"
    assert read_only.pop("serviceAccountName") == "driftline-webserver-read-only"
    assert full == read_only
    bound = [subject["name"] for item in objects for subject in item.get("subjects", ())]
    assert "driftline-webserver-read-only" not in bound
    assert _named(objects, "ServiceAccount", "driftline-webserver-read-only")["automountServiceAccountToken"] is False
    selector = _named(objects, "Service", "driftline-webserver-read-only")["spec"]["selector"]
    assert selector["app.kubernetes.io/component"] == "webserver-read-only"


def test_the_exporter_only_reads_and_prometheus_finds_it(objects: list[dict[str, Any]]) -> None:
    deployment = _named(objects, "Deployment", "driftline-exporter")
    (spec,) = kustomize.pod_specs(deployment)
    (container,) = spec["containers"]
    secrets = [item["secretRef"]["name"] for item in container["envFrom"] if "secretRef" in item]
    assert secrets == ["driftline-postgres-read-only", accounts.STORE_SECRET]
    assert _named(objects, "ServiceAccount", spec["serviceAccountName"])["automountServiceAccountToken"] is False
    bound = [subject["name"] for item in objects for subject in item.get("subjects", ())]
    assert spec["serviceAccountName"] not in bound
    (port,) = container["ports"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    scrape = yaml.safe_load((promql.FOLDER / "scrape.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    (job,) = (job for job in scrape if job["job_name"] == "driftline-exporter")
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    assert kept == {
        "__meta_kubernetes_pod_label_app_kubernetes_io_part_of": labels["app.kubernetes.io/part-of"],
        "__meta_kubernetes_pod_label_app_kubernetes_io_component": labels["app.kubernetes.io/component"],
        "__meta_kubernetes_pod_container_port_name": port["name"],
    }
    monitor = yaml.safe_load((promql.FOLDER / "servicemonitor.yaml").read_text(encoding="utf-8"))["spec"]
    service = _named(objects, "Service", "driftline-exporter")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [item["port"] for item in monitor["endpoints"]] == [item["name"] for item in service["spec"]["ports"]]
    defaults = Settings.from_environment({})
    (peer,) = _named(objects, "NetworkPolicy", "exporter-from")["spec"]["ingress"][0]["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": defaults.scraper_namespace}
    assert "=".join(*peer["podSelector"]["matchLabels"].items()) == defaults.scraper_label


def test_in_production_each_account_that_needs_the_store_gets_a_token_for_a_role_of_its_own() -> None:
    objects = kustomize.rendered(kustomize.FOLDER / "overlays/production")
    accounts = {item["metadata"]["name"]: item["metadata"] for item in objects if item["kind"] == "ServiceAccount"}
    without = {"driftline-daemon", "driftline-migration", "driftline-other-run"}
    assert without < set(accounts)
    for name in accounts.keys() - without:
        annotations = accounts[name]["annotations"]
        assert annotations["eks.amazonaws.com/audience"] == "sts.amazonaws.com"
        assert annotations["eks.amazonaws.com/role-arn"].endswith(f":role/{name}")


def test_in_production_who_reaches_the_store_reaches_the_service_that_takes_tokens() -> None:
    """Egress is denied by default: without this rule no token could be exchanged for keys."""
    objects = kustomize.rendered(kustomize.FOLDER / "overlays/production")
    store, tokens = (_named(objects, "NetworkPolicy", name)["spec"] for name in ("to-store", "to-tokens"))
    of_store, of_tokens = (policy["podSelector"]["matchExpressions"][0] for policy in (store, tokens))
    assert of_store["key"] == of_tokens["key"] == "app.kubernetes.io/component"
    assert {*of_store["values"], "service"} == set(of_tokens["values"])
    assert tokens["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.0.2.0/24"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    ]


def test_the_examples_are_strictly_valid() -> None:
    for path in sorted((kustomize.FOLDER / "examples").glob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if path.name != "kueue.yaml":  # its own resources: tests/cluster/test_gang_rights.py
                assert kubernetes_validate.validate(item, "1.35", strict=True) == "1.35", path


def test_the_component_of_kueue_adds_rights_of_a_run_that_trains_and_nothing_else(tmp_path: Path) -> None:
    overlay = _copied(tmp_path) / "kustomization.yaml"
    before = kustomize.rendered(overlay.parent)
    text = overlay.read_text(encoding="utf-8").replace("[values,", "[values, ../../components/kueue,")
    overlay.write_text(text, encoding="utf-8")
    added = [item for item in kustomize.rendered(overlay.parent) if item not in before]
    assert [item["kind"] for item in added] == ["Role", "RoleBinding"]
    assert added[1]["subjects"] == [{"kind": "ServiceAccount", "name": "driftline-retrain", "namespace": "driftline"}]
    assert {item["metadata"]["namespace"] for item in added} == {"driftline"}


@pytest.mark.parametrize(
    ("overlay", "of_steps"), [("local", "driftline-store-step-{product}"), ("production", accounts.STORE_SECRET)]
)
def test_with_keys_each_process_has_its_own_and_with_roles_none(overlay: str, of_steps: str) -> None:
    built = kustomize.rendered(kustomize.FOLDER / "overlays" / overlay)
    assert _named(built, "ConfigMap", "driftline")["data"]["DRIFTLINE_STEP_SECRET"] == of_steps
    (code,) = kustomize.pod_specs(_named(built, "Deployment", "driftline-code"))
    secrets = [source["secretRef"]["name"] for source in code["containers"][0]["envFrom"] if "secretRef" in source]
    # The last one wins.
    assert secrets[-2:] == [accounts.WEBSERVER.store_secret(), accounts.CODE.store_secret()]
