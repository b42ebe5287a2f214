"""Steps on several nodes: real Jobs of real pods, whose ranks meet each other, on a cluster that takes them away."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tests.cluster import gangs, names, ways
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching, Run
from tests.cluster.step_runs import WORK
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long

INDEX = "batch.kubernetes.io/job-completion-index"
RANK = "tests.doubles.acting_rank"
TWO = {"nodes": 2, "memory_gb": 1.2, "usd_per_hour": 1800.0}
"""A dollar a second for both nodes."""


@pytest.fixture(scope="module", autouse=True)
def names_of_pods(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A DNS, by which pods find each other."""
    with cluster.network():
        names.serve_names(cluster, tmp_path_factory.mktemp("names"))


def start(launches: Launching, *acts: str, **more: Any) -> Run:
    profile = TWO | more.pop("profile", {})
    return launches.start(*acts, module=RANK, is_shared=True, profile=profile, **more)


def jobs(launches: Launching) -> list[Any]:
    return list(client.BatchV1Api(launches.core.api_client).list_namespaced_job(launches.namespace).items)


def pods(launches: Launching) -> dict[int, Any]:
    """Return the pods of the gang by their number."""
    found = launches.core.list_namespaced_pod(launches.namespace).items
    return {int(pod.metadata.labels[INDEX]): pod for pod in found if INDEX in pod.metadata.labels}


def wait_until_gone(launches: Launching) -> None:
    def is_gone() -> bool:
        services = launches.core.list_namespaced_service(launches.namespace).items
        policies = client.NetworkingV1Api(launches.core.api_client).list_namespaced_network_policy(launches.namespace)
        return not (jobs(launches) or pods(launches) or services or policies.items)

    wait_until(is_gone, 60, "nothing of the gang is left", lambda: str([job.metadata.name for job in jobs(launches)]))


def test_two_pods_share_a_step_and_leave_nothing(launches: Launching, cluster: Cluster) -> None:
    run = start(launches, "*:steps 5 0.1; report")
    ended = run.ended()
    assert not ended.error, run.tail()
    assert (ended.value, ended.reasons) == (1, ["finished"])
    wait_until_gone(launches)


def test_a_rank_that_raises_is_the_cause_and_its_pod_is_named(launches: Launching) -> None:
    ended = start(launches, "*:steps 500 0.1|1:steps 5 0.1; raise no such column").ended()
    assert ended.reasons == ["code"]
    assert "no such column" in ended.error
    assert "pod 1 on" in ended.records[0]["said"]
    wait_until_gone(launches)


def test_a_gang_goes_on_when_the_run_that_started_it_is_killed(launches: Launching) -> None:
    run = start(launches, "*:steps 20 0.1; wait go; report")
    run.wait_for("rank 0: wait go")
    run.kill()
    (before,) = jobs(launches)
    again = start(launches, "*:steps 20 0.1; wait go; report")
    again.wait_for("already at this step")
    launches.put("go")
    ended = again.ended()
    assert not ended.error
    assert (ended.value, ended.reasons) == (1, ["finished"])
    assert f"job {before.metadata.name} of run" in again.text()
    wait_until_gone(launches)


def test_a_cancelled_run_lets_its_gang_save_and_leaves_nothing(launches: Launching) -> None:
    run = start(launches, "*:steps 2000 0.1")
    run.wait_for("rank 1: steps")
    run.kill(signal.SIGINT)
    assert "rank 0: saved" in run.text()
    assert [record["reason"] for record in launches.steps.records()] == ["cancelled"]
    wait_until_gone(launches)


def test_a_lost_pod_restarts_the_gang_and_all_hours_are_paid(launches: Launching) -> None:
    run = start(launches, "*:steps 2000 0.1", "*:steps 5 0.1; report")
    run.wait_for("rank 1: steps")
    ways.evict(launches.core, pods(launches)[1].metadata.name, launches.namespace)
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["evicted", "finished"]
    for record in ended.records:
        assert record["cost_usd"] == pytest.approx(record["wall_s"])  # a dollar a second for both nodes
    wait_until_gone(launches)


