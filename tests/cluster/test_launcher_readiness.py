"""What keeps a cluster from running a step is reported in one sentence, before anything is created."""

from kubernetes import client

from tests.cluster.accounts import RUN, write_kubeconfig
from tests.cluster.launching import Launching


def nothing_was_started(launches: Launching) -> bool:
    return not launches.core.list_namespaced_pod(launches.namespace).items


def test_all_rights_that_are_missing_are_named_at_once(launches: Launching) -> None:
    few = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list"]}]}
    client.RbacAuthorizationV1Api(launches.core.api_client).patch_namespaced_role(RUN, launches.namespace, few)
    ended = launches.run("report")
    missing = "delete pods, get pods, watch pods, get pods/log"
    expected = f"The account of this run may not {missing} in namespace {launches.namespace}; deploy/kubernetes"
    assert expected in ended.error
    assert (ended.records, nothing_was_started(launches)) == ([], True)


def test_an_unreachable_api_server_is_reported(launches: Launching) -> None:
    configuration = client.Configuration(host="https://10.244.255.1:1")
    configuration.ssl_ca_cert = launches.core.api_client.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": "Bearer nothing"}
    write_kubeconfig(launches.folder / "nowhere", configuration)
    ended = launches.run("report", patience_s=3.0, KUBECONFIG=str(launches.folder / "nowhere"))
    assert "the Kubernetes API did not answer" in ended.error
    assert "10.244.255.1" in ended.error
    assert "run this asset again" in ended.error
    assert ended.records == []


def test_a_missing_kubeconfig_is_reported(launches: Launching) -> None:
    ended = launches.run("report", KUBECONFIG="/nowhere/kubeconfig")
    assert "no Kubernetes cluster is configured" in ended.error
    assert "set KUBECONFIG" in ended.error
    assert ended.records == []


def test_a_profile_that_the_cluster_refuses_is_reported_before_any_attempt(launches: Launching) -> None:
    limit = {"type": "Container", "max": {"memory": "100M"}}
    launches.core.create_namespaced_limit_range(
        launches.namespace, {"metadata": {"name": "small"}, "spec": {"limits": [limit]}}
    )
    ended = launches.run("report")
    assert "The cluster refuses a pod of profile cpu_small: 403 Forbidden" in ended.error
    assert "maximum memory usage per Container is 100M" in ended.error
    assert (ended.records, nothing_was_started(launches)) == ([], True)


def test_an_image_missing_from_the_registry_is_reported_and_costs_nothing(launches: Launching) -> None:
    name = launches.steps.environment["DRIFTLINE_TRAINER_IMAGE"].partition("@")[0]
    ended = launches.run("report", DRIFTLINE_TRAINER_IMAGE=f"{name}@sha256:{'0' * 64}")
    assert "its image could not be pulled" in ended.error
    assert "not found" in ended.error
    assert {(record["reason"], record["cost_usd"]) for record in ended.records} == {("image", 0.0)}
    launches.steps.wait_until_empty()
