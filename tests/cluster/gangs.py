"""A step on several nodes without its launcher: the launcher's own Job, Service and NetworkPolicy, made of any pod."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, utils

from platform_assets.base.settings import REPOSITORY
from platform_assets.kubernetes.api import ATTEMPT
from platform_assets.kubernetes.gang import manifests
from tests.cluster import accounts, names
from tests.cluster.cluster import Cluster
from tests.cluster.rights import KUEUE
from tests.cluster.step_runs import SMALL
from tests.cluster.waiting import wait_until

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
        return str(self.job["metadata"]["name"])

    @property
    def kinds(self) -> dict[str, Object]:
        """Each manifest by its kind, as the client's methods call it."""
        return {"job": self.job, "service": self.service, "network_policy": self.policy}

    def create(self) -> None:
        """Create the Job, then what belongs to it and goes with it."""
        job = client.BatchV1Api(self.api).create_namespaced_job(self.namespace, self.job)
        for item in (self.service, self.policy):
            item["metadata"]["ownerReferences"][0]["uid"] = job.metadata.uid
        client.CoreV1Api(self.api).create_namespaced_service(self.namespace, self.service)
        client.NetworkingV1Api(self.api).create_namespaced_network_policy(self.namespace, self.policy)

    def delete(self) -> None:
        body = {"propagationPolicy": "Background"}
        client.BatchV1Api(self.api).delete_namespaced_job(self.name, self.namespace, body=body)

    def pods(self) -> list[client.V1Pod]:
        selector = f"{ATTEMPT}={self.job['metadata']['labels'][ATTEMPT]}"
        items = client.CoreV1Api(self.api).list_namespaced_pod(self.namespace, label_selector=selector).items
        return sorted(items, key=lambda pod: int(pod.metadata.labels[manifests.INDEX]))

    def wait_for_pods(self) -> None:
        count = self.job["spec"]["completions"]
        wait_until(lambda: len(self.pods()) == count, PATIENCE_S, f"{self.name} has {count} pods")


def gang(api: client.ApiClient, pod: Mapping[str, Any], nodes: int = 2) -> Gang:
    """Return a gang whose pods are such a pod each, which has the label `driftline/attempt`."""
    whole: Any = copy.deepcopy(pod)
    whole["metadata"].setdefault("annotations", {})
    whole["spec"]["containers"][0].setdefault("env", [])
    job: Any = manifests.job(whole, SMALL.replace(nodes=nodes))
    uid = "of a Job that is not there"
    service, policy = manifests.service(job, uid), manifests.network_policy(job, uid, ["Ingress", "Egress"])
    return Gang(api=api, namespace=whole["metadata"]["namespace"], job=job, service=service, policy=policy)


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
