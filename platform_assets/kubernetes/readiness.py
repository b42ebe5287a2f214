"""Check before anything is on record or paid for that a cluster can run a step.

It answers, is new enough, grants the rights that watching a pod needs, and takes the step's pod and the one on demand
that may follow it: a pod that is created but cannot be watched costs money until its deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.launch.tries import NotReady

OLDEST = (1, 32)
"""The oldest Kubernetes whose statuses the classes of failure were checked against."""
RIGHTS = {"pods": ("create", "delete", "get", "list", "watch"), "pods/log": ("get",)}
GRANT = "deploy/kubernetes/base/rights.yaml grants them"


def check(api: Api, pods: Mapping[str, Manifest]) -> None:
    """Ask a cluster whether it can run a step, and warn of a namespace in which nothing bounds what steps take.

    Args:
        pods: that the step may need, by the name of their profile.

    Raises:
        NotReady: one sentence about what came and what to do.
    """
    try:
        sentence = next(_obstacles(api, pods), None)
        if sentence is None and not api.has_quota():
            api.log(
                f"Namespace {api.namespace} has no ResourceQuota, so steps may take all that its services need to "
                "start again: apply one, such as those of deploy/kubernetes/base/quotas.yaml."
            )
    except ApiTrouble as trouble:
        sentence = f"{trouble}: check DRIFTLINE_NAMESPACE and the cluster that KUBECONFIG names, and run this again."
    if sentence:
        raise NotReady(sentence)


def _obstacles(api: Api, pods: Mapping[str, Manifest]) -> Iterator[str]:
    version = api.version()
    if version is None:
        return  # no API server that could be asked about rights either
    if version < OLDEST:
        oldest, answer = (".".join(map(str, numbers)) for numbers in (OLDEST, version))
        yield f"The cluster runs Kubernetes {answer}; expected {oldest} or newer: update it, or name another cluster."
    missing = [
        f"{verb} {resource}" for resource, verbs in RIGHTS.items() for verb in verbs if not api.may(verb, resource)
    ]
    if missing:
        yield f"The account of this run may not {', '.join(missing)} in namespace {api.namespace}; {GRANT}."
    for profile, pod in pods.items():
        if refusal := api.refusal(pod):
            yield f"The cluster refuses a pod of profile {profile}: {refusal}. Change the profile, or what refuses it."
