"""Steps on several nodes: real Jobs of real pods, whose ranks meet each other, on a cluster that takes them away."""

import signal
from typing import Any

import pytest
from kubernetes import client

from tests.cluster import names, ways
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching, Run
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
    return {int(pod.metadata.labels[INDEX]): pod for pod in found if INDEX in (pod.metadata.labels or {})}


def wait_until_gone(launches: Launching, patience_s: float = 60) -> None:
    def is_gone() -> bool:
        services = launches.core.list_namespaced_service(launches.namespace).items
        policies = client.NetworkingV1Api(launches.core.api_client).list_namespaced_network_policy(launches.namespace)
        return not (jobs(launches) or pods(launches) or services or policies.items)

    wait_until(
        is_gone, patience_s, "nothing of the gang is left", lambda: str([job.metadata.name for job in jobs(launches)])
    )


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


def test_a_service_that_cannot_be_made_is_a_named_ending(launches: Launching) -> None:
    hard = {"spec": {"hard": {"count/services": "0"}}, "metadata": {"name": "no-services"}}
    launches.core.create_namespaced_resource_quota(launches.namespace, hard)
    ended = start(launches, "*:report", profile={"schedule_timeout_s": 10.0}).ended()
    assert set(ended.reasons) == {"admission"}
    assert "Service" in ended.error
    wait_until_gone(launches)
