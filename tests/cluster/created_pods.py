"""Every pod that was created in a namespace, from the API server's audit log: some are gone within a second."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.cluster.cluster import Cluster


def volumes(cluster: Cluster, namespace: str) -> dict[str, set[str]]:
    return {
        pod["metadata"]["name"]: {
            kind for volume in pod["spec"].get("volumes", ()) for kind in volume.keys() - {"name"}
        }
        for pod in read(cluster, namespace)
    }


def images(cluster: Cluster, namespace: str) -> dict[str, set[str]]:
    return {
        pod["metadata"]["name"]: {container["image"] for container in pod["spec"]["containers"]}
        for pod in read(cluster, namespace)
    }


def read(cluster: Cluster, namespace: str) -> Iterator[Mapping[str, Any]]:
    """Yield the pods as the API server stored them."""
    assert cluster.control is not None, "the audit log of somebody else's cluster is not ours to read"
    for line in (cluster.control.folder / "audit.log").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        subject = entry.get("objectRef", {})
        is_pod = subject.get("resource") == "pods" and "subresource" not in subject
        is_ours = subject.get("namespace") == namespace and entry["verb"] == "create"
        if is_pod and is_ours and entry.get("responseObject", {}).get("kind") == "Pod":
            yield entry["responseObject"]
