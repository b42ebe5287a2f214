"""A step on several nodes as objects of Kubernetes: an Indexed Job of its pod, a headless Service, a NetworkPolicy."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, utils

from platform_assets.base.settings import REPOSITORY
from tests.cluster import accounts, names
from tests.cluster.cluster import Cluster
from tests.cluster.rights import KUEUE
from tests.cluster.waiting import wait_until

ATTEMPT = "driftline/attempt"
INDEX = "batch.kubernetes.io/job-completion-index"
QUEUES = REPOSITORY / "deploy/kubernetes/examples/kueue.yaml"
NO_KUEUE = "needs Kueue: ../shared/kubernetes/addons/kueue.yaml, and its program in KUBEBUILDER_ASSETS"
PATIENCE_S = 120.0
Object = dict[str, Any]


@dataclass(frozen=True)
class Gang:
    """The objects of one attempt, to be created with the rights of `api`.

    Attributes:
        job, service, policy: their manifests. All have the name of the pod that they were made of.
    """

    api: client.ApiClient
    namespace: str
    job: Object
    service: Object
    policy: Object

    @property
    def name(self) -> str:
        """The name of the three objects."""
        return str(self.job["metadata"]["name"])

    @property
    def kinds(self) -> list[tuple[str, Object, Any]]:
        """Each kind, as the client's methods call it, with its manifest and the client's API group."""
        return [
            ("job", self.job, client.BatchV1Api(self.api)),
            ("service", self.service, client.CoreV1Api(self.api)),
            ("network_policy", self.policy, client.NetworkingV1Api(self.api)),
        ]

    def create(self) -> None:
        """Create the Service and the policy first: pods look for their names at once."""
        for kind, body, group in reversed(self.kinds):
            getattr(group, f"create_namespaced_{kind}")(self.namespace, body)

    def delete(self) -> None:
        """Delete what is there of it, with its pods."""
        for kind, _, group in self.kinds:
            if self.name in [
                item.metadata.name for item in getattr(group, f"list_namespaced_{kind}")(self.namespace).items
            ]:
                body = {"propagationPolicy": "Background"}
                getattr(group, f"delete_namespaced_{kind}")(self.name, self.namespace, body=body)

    def pods(self) -> list[client.V1Pod]:
        """Return its pods by their rank."""
        selector = f"{ATTEMPT}={self.service['spec']['selector'][ATTEMPT]}"
        items = client.CoreV1Api(self.api).list_namespaced_pod(self.namespace, label_selector=selector).items
        return sorted(items, key=lambda pod: int(pod.metadata.labels[INDEX]))

    def wait_for_pods(self) -> None:
        """Wait until all of its pods are there."""
        count = self.job["spec"]["completions"]
        wait_until(lambda: len(self.pods()) == count, PATIENCE_S, f"{self.name} has {count} pods")


def gang(api: client.ApiClient, pod: Mapping[str, Any], nodes: int = 2) -> Gang:
    """Return a gang whose ranks are copies of a pod, which has the label `driftline/attempt`."""
    metadata, spec = copy.deepcopy(pod["metadata"]), copy.deepcopy(pod["spec"])
    name, namespace, labels = metadata["name"], metadata["namespace"], metadata["labels"]
    selector = {ATTEMPT: labels[ATTEMPT]}
    own = {"name": name, "namespace": namespace, "labels": labels}
    template = {
        "metadata": {"labels": labels, "annotations": metadata.get("annotations", {})},
        "spec": spec | {"subdomain": name},
    }
    peers = [{"podSelector": {"matchLabels": selector}}]
    return Gang(
        api=api,
        namespace=namespace,
        job={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": own,
            "spec": {
                "completionMode": "Indexed",
                "completions": nodes,
                "parallelism": nodes,
                "backoffLimit": 0,
                "template": template,
            },
        },
        service={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": own,
            "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
        },
        policy={
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": own,
            "spec": {
                "podSelector": {"matchLabels": selector},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": peers}],
                "egress": [{"to": peers}],
            },
        },
    )


def has_kueue(cluster: Cluster) -> bool:
    """Return whether Kueue's files are there, for a cluster that was started here."""
    return names.QUEUES.exists() and bool(cluster.control and (cluster.control.assets / "kueue").exists())


@contextmanager
def queues(cluster: Cluster, namespace: str, folder: Path, *, cores: str, **queue: object) -> Iterator[None]:
    """Run Kueue with the example's queues and the rights of the component, as long as the context lasts.

    Args:
        cores: quota of processors.
        queue: more of the cluster queue's spec.
    """
    with names.queues_served(cluster, folder):
        objects: list[Object] = list(yaml.safe_load_all(QUEUES.read_text(encoding="utf-8")))
        _, cluster_queue, local_queue = objects
        cluster_queue["spec"]["namespaceSelector"]["matchLabels"] = {"kubernetes.io/metadata.name": namespace}
        cluster_queue["spec"] |= queue
        (resources,) = (flavor["resources"] for flavor in cluster_queue["spec"]["resourceGroups"][0]["flavors"])
        resources[0]["nominalQuota"] = cores
        local_queue["metadata"]["namespace"] = namespace
        path = folder / "queues.yaml"
        path.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        wait_until(lambda: _is_applied(cluster, path), PATIENCE_S, "Kueue takes the queues")
        for item in accounts.documents(namespace, KUEUE):
            utils.create_from_dict(cluster.api, item)
        yield
        # While Kueue is there: it lets go of what it has in use.
        batch = client.BatchV1Api(cluster.api)
        for job in batch.list_namespaced_job(namespace).items:
            batch.delete_namespaced_job(job.metadata.name, namespace, body={"propagationPolicy": "Foreground"})
        cluster.kubectl("delete", "--timeout=60s", "--filename", str(path))


def _is_applied(cluster: Cluster, path: Path) -> bool:
    """Return whether objects could be applied: Kueue's webhooks may not listen yet."""
    try:
        cluster.kubectl("apply", "--filename", str(path))
    except RuntimeError:
        return False
    return True
