"""Steps on several nodes: real Jobs of real pods, whose ranks meet each other, on a cluster that takes them away."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from tests.cluster import names
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching, Run
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long

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
    label = "batch.kubernetes.io/job-completion-index"
    return {int(pod.metadata.labels[label]): pod for pod in found if label in pod.metadata.labels}


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
