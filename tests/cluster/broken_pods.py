"""Pod manifests with one mistake each, and what Kubernetes 1.35 answers to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster.pods import Manifest, manifest

KB = 1000


@dataclass(frozen=True)
class Broken:
    """A mistake in a pod's manifest.

    Attributes:
        change: makes the mistake in a sound manifest.
        status: HTTP status of the API server's answer; 201 if it accepts the pod.
        message: words of a refusal.
    """

    name: str
    change: Callable[[Manifest], object]
    status: int
    message: str = ""

    def manifest(self, image: str) -> Manifest:
        """Return a manifest with this mistake alone."""
        pod = manifest("step", image, "exit 0")
        self.change(pod)
        return pod


def _pod(**fields: Any) -> Callable[[Manifest], object]:
    return lambda pod: pod.update(fields)


def _metadata(**fields: Any) -> Callable[[Manifest], object]:
    return lambda pod: pod["metadata"].update(fields)


def _spec(**fields: Any) -> Callable[[Manifest], object]:
    return lambda pod: pod["spec"].update(fields)


def _container(**fields: Any) -> Callable[[Manifest], object]:
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def _resources(requests: dict[str, str], limits: dict[str, str]) -> Callable[[Manifest], object]:
    return _container(resources={"requests": requests, "limits": limits})


GPU = "nvidia.com/gpu"
MISSING_SECRET = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "token"}}}
BROKEN = (
    Broken("the kind is Job", _pod(kind="Job"), 400, "cannot be handled as a Pod"),
    Broken("the apiVersion is apps/v1", _pod(apiVersion="apps/v1"), 400, "cannot be handled as a Pod"),
    Broken("4 GB of memory", _resources({"memory": "4 GB"}, {}), 400, "quantities must match"),
    Broken(
        "more requested than the limit", _resources({"memory": "2Gi"}, {"memory": "1Gi"}), 422, "less than or equal"
    ),
    Broken("half a GPU", _resources({}, {GPU: "0.5"}), 422, "must be an integer"),
    Broken("a GPU requested without a limit", _resources({GPU: "1"}, {}), 422, "Limit must be set"),
    Broken("an environment name with =", _container(env=[{"name": "A=B", "value": "1"}]), 422, "environment variable"),
    Broken(
        "a mount of a volume that is not there",
        _container(volumeMounts=[{"name": "nowhere", "mountPath": "/data"}]),
        422,
        "volumeMounts[0].name: Not found",
    ),
    Broken("activeDeadlineSeconds is 0", _spec(activeDeadlineSeconds=0), 422, "activeDeadlineSeconds"),
    Broken("300 kB of annotations", _metadata(annotations={"note": "x" * 300 * KB}), 422, "may not be more than"),
    Broken("a label key with a space", _metadata(labels={"a b": "c"}), 422, "metadata.labels"),
    Broken("an unknown ServiceAccount", _spec(serviceAccountName="nobody"), 403, "serviceaccount"),
    Broken("an unknown PriorityClass", _spec(priorityClassName="highest"), 403, "PriorityClass"),
    Broken("a privileged container", _container(securityContext={"privileged": True}), 403, "violates PodSecurity"),
    Broken("an unknown DNS policy", _spec(dnsPolicy="Sometimes"), 422, "spec.dnsPolicy"),
    Broken("port 70000", _container(ports=[{"containerPort": 70000}]), 422, "containerPort"),
    Broken("a toleration that Equals", _spec(tolerations=[{"key": "a", "operator": "Equals"}]), 422, "tolerations"),
    # Sound as manifests: what is wrong shows when the pod is to start, or never.
    Broken("a negative grace period", _spec(terminationGracePeriodSeconds=-5), 201),
    Broken("a field that Kubernetes does not know", _spec(restartPolice="Never"), 201),
    Broken("a Secret that is not there", _container(env=[MISSING_SECRET]), 201),
    Broken("a node selector that no node matches", _spec(nodeSelector={"gpu": "yes"}), 201),
)
