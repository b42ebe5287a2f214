"""Steps on several nodes in a queue of Kueue: admitted, preempted and left waiting as a whole."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster import gangs
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching
from tests.cluster.rights import OF_QUEUES
from tests.cluster.step_runs import WORK
from tests.cluster.test_gang_rights import used_in
from tests.cluster.test_gangs import jobs, names_of_pods, start, wait_until_gone
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long
__all__ = ["names_of_pods"]

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


def test_a_queue_decides_about_whole_gangs(launches: Launching, reachable: Cluster, queue: None) -> None:
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
    assert used_in(reachable, launches.namespace) >= OF_QUEUES


def test_a_job_that_is_let_in_again_while_no_launcher_lives_starts_no_step(launches: Launching, queue: None) -> None:
    first = start(launches, "*:lease; steps 2000 0.1", profile=IN_QUEUE | {"priority_class": LOWER})
    first.wait_for("rank 1: steps")
    first.kill()

    def described() -> str:
        return f"{jobs(launches)}\n{launches.core.list_namespaced_event(launches.namespace).items}"

    other = replace(WORK, fingerprint="e" * 64)
    urgent = start(launches, "*:steps 5 0.1; report", work=other, profile=IN_QUEUE | {"priority_class": HIGHER})
    assert not urgent.ended().error
    wait_until(lambda: any(job.status.failed for job in jobs(launches)), 120, "the Job has failed", described)
    assert sorted(created(launches).values()) == [2, 4], created(launches)  # those of the second start ended at once
    ended = start(launches, "*:lease; steps 5 0.1; report", profile=IN_QUEUE | {"priority_class": LOWER}).ended()
    assert not ended.error
    mine = [record for record in ended.records if record["fingerprint"] == WORK.fingerprint]
    assert [record["reason"] for record in mine] == ["preempted", "finished"]
    wait_until_gone(launches)
