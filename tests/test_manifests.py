"""`driftline manifests`: valid, restricted, by digest, and of the newest release."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from platform_assets.base import naming
from platform_assets.base.settings import AUTHORITIES, AUTHORITY_VARIABLES, REPOSITORY, Settings, SettingsProblem
from platform_assets.kubernetes import service_manifests as module
from platform_assets.kubernetes.service_manifests import manifests, name_of
from platform_assets.product.spec import Pods, Product
from platform_assets.serving.answer import middleware
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import kustomize, models
from tests.doubles.products.slow_batches import SPEC

IMAGE = f"registry.example/driftline-service@sha256:{'a' * 64}"
BENTO, CUTOFF = "b" * 64, SPEC.grain.key_at(8)
NOTES: dict[str, Any] = {"tag": "slow_batches:1", "asked_rows": 64, "max_apart": 0.0, "request": {}, "cpu_s": 1.0}
KINDS = {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}
NAME = "driftline-slow-batches"
ANSWER_S = 10.0
"""`serving.answer.routes.TIMEOUT_S`, whose module only a server imports."""


def product(folder: Path, spec: Product = SPEC, **settings: str) -> ProductStore:
    variables = {"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVICE_IMAGE": IMAGE, **settings}
    return ProductStore(spec, Settings.from_environment(variables))


def release(product: ProductStore, graph: bytes = b"x", **notes: Any) -> None:
    digest = served(product, "a" * 64, graph, **notes)
    record = models.release_record(1, digest, product=product.name, cutoff=CUTOFF, contract_sha256="a" * 64)
    Ledgers(product.settings.root, product.name).create_number(naming.RELEASES, 1, record)


def served(product: ProductStore, contract: str, graph: bytes = b"x", **notes: Any) -> str:
    """Record a model of the cutoff and its Bento; return the model's digest."""
    about = {"product": product.name, "contract_sha256": contract}
    digest = product.artifacts.write_bundle({"model.onnx": graph, "weights": bytes(9)}, about)
    tables, inputs = TableStore(product.settings.root, product.name), {"bundle": digest}
    tables.record("service", CUTOFF, content_digest=contract, inputs=inputs, code="0", notes=NOTES | notes)
    return digest


def documents(folder: Path, replicas: int | None = None, spec: Product = SPEC, **settings: str) -> dict[str, Any]:
    built = product(folder, spec, **settings)
    release(built, stored=BENTO)
    return {document["kind"]: document for document in yaml.safe_load_all(manifests(built, replicas))}


def with_pods(**changes: Any) -> Product:
    return replace(SPEC, pods=replace(SPEC.pods, **changes))


