"""The rights of a run for steps on several nodes are those it uses."""

from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster import accounts, names
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching, Result
from tests.cluster.requirements import KUBECONFIG
from tests.cluster.rights import GROUPS, OF_GANGS, OF_QUEUES, RUN, Right, used

OF_RUNS = {right for right in OF_GANGS if right.account == RUN}


def used_in(cluster: Cluster, namespace: str) -> set[Right]:
    if cluster.control is None:
        pytest.skip(f"the audit log of the cluster in {KUBECONFIG} is not ours to read")
    return {right for right, _ in used(cluster.control.folder / "audit.log", [namespace])}


def run_of(launches: Launching, *acts: str) -> Result:
    profile = {"nodes": 2, "memory_gb": 1.2}
    return launches.run(*acts, module="tests.doubles.acting_rank", is_shared=True, profile=profile)


def test_a_run_uses_every_right_for_steps_on_several_nodes(
    launches: Launching, reachable: Cluster, tmp_path: Path
) -> None:
    names.serve_names(reachable, tmp_path)
    isolate(reachable, launches.namespace)
    ended = run_of(launches, "*:steps 500 0.1|1:steps 2 0.1; signal 9", "*:steps 2 0.1; report")
    assert (ended.error, len(ended.reasons), ended.reasons[-1]) == ("", 2, "finished")
    rights_used = used_in(reachable, launches.namespace)
    of_kinds = {right for right in rights_used if right.resource in ("services", *GROUPS)}
    assert of_kinds - OF_QUEUES == OF_RUNS


@pytest.mark.parametrize("right", sorted(OF_RUNS), ids=lambda right: f"{right.verb} {right.resource}")
def test_without_a_right_the_run_names_it_and_creates_nothing(
    right: Right, launches: Launching, reachable: Cluster
) -> None:
    accounts.revoke(reachable, launches.namespace, right)
    ended = run_of(launches, "*:report")
    assert f"may not {right.verb} {right.name} in namespace" in ended.error
    assert ended.records == []
    assert client.BatchV1Api(reachable.api).list_namespaced_job(launches.namespace).items == []


def isolate(cluster: Cluster, namespace: str) -> None:
    """Deny pods what no policy allows, so that a gang needs one of its own; and allow what steps need."""
    everywhere = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    out = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}
    for name, spec in (("deny", everywhere), ("out", out)):
        body = {"metadata": {"name": name}, "spec": spec}
        client.NetworkingV1Api(cluster.api).create_namespaced_network_policy(namespace, body)
