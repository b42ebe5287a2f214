"""What tests in their own namespaces cannot see or reach of each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from tests.cluster.cluster import Cluster
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.node import POLICIES
from tests.cluster.pods import Manifest, Pods, manifest

PORT = 8080
DENY = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
FRIENDS = {
    "metadata": {"name": "friends"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    },
}


@pytest.fixture
def neighbour(core: client.CoreV1Api) -> Iterator[Pods]:
    """The pods of a second namespace."""
    with fresh_namespace(core) as name:
        yield Pods(core, name)


def test_pods_of_one_name_live_next_to_each_other(pods: Pods, neighbour: Pods, shell: str) -> None:
    for space, code in ((pods, 1), (neighbour, 2)):
        space.create(manifest("step", shell, f"exit {code}"))
    assert [space.wait_for_end("step").exit_code for space in (pods, neighbour)] == [1, 2]


def test_rights_in_one_namespace_do_not_apply_in_another(
    reachable: Cluster, core: client.CoreV1Api, namespace: str, neighbour: Pods
) -> None:
    rights = client.RbacAuthorizationV1Api(reachable.api)
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    rights.create_namespaced_role(namespace, {"metadata": {"name": "reader"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    rights.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role}
    )
    token = core.create_namespaced_service_account_token("default", namespace, {"spec": {}}).status.token
    account = _as_account(reachable, token)
    assert account.list_namespaced_pod(namespace).items == []
    with pytest.raises(client.ApiException, match="cannot list resource") as refusal:
        account.list_namespaced_pod(neighbour.namespace)
    assert refusal.value.status == 403


def test_a_network_policy_lets_friends_of_the_namespace_in_and_nobody_else(
    reachable: Cluster, pods: Pods, neighbour: Pods, shell: str
) -> None:
    if reachable.control and not (reachable.control.assets / POLICIES).exists():
        pytest.skip(f"nothing enforces NetworkPolicies: the cluster's programs lack {POLICIES}")
    network = client.NetworkingV1Api(reachable.api)
    for policy in (DENY, FRIENDS):
        network.create_namespaced_network_policy(pods.namespace, policy)
    pods.create(_server(shell))
    address = pods.wait_until_ready("server").status.pod_ip
    for space, name in ((pods, "friend"), (pods, "stranger"), (neighbour, "friend")):
        space.create(
            manifest(
                name,
                shell,
                f"for i in 1 2 3; do timeout 2 bash -c '</dev/tcp/{address}/{PORT}' && exit 0; done; exit 9",
            )
        )
    assert pods.wait_for_end("friend").exit_code == 0
    assert pods.wait_for_end("stranger").exit_code == 9
    assert neighbour.wait_for_end("friend").exit_code == 9


def _server(image: str) -> Manifest:
    """Return a pod that accepts connections, with a probe: it is Ready if the kubelet reaches it."""
    pod = manifest("server", image, f"exec openssl s_server -accept {PORT} -nocert -quiet")
    pod["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return pod


def _as_account(cluster: Cluster, token: str) -> client.CoreV1Api:
    configuration = client.Configuration()
    admin = cluster.api.configuration
    configuration.host, configuration.ssl_ca_cert, configuration.proxy = admin.host, admin.ssl_ca_cert, admin.proxy
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return client.CoreV1Api(client.ApiClient(configuration))
