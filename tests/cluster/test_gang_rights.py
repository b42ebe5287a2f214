"""A step on several nodes by hand: what rights of a run and of the code server are enough for, and Kueue's queues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, watch

from tests.cluster import accounts, gangs
from tests.cluster.cluster import Cluster
from tests.cluster.gangs import ATTEMPT, Gang
from tests.cluster.pods import manifest
from tests.cluster.requirements import KUBECONFIG
from tests.cluster.rights import CODE, OF_GANGS, RUN, Right, used
from tests.cluster.waiting import wait_until

QUEUE = "kueue.x-k8s.io/queue-name"
WORKLOADS: tuple[str, str] = ("kueue.x-k8s.io", "v1beta2")
PATIENCE_S = 120.0
Object = dict[str, Any]


def api_of(cluster: Cluster, account: str, namespace: str) -> client.ApiClient:
    return client.ApiClient(accounts.configuration_of(cluster, account, namespace))


def gang_of(api: client.ApiClient, namespace: str, image: str, attempt: str, script: str = "exit 0") -> Gang:
    pod = manifest(f"driftline-tiny-train-{attempt}", image, script)
    pod["metadata"] |= {"namespace": namespace, "labels": {"app.kubernetes.io/component": "step", ATTEMPT: attempt}}
    return gangs.gang(api, pod)


def first_event(lister: Any, *arguments: str, **options: Any) -> str:
    """Return the type of the first event of a watch."""
    for event in watch.Watch().stream(lister, *arguments, timeout_seconds=int(PATIENCE_S), **options):
        return str(event["type"])
    raise TimeoutError(f"no event within {PATIENCE_S:g} s")


def used_in(cluster: Cluster, namespace: str) -> set[Right]:
    if cluster.control is None:
        pytest.skip(f"the audit log of the cluster in {KUBECONFIG} is not ours to read")
    return {right for right, _ in used(cluster.control.folder / "audit.log", [namespace])}


def test_a_run_makes_watches_and_removes_a_gang_and_the_code_server_ends_one(
    reachable: Cluster, namespace: str, granted: None, shell: str
) -> None:
    run, code = (api_of(reachable, account, namespace) for account in (RUN, CODE))
    gang = gang_of(run, namespace, shell, "a")
    gang.create()
    for kind, _, group in gang.kinds:
        assert getattr(group, f"read_namespaced_{kind}")(gang.name, namespace).metadata.name == gang.name
        lister = getattr(group, f"list_namespaced_{kind}")
        assert len(lister(namespace).items) == 1
        assert first_event(lister, namespace) == "ADDED"
    gang.delete()
    orphan = gang_of(run, namespace, shell, "b")
    orphan.create()
    batch = client.BatchV1Api(code)
    assert orphan.name in [job.metadata.name for job in batch.list_namespaced_job(namespace).items]
    batch.delete_namespaced_job(orphan.name, namespace, body={"propagationPolicy": "Background"})
    wait_until(
        lambda: reachable.core.list_namespaced_pod(namespace).items == [],
        PATIENCE_S,
        "the pods are gone with their Jobs",
    )
    assert used_in(reachable, namespace) == {right for right in OF_GANGS if right.resource != "workloads"}


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
    name = listed()[0]["metadata"]["name"]
    assert workloads.get_namespaced_custom_object(*WORKLOADS, namespace, "workloads", name)["metadata"]["name"] == name
    lister = workloads.list_namespaced_custom_object
    assert first_event(lister, *WORKLOADS, namespace, "workloads") == "ADDED"
    first.delete()
    wait_until(lambda: running() == {"b0", "b1"}, PATIENCE_S, "then the second", lambda: str(listed()))
    second.delete()
    assert used_in(reachable, namespace) >= {right for right in OF_GANGS if right.resource == "workloads"}
