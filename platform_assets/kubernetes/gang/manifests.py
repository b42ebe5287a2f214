"""Build the objects of an attempt on several nodes: an Indexed Job, and its headless Service and network policy.

The Job never retries: one attempt is one Job, and the launcher decides about the next one. Service and network policy
are owned by the Job, so they are deleted with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from platform_assets.kubernetes.api import ATTEMPT, INDEX
from platform_assets.kubernetes.manifest import Manifest, Metadata
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
    # Of torchrun's agents: how many there are, the address of the first, and each one's number.
    variables = {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(size.processes_per_node),
        # The first pod's name by the Service.
        "PET_MASTER_ADDR": f"{metadata['name']}-0.{metadata['name']}.{metadata['namespace']}.svc",
        "PET_MASTER_PORT": str(PORT),
        "PET_JOIN_S": f"{size.start_timeout_s + JOIN_S:g}",
    }
    rank = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    of_agent = [*({"name": key, "value": value} for key, value in variables.items()), rank]
    # Pods on one node share its network, and are lost together.
    term = {"labelSelector": {"matchLabels": {ATTEMPT: labels[ATTEMPT]}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    template = {
        **pod["spec"],
        "subdomain": metadata["name"],
        "affinity": {**pod["spec"].get("affinity", {}), "podAntiAffinity": apart},
        "containers": [{**container, "env": [*container["env"], *of_agent]}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,  # retries are the launcher's, each with a record
            "podReplacementPolicy": "Failed",  # not while the one before may still be at work
            "template": {"metadata": {"labels": labels, "annotations": metadata["annotations"]}, "spec": template},
        },
    }


def service(job: Manifest, uid: str) -> Manifest:
    """Return the headless Service that gives each pod of a Job a name, also before the pod is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(job, uid),
        "spec": {"clusterIP": "None", "selector": _members(job), "publishNotReadyAddresses": True},
    }


def network_policy(job: Manifest, uid: str, isolated: Sequence[str]) -> Manifest:
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
    holds = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    kinds = [
        member(policy, "spec", "policyTypes")
        for policy in policies
        if texts(policy, "spec", "podSelector", "matchLabels").items() <= labels.items()
        and all(
            holds[text(item, "operator")](text(item, "key"), member(item, "values") or ())
            for item in items(policy, "spec", "podSelector", "matchExpressions")
        )
    ]
    found = {f"{direction}" for directions in kinds if isinstance(directions, list) for direction in directions}
    return sorted(found, reverse=True)


def _members(job: Manifest) -> dict[str, str]:
    return {ATTEMPT: job["metadata"]["labels"][ATTEMPT]}


def _owned(job: Manifest, uid: str) -> Metadata:
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": uid}
    labels = {key: value for key, value in metadata["labels"].items() if not key.startswith(QUEUE)}
    return {**metadata, "labels": labels, "annotations": {}, "ownerReferences": [owner]}
