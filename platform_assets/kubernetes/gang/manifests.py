"""Build the objects of an attempt on several nodes: an Indexed Job, and its headless Service and network policy.

The Job never retries: one attempt is one Job, and the launcher decides about the next one. Service and network policy
are owned by the Job, so they are deleted with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from platform_assets.kubernetes.api import ATTEMPT, INDEX
from platform_assets.kubernetes.manifest import Manifest, Spec
from platform_assets.launch.step_profile import StepProfile
from platform_assets.store.records.values import items, member, text, texts

QUEUE = "kueue.x-k8s.io/"
"""Prefix of Kueue's labels. Only the Job carries them: a pod with them would queue by itself."""
JOIN_S = 60.0
"""How much longer than `start_timeout_s` agents wait for each other: that ends the attempt, and says why."""
PORT = 29400
"""Where the first pod's agent listens for the others."""


def job(pod: Manifest, size: StepProfile) -> Manifest:
    """Return the Job that runs a copy of a pod per node of its profile."""
    metadata, nodes = pod["metadata"], size.nodes
    labels = {key: value for key, value in metadata["labels"].items() if not key.startswith(QUEUE)}
    (container,) = pod["spec"]["containers"]
    template = {
        **pod["spec"],
        "subdomain": metadata["name"],
        "affinity": {**pod["spec"].get("affinity", {}), "podAntiAffinity": _apart(labels[ATTEMPT])},
        "containers": [{**container, "env": [*container["env"], *_of_rank(metadata["name"], pod, size)]}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",  # not while the one before may still be at work
            "template": {"metadata": {"labels": labels, "annotations": metadata["annotations"]}, "spec": template},
        },
    }


def service(job: Manifest, uid: str) -> Spec:
    """Return the headless Service that gives each pod of a Job a name, also before the pod is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(job, uid),
        "spec": {"clusterIP": "None", "selector": _members(job), "publishNotReadyAddresses": True},
    }


def network_policy(job: Manifest, uid: str, isolated: Sequence[str]) -> Spec:
    """Return the policy that lets the pods of a Job reach each other; a fixed one cannot tell two Jobs apart.

    Args:
        isolated: the directions, `Ingress` and `Egress`, in which other policies isolate its pods already. In any other
            direction ours would be the first, and cut them off from the store.
    """
    members = [{"podSelector": {"matchLabels": _members(job)}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _owned(job, uid),
        "spec": {
            "podSelector": {"matchLabels": _members(job)},
            "policyTypes": list(isolated),
            **({"ingress": [{"from": members}]} if "Ingress" in isolated else {}),
            **({"egress": [{"to": members}]} if "Egress" in isolated else {}),
        },
    }


def isolated(job: Manifest, policies: Sequence[object]) -> Sequence[str]:
    """Return the directions in which network policies of its namespace isolate the pods of a Job."""
    labels = job["metadata"]["labels"]
    kinds = [
        member(policy, "spec", "policyTypes")
        for policy in policies
        if _selects(member(policy, "spec", "podSelector"), labels)
    ]
    found = {f"{direction}" for directions in kinds if isinstance(directions, list) for direction in directions}
    return sorted(found, reverse=True)


def _selects(selector: object, labels: Mapping[str, str]) -> bool:
    holds = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    return texts(selector, "matchLabels").items() <= labels.items() and all(
        holds[text(item, "operator")](text(item, "key"), member(item, "values") or ())
        for item in items(selector, "matchExpressions")
    )


def _members(job: Manifest) -> dict[str, str]:
    return {ATTEMPT: job["metadata"]["labels"][ATTEMPT]}


def _owned(job: Manifest, uid: str) -> Spec:
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": uid}
    labels = {key: value for key, value in metadata["labels"].items() if not key.startswith(QUEUE)}
    return {**metadata, "labels": labels, "annotations": {}, "ownerReferences": [owner]}


def _apart(attempt: str) -> Spec:
    """Return a preference for one node per pod: pods on one node share its network, and are lost together."""
    term = {"labelSelector": {"matchLabels": {ATTEMPT: attempt}}, "topologyKey": "kubernetes.io/hostname"}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _of_rank(name: str, pod: Manifest, size: StepProfile) -> list[dict[str, Any]]:
    """Return torchrun's variables: each agent's number, and the address of the first agent."""
    fixed = {
        "PET_NNODES": str(size.nodes),
        "PET_NPROC_PER_NODE": str(size.processes_per_node),
        "PET_MASTER_ADDR": f"{name}-0.{name}.{pod['metadata']['namespace']}.svc",
        "PET_MASTER_PORT": str(PORT),
        "PET_JOIN_S": f"{size.start_timeout_s + JOIN_S:g}",
    }
    index = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    return [*({"name": key, "value": value} for key, value in fixed.items()), index]