def test_a_namespace_with_a_dead_gang_can_be_deleted(launches: Launching) -> None:
    run = start(launches, "*:steps 2000 0.1|1:steps 5 0.1; raise no such column")
    run.wait_for("rank 1: raise")
    run.kill()  # nobody clears up
    wait_until(lambda: any(job.status.failed for job in jobs(launches)), 60, "the Job has failed")
    launches.core.delete_namespace(launches.namespace)

    def is_gone() -> bool:
        return launches.namespace not in [item.metadata.name for item in launches.core.list_namespace().items]

    wait_until(is_gone, 60, "the namespace is gone")


# -- in a queue --

LOWER, HIGHER = "gang-lower", "gang-higher"
IN_QUEUE = {"labels": {"kueue.x-k8s.io/queue-name": "steps"}}


@pytest.fixture
def queue(launches: Launching, reachable: Cluster, tmp_path: Path) -> Iterator[None]:
    """A queue with room for one gang of two pods, in which priority takes places away."""
    if not gangs.has_kueue(reachable):
        pytest.skip(gangs.NO_KUEUE)
    api = client.SchedulingV1Api(reachable.api)
    for name, value in ((LOWER, 1), (HIGHER, 1000)):
        api.create_priority_class({"metadata": {"name": name}, "value": value})
    preemption = {"withinClusterQueue": "LowerPriority"}
    with gangs.queues(reachable, launches.namespace, tmp_path, cores="2", preemption=preemption):
        yield
    for name in (LOWER, HIGHER):
        api.delete_priority_class(name)


def created(launches: Launching) -> Counter[str]:
    """Return how many pods each Job has ever created."""
    events = launches.core.list_namespaced_event(launches.namespace).items
    return Counter(
        event.involved_object.name
        for event in events
        if (event.involved_object.kind, event.reason) == ("Job", "SuccessfulCreate")
    )


def test_a_queue_decides_about_whole_gangs(launches: Launching, queue: None) -> None:
    """One that loses its place is another attempt; no Job starts a pod twice, none holds halves or waits forever."""
    first = start(launches, "*:steps 2000 0.1", "*:steps 5 0.1; report", profile=IN_QUEUE | {"priority_class": LOWER})
    first.wait_for("rank 1: steps")
    other = replace(WORK, fingerprint="e" * 64)
    urgent = start(launches, "*:steps 5 0.1; report", work=other, profile=IN_QUEUE | {"priority_class": HIGHER})
    assert not urgent.ended().error
    ended = first.ended()
    assert not ended.error, first.tail()
    mine = [record for record in ended.records if record["fingerprint"] == WORK.fingerprint]
    assert [record["reason"] for record in mine] == ["preempted_by_queue", "finished"]
    assert mine[0]["cost_usd"] > 0
    assert set(created(launches).values()) == {2}, created(launches)  # three Jobs of two pods each
    assert len(created(launches)) == 3
    wait_until_gone(launches)

    third, fourth = (replace(WORK, fingerprint=letter * 64) for letter in "dc")
    first = start(launches, "*:steps 5 0.1; wait go; report", work=third, profile=IN_QUEUE)
    first.wait_for("rank 1: wait go")
    second = start(launches, "*:report", work=fourth, profile=IN_QUEUE)
    second.wait_for("waits in its queue")
    assert len(launches.core.list_namespaced_pod(launches.namespace).items) == 2
    launches.put("go")
    assert not first.ended().error
    assert not second.ended().error
    wait_until_gone(launches)

    large = IN_QUEUE | {"nodes": 3, "queue_timeout_s": 10.0}
    ended = start(launches, "*:report", work=replace(WORK, fingerprint="b" * 64), profile=large).ended()
    assert ended.records[-1]["reason"] == "admission"
    assert "its queue did not let it in within 10 s" in ended.error
    assert ended.records[-1]["cost_usd"] == 0
    wait_until_gone(launches)


def test_a_service_that_cannot_be_made_is_a_named_ending(launches: Launching) -> None:
    hard = {"spec": {"hard": {"count/services": "0"}}, "metadata": {"name": "no-services"}}
    launches.core.create_namespaced_resource_quota(launches.namespace, hard)
    ended = start(launches, "*:report", profile={"schedule_timeout_s": 10.0}).ended()
    assert set(ended.reasons) == {"admission"}
    assert "Service" in ended.error
    wait_until_gone(launches)
