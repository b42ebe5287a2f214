"""The rights of a run for steps on several nodes are those it uses; and Kueue's queues, with the example's objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from platform_assets.kubernetes.api import ATTEMPT
from tests.cluster import accounts, gangs, names
from tests.cluster.cluster import Cluster
from tests.cluster.gangs import Gang
from tests.cluster.launching import Launching, Result
from tests.cluster.pods import manifest
from tests.cluster.requirements import KUBECONFIG
from tests.cluster.rights import GROUPS, OF_GANGS, OF_QUEUES, RUN, Right, used
from tests.cluster.waiting import wait_until

QUEUE = "kueue.x-k8s.io/queue-name"
WORKLOADS: tuple[str, str] = ("kueue.x-k8s.io", "v1beta2")
PATIENCE_S = 120.0
OF_RUNS = {right for right in OF_GANGS if right.account == RUN}
Object = dict[str, Any]


def api_of(cluster: Cluster, account: str, namespace: str) -> client.ApiClient:
    return client.ApiClient(accounts.configuration_of(cluster, account, namespace))


def gang_of(api: client.ApiClient, namespace: str, image: str, attempt: str, script: str = "exit 0") -> Gang:
    pod = manifest(f"driftline-tiny-train-{attempt}", image, script)
    pod["metadata"] |= {"namespace": namespace, "labels": {"app.kubernetes.io/component": "step", ATTEMPT: attempt}}
    return gangs.gang(api, pod)


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


@pytest.fixture
def queued(reachable: Cluster, namespace: str, granted: None, tmp_path: Path) -> Iterator[None]:
    """Kueue, the example's queues with room for one gang of two pods, and the rights of the component."""
    if not gangs.has_kueue(reachable):
        pytest.skip(gangs.NO_KUEUE)
    with gangs.queues(reachable, namespace, tmp_path, cores="150m"):
        yield


def test_of_two_gangs_in_a_queue_with_room_for_one_the_second_waits_whole(
    reachable: Cluster, namespace: str, queued: None, shell: str
) -> None:
    run = api_of(reachable, RUN, namespace)
    first, second = (gang_of(run, namespace, shell, name, "sleep 1000") for name in "ab")
    for gang in (first, second):
        gang.job["metadata"]["labels"] = {**gang.job["metadata"]["labels"], QUEUE: "steps"}
    first.create()
    workloads = client.CustomObjectsApi(run)

    def listed() -> list[Object]:
        items: list[Object] = workloads.list_namespaced_custom_object(*WORKLOADS, namespace, "workloads")["items"]
        return items

    def admitted() -> list[str]:
        return [
            item["metadata"]["ownerReferences"][0]["name"]
            for item in listed()
            if any(
                (c["type"], c["status"]) == ("Admitted", "True") for c in item.get("status", {}).get("conditions", ())
            )
        ]

    def running() -> set[str]:
        pods = reachable.core.list_namespaced_pod(namespace, label_selector=ATTEMPT).items
        return {
            f"{pod.metadata.labels[ATTEMPT]}{pod.metadata.labels['batch.kubernetes.io/job-completion-index']}"
            for pod in pods
        }

    wait_until(lambda: running() == {"a0", "a1"}, PATIENCE_S, "the first gang runs", lambda: str(listed()))
    second.create()
    wait_until(lambda: len(listed()) == 2, PATIENCE_S, "both are in the queue")
    wait_until(lambda: "insufficient unused quota" in str(listed()), PATIENCE_S, "Kueue says why the second waits")
    assert (admitted(), running()) == ([first.name], {"a0", "a1"})
    first.delete()
    wait_until(lambda: running() == {"b0", "b1"}, PATIENCE_S, "then the second", lambda: str(listed()))
    second.delete()
    assert used_in(reachable, namespace) >= OF_QUEUES