def test_manifests_are_valid_restricted_and_use_digests(tmp_path: Path) -> None:
    built = documents(tmp_path)
    assert set(built) == KINDS
    for document in built.values():
        assert kubernetes_validate.validate(document, "1.34", strict=True) == "1.34"
        assert document["metadata"]["name"] == name_of(SPEC.name) == NAME
    deployment, service = built["Deployment"], built["Service"]
    spec = deployment["spec"]["template"]["spec"]
    (fetch,), (serve,) = spec["initContainers"], spec["containers"]
    assert fetch["command"] == ["python", "-m", "platform_assets.serving.run.fetch", BENTO, "/bento"]
    assert {fetch["image"], serve["image"]} == {IMAGE}
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("driftline-service", False)
    for container in (fetch, serve):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["envFrom"] == [{"secretRef": {"name": "driftline-store", "optional": True}}]
    ports = {port["name"]: port["containerPort"] for port in serve["ports"]}
    assert ports == {"http": 3000, "probes": 3001}
    template = deployment["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == "3001"
    environment = {item["name"]: item.get("value") for item in serve["env"]}
    assert environment["DRIFTLINE_SERVING_PROBES_PORT"] == "3001"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    labels = template["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        of_kind = built[kind]["spec"]
        assert of_kind.get("selector", of_kind.get("podSelector"))["matchLabels"].items() <= labels


def test_a_service_reads_the_variables_of_authorities_and_has_their_file(tmp_path: Path) -> None:
    """Whoever prints the manifests trusts somebody else: the values are the deployment's."""
    own = dict.fromkeys(AUTHORITY_VARIABLES, "/home/me/ca.pem")
    spec = documents(tmp_path, **own)["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}} in spec["volumes"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert {"name": "ca", "mountPath": AUTHORITIES} in container["volumeMounts"]
        sources = {item["name"]: item.get("valueFrom") for item in container["env"]}
        for name in AUTHORITY_VARIABLES:
            assert sources[name] == {"configMapKeyRef": {"name": "driftline", "key": name, "optional": True}}


def test_with_accounts_per_product_a_service_has_its_own_account_and_key(tmp_path: Path) -> None:
    built = documents(tmp_path, DRIFTLINE_STEP_SERVICE_ACCOUNT="driftline-step-{product}")
    spec = built["Deployment"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "driftline-service-slow-batches"
    for container in (*spec["initContainers"], *spec["containers"]):
        secrets = [source["secretRef"] for source in container["envFrom"]]
        # If both set a variable, the later one wins.
        assert [secret["name"] for secret in secrets] == ["driftline-store", "driftline-store-service-slow-batches"]
        assert all(secret["optional"] for secret in secrets)


def test_a_cutoff_that_was_trained_again_keeps_the_bento_of_the_released_contract(tmp_path: Path) -> None:
    """A rollback names the model of an earlier contract, and the newest Bento of its cutoff cannot serve it."""
    built = product(tmp_path)
    release(built, stored=BENTO)
    served(built, "c" * 64, stored="d" * 64)
    assert module.released(built)[2].stored == BENTO


def test_a_full_log_makes_a_replica_not_ready_and_never_restarts_it(tmp_path: Path) -> None:
    """`/readyz` answers 503 while the log is full: no probe that restarts may ask it, that of the start included."""
    (serve,) = documents(tmp_path)["Deployment"]["spec"]["template"]["spec"]["containers"]
    paths = {kind: serve[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    assert {serve[f"{kind}Probe"]["httpGet"]["port"] for kind in paths} == {"probes"}


def test_there_is_time_to_drain_and_to_ship_the_log_before_a_replica_is_killed(tmp_path: Path) -> None:
    spec = documents(tmp_path)["Deployment"]["spec"]["template"]["spec"]
    (serve,) = spec["containers"]
    before_s = serve["lifecycle"]["preStop"]["sleep"]["seconds"]
    values = {item["name"]: item.get("value") for item in serve["env"]}
    drain_s, goodbye_s = (float(values[f"DRIFTLINE_SERVING_{name}_S"]) for name in ("DRAIN", "GOODBYE"))
    assert before_s > 0 and drain_s > 0 and goodbye_s > 0
    assert spec["terminationGracePeriodSeconds"] > before_s + drain_s + ANSWER_S + middleware.CLOSE_S + goodbye_s


def test_an_autoscaler_has_the_number_of_pods_for_itself(tmp_path: Path) -> None:
    built = documents(tmp_path, spec=with_pods(replicas=3, replicas_max=9, cores=1.5, memory_gb=2.5))
    assert "replicas" not in built["Deployment"]["spec"]
    scaled = built["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (3, 9)
    (serve,) = built["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert serve["resources"] == {"requests": {"cpu": "1500m", "memory": "2560Mi"}, "limits": {"memory": "2560Mi"}}


@pytest.mark.parametrize(("replicas", "spec"), [(4, SPEC), (None, with_pods(replicas=4, replicas_max=4))])
def test_a_fixed_number_of_pods_has_no_autoscaler(tmp_path: Path, replicas: int | None, spec: Product) -> None:
    built = documents(tmp_path, replicas, spec)
    assert built["Deployment"]["spec"]["replicas"] == 4
    assert "HorizontalPodAutoscaler" not in built


def test_a_roll_out_takes_nothing_away_and_a_drain_takes_one_at_a_time(tmp_path: Path) -> None:
    built = documents(tmp_path)
    assert built["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = built["PodDisruptionBudget"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    spec = built["Deployment"]["spec"]["template"]["spec"]
    spread = {part["topologyKey"]: part["whenUnsatisfiable"] for part in spec["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname": "ScheduleAnyway"}
    (apart,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    left = {part["key"]: part["tolerationSeconds"] for part in spec["tolerations"]}
    assert left == {"node.kubernetes.io/not-ready": 10, "node.kubernetes.io/unreachable": 10}


@pytest.mark.parametrize(
    ("variables", "networks", "port"),
    [
        ({}, None, 443),
        ({"AWS_ENDPOINT_URL": "http://10.1.2.3:8333"}, ["10.1.2.3/32"], 8333),
        ({"AWS_ENDPOINT_URL": "https://s3.example:9000"}, None, 9000),
        ({"AWS_ENDPOINT_URL": "http://s3.example"}, None, 80),
    ],
)
def test_pods_reach_names_and_the_store_and_nothing_else(
    tmp_path: Path, variables: dict[str, str], networks: list[str] | None, port: int
) -> None:
    policy = documents(tmp_path, **variables)["NetworkPolicy"]["spec"]
    names, store = policy["egress"]
    assert [item["port"] for item in names["ports"]] == [53, 53, 5353, 5353]
    assert store["ports"] == [{"port": port, "protocol": "TCP"}]
    assert [peer["ipBlock"]["cidr"] for peer in store.get("to", [])] == (networks or [])
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_callers_reach_one_port_and_scrapers_the_other(tmp_path: Path) -> None:
    policy = documents(tmp_path, DRIFTLINE_SERVICE_NETWORKS="10.7.0.0/16")["NetworkPolicy"]["spec"]
    calls, scrapes = policy["ingress"]
    assert (calls["ports"][0]["port"], scrapes["ports"][0]["port"]) == (3000, 3001)
    assert calls["from"][0] == {"podSelector": {"matchLabels": {"driftline/caller": "true"}}}
    assert {"ipBlock": {"cidr": "10.7.0.0/16"}} in calls["from"] and {"ipBlock": {"cidr": "10.7.0.0/16"}} in scrapes[
        "from"
    ]


@pytest.mark.parametrize(
    ("variables", "namespace", "labels"),
    [
        ({}, "monitoring", {"app.kubernetes.io/name": "prometheus"}),
        ({"DRIFTLINE_SCRAPER_NAMESPACE": "watch", "DRIFTLINE_SCRAPER_LABEL": "app=vm"}, "watch", {"app": "vm"}),
    ],
    ids=["default", "another"],
)
def test_metrics_are_for_one_label_in_one_namespace(
    tmp_path: Path, variables: dict[str, str], namespace: str, labels: dict[str, str]
) -> None:
    (scraper,) = documents(tmp_path, **variables)["NetworkPolicy"]["spec"]["ingress"][1]["from"]
    assert scraper == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": labels},
    }


@pytest.mark.parametrize(
    "variables",
    [
        {"DRIFTLINE_SCRAPER_NAMESPACE": "Monitoring"},
        {"DRIFTLINE_SCRAPER_NAMESPACE": "a}, {"},
        {"DRIFTLINE_SCRAPER_LABEL": "prometheus"},
        {"DRIFTLINE_SCRAPER_LABEL": "app="},
        {"DRIFTLINE_SCRAPER_LABEL": "app=a, other: b"},
    ],
)
def test_a_scraper_that_kubernetes_would_not_find_is_refused(tmp_path: Path, variables: dict[str, str]) -> None:
    (name,) = variables
    with pytest.raises(SettingsProblem, match=f"{name} is .*; expected"):
        documents(tmp_path, **variables)


def test_two_products_share_no_name_and_no_selector(tmp_path: Path) -> None:
    first, second = documents(tmp_path / "a"), documents(tmp_path / "b", spec=replace(SPEC, name="slow_batch"))
    for kind in first:
        assert first[kind]["metadata"]["name"] != second[kind]["metadata"]["name"]
    labels = second["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert not first["Service"]["spec"]["selector"].items() <= labels.items()


def test_the_names_that_products_may_not_have_are_those_of_the_platform() -> None:
    files = (REPOSITORY / "deploy/kubernetes").rglob("*.yaml")
    read = [document for file in files for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    names = {one["metadata"]["name"] for one in read if one.get("kind") in ("Deployment", "DaemonSet", "Service")}
    assert {"driftline-code", "haproxy-parts"} <= names
    own = {name.removeprefix("driftline-") for name in names if name.startswith("driftline-")}
    assert own <= set(module.PLATFORM)


def test_pods_carry_the_team_and_no_selector_does(tmp_path: Path) -> None:
    found = documents(tmp_path, spec=replace(SPEC, owner="anna@example.com"))
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels["driftline/product"] == SPEC.name
    assert labels["driftline/team"].startswith("anna-example.com-")
    assert "driftline/team" not in found["Deployment"]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("name", ["webserver", "a" * 54, "orders_"])
def test_a_name_that_is_taken_or_too_long_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"the service of {name} would be called driftline-{name.replace('_', '-')}; expected at most 63",
    ):
        manifests(product(tmp_path, replace(SPEC, name=name)))


def test_a_limit_below_what_the_model_needs_is_refused(tmp_path: Path) -> None:
    built = product(tmp_path, with_pods(memory_gb=0.3))
    release(built, bytes(8 * 1024**2), stored=BENTO)
    with pytest.raises(ValueError, match=r"is 0.3; expected at least 0.3\d, as the service and the trial"):
        manifests(built)
    assert "memory: 1Gi" in manifests(ProductStore(SPEC, built.settings))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"replicas": 0}, "Pods has replicas=0 and replicas_max=6; expected at least 1"),
        ({"replicas": 7}, "Pods has replicas=7 and replicas_max=6"),
        ({"cores": 0.0}, "Pods.cores is 0.0; expected a number above 0"),
        ({"memory_gb": float("inf")}, "Pods.memory_gb is inf; expected a number above 0"),
        ({"cpu_target": 0.0}, "Pods.cpu_target is 0.0; expected a share above 0 and at most 1.00"),
        ({"cores": 2.0, "cpu_target": 0.7}, "Pods.cpu_target is 0.7; expected a share above 0 and at most 0.45: a pod"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(Pods(), **changes)


@pytest.mark.parametrize(
    ("changes", "percent"),
    [
        ({}, 41),
        ({"replicas": 3}, 55),
        ({"replicas": 1}, 41),
        ({"cores": 4.0}, 10),
        ({"cpu_target": 0.6}, 60),
    ],
)
def test_the_cpu_target_follows_from_what_a_replica_answers(changes: dict[str, Any], percent: int) -> None:
    """So many replicas, one of them lost, answer with nine tenths of their CPU; none takes more than one core."""
    pods = replace(Pods(), **changes)
    assert round(100 * pods.scales_at) == percent
    reachable = min(1.0, 1.0 / pods.cores)
    assert 1.1 * pods.scales_at < reachable, "the autoscaler wants more before a replica has no more CPU to take"


def test_without_a_release_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"slow_batches has no release in .*: there is nothing to serve yet"):
        manifests(product(tmp_path))


def test_a_release_without_its_bento_in_the_store_is_named(tmp_path: Path) -> None:
    built = product(tmp_path)
    record = models.release_record(1, "d" * 64, product=built.name, cutoff=CUTOFF, contract_sha256="a" * 64)
    Ledgers(built.settings.root, built.name).create_number(naming.RELEASES, 1, record)
    with pytest.raises(ValueError, match=rf"the Bento of release 1 of slow_batches \(cutoff {CUTOFF}\) is not in the"):
        manifests(built)


@pytest.mark.parametrize("image", ["", "driftline-service:latest", "driftline-service@sha256:abc"])
def test_an_image_without_its_digest_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(
        ValueError, match=r"DRIFTLINE_SERVICE_IMAGE is .*; expected the image of services by its digest"
    ):
        manifests(product(tmp_path, DRIFTLINE_SERVICE_IMAGE=image))


@pytest.mark.skipif(kustomize.kubectl() is None, reason=kustomize.MISSING)
def test_they_are_a_resource_of_kustomize_and_limit_cpu_only_with_the_component(tmp_path: Path) -> None:
    built = product(tmp_path / "state")
    release(built, stored=BENTO)
    (tmp_path / "product.yaml").write_text(manifests(built), encoding="utf-8")
    component = os.path.relpath(kustomize.FOLDER / "components/service-cpu-limits", tmp_path)
    limits = []
    for kustomization in ({"resources": ["product.yaml"]}, {"resources": ["product.yaml"], "components": [component]}):
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        rendered = kustomize.rendered(tmp_path)
        (spec,) = kustomize.pod_specs(rendered)
        assert {document["kind"] for document in rendered} == KINDS
        limits.append(spec["containers"][0]["resources"]["limits"])
    assert limits == [{"memory": "1Gi"}, {"memory": "1Gi", "cpu": "200m"}]
