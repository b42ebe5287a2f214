"""The accounts of Driftline's processes in a test's namespace, with the rights that deploy/kubernetes grants."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, utils

from platform_assets.base.settings import REPOSITORY
from tests.cluster.cluster import Cluster
from tests.cluster.rights import CLUSTER, Right
from tests.cluster.rights import granted as granted_rights

RIGHTS = REPOSITORY / "deploy/kubernetes/base/rights.yaml"
NAMESPACE = "driftline"
"""The namespace in the files of deploy/."""
RUN, STEP, CODE = "driftline-retrain", "driftline-step", "driftline-code"
Object = dict[str, Any]


def documents(namespace: str, path: Path = RIGHTS) -> list[Object]:
    """Return the objects of rights.yaml for another namespace; names outside of it say which one they are for."""
    objects = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for object_ in objects:
        for subject in object_.get("subjects", ()):
            subject["namespace"] = namespace
        if object_["metadata"].get("namespace") == NAMESPACE:
            object_["metadata"]["namespace"] = namespace
            continue
        object_["metadata"]["name"] = f"{object_['metadata']['name']}-{namespace}"
        if "roleRef" in object_:
            object_["roleRef"]["name"] = f"{object_['roleRef']['name']}-{namespace}"
    return objects


@contextmanager
def granted(
    cluster: Cluster, namespace: str, change: Callable[[list[Object]], object] = lambda objects: None
) -> Iterator[None]:
    """Create the accounts of a namespace that is there, and their rights; remove what is outside of it at the end.

    Args:
        change: changes the objects first.
    """
    objects = [object_ for object_ in documents(namespace) if object_["kind"] != "Namespace"]
    change(objects)
    for object_ in objects:
        utils.create_from_dict(cluster.api, object_)
    try:
        yield
    finally:
        rights = client.RbacAuthorizationV1Api(cluster.api)
        removers = {"ClusterRole": rights.delete_cluster_role, "ClusterRoleBinding": rights.delete_cluster_role_binding}
        for object_ in objects:
            name, kind, place = object_["metadata"]["name"], object_["kind"], object_["metadata"].get("namespace")
            if kind in removers:
                removers[kind](name)
            elif place != namespace:
                remove = rights.delete_namespaced_role if kind == "Role" else rights.delete_namespaced_role_binding
                remove(name, place)


def revoke(cluster: Cluster, namespace: str, right: Right) -> None:
    """Take one right from an account of a namespace."""
    rights = client.RbacAuthorizationV1Api(cluster.api)
    remaining_rights = {item for item in granted_rights() if item.account == right.account} - {right}
    objects = documents(namespace)
    roles = {
        item["roleRef"]["name"]
        for item in objects
        if right.account in [subject["name"] for subject in item.get("subjects", ())]
    }
    for role in objects:
        place = role["metadata"].get("namespace", CLUSTER)
        if role["metadata"]["name"] not in roles or role["kind"] not in ("Role", "ClusterRole"):
            continue
        if right.place != (NAMESPACE if place == namespace else place):
            continue
        rules = [
            {"apiGroups": [item.group], "resources": [item.resource], "verbs": [item.verb]}
            for item in sorted(remaining_rights)
            if item.place == right.place
        ]
        name = role["metadata"]["name"]
        if role["kind"] == "Role":
            rights.replace_namespaced_role(name, place, role | {"rules": rules})
        else:
            rights.replace_cluster_role(name, role | {"rules": rules})


def configuration_of(cluster: Cluster, account: str, namespace: str) -> client.Configuration:
    """Return address and token with which a process of an account reaches the cluster from outside."""
    token = cluster.core.create_namespaced_service_account_token(account, namespace, {"spec": {}}).status.token
    configuration = client.Configuration()
    admin = cluster.api.configuration
    configuration.host, configuration.ssl_ca_cert, configuration.proxy = admin.host, admin.ssl_ca_cert, admin.proxy
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return configuration


def write_kubeconfig(path: Path, configuration: client.Configuration) -> None:
    """Write an account's address and token for processes that read `KUBECONFIG`."""
    _, token = configuration.api_key["authorization"].split(" ")
    cluster = {"server": configuration.host, "certificate-authority": configuration.ssl_ca_cert}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kube", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "kube", "context": {"cluster": "kube", "user": "user"}}],
        "current-context": "kube",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
