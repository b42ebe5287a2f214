"""A replica of the service whose volume gets full: it refuses before Kubernetes evicts it, and loses nothing.

Only the service runs in the cluster; what it serves is trained and released next to it.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from platform_assets.kubernetes import service_manifests
from platform_assets.store.product_store import ProductStore
from tests.cluster import loop, platform_images
from tests.cluster.cluster import Cluster
from tests.cluster.laptop import Laptop
from tests.cluster.loop import OWN, SMALL, ask
from tests.cluster.node import Node, conditions_of
from tests.cluster.platform import Platform
from tests.cluster.waiting import wait_until
from tests.cluster.ways import container_of
from tests.doubles import cluster_environment
from tests.doubles.products import live_parts
from tests.doubles.products.live_parts import LEARNED, SPEC
from tests.doubles.received import Arrived
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

PATIENCE_S = 240.0
ROOM_BYTES = 16 * 1024**2
"""Of the volume of a replica that gets full."""
EVICTED_S = 45.0
"""The kubelets of the tests evict a pod with a volume over its limit within some 10 s."""


@pytest.fixture(scope="module")
def image(cluster: Cluster, repository: Path) -> str:
    """The image of services, by its digest in the cluster's registry."""
    with cluster.network():
        return cluster.registry.push_built("service", platform_images.built(repository, "service"))


@pytest.fixture
def platform(reachable: Cluster, image: str, s3: S3Server, stored: None, tmp_path: Path) -> Iterator[Platform]:
    with loop.services_alone(reachable, image, s3, tmp_path) as platform:
        yield platform


@pytest.fixture
def released(platform: Platform, repository: Path, tmp_path: Path) -> None:
    """A release and its Bento in the store."""
    checkout = cluster_environment.checkout(repository, tmp_path / "checkout", live_parts)
    store = {"DRIFTLINE_ROOT": platform.settings.root, **{n: v for n, v in os.environ.items() if n.startswith("AWS_")}}
    operator, key = Laptop(checkout, tmp_path / "operator", SPEC.name, SMALL | store), SPEC.grain.key_at
    for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
        loop.land((platform.settings,), live_parts.files(index, at))
    operator.job("advance", key(0), key(LEARNED - 1))
    operator.job("retrain", key(LEARNED))
    assert loop.newest_release(platform.settings)[0] == 1


def test_a_replica_without_room_refuses_and_loses_nothing_when_it_is_killed(
    platform: Platform, released: None, s3: S3Server, machines: list[Node]
) -> None:
    """The store is away and a caller with an open connection goes on, so that the volume would be full in seconds."""
    text = service_manifests.manifests(ProductStore(SPEC, platform.settings), 1)
    platform.apply(text.replace(f'"{service_manifests.ROOM_BYTES}"', f'"{ROOM_BYTES}"'), "service")
    platform.wait_for(service_manifests.name_of(SPEC.name))
    (pod,) = loop.replicas(platform)
    waiting = partial(_waiting, platform)
    s3.program.kill()
    try:
        acknowledged, problem = _asked_until_refused(pod)
        node = next(node for node in machines if node.name == pod.spec.node_name)
        volume = node.disk / "lib/kubelet/pods" / pod.metadata.uid / "volumes/kubernetes.io~empty-dir/state"
        used_bytes = int(subprocess.check_output(["du", "-s", "-B1", str(volume)], text=True).split()[0])
        print(f"refused after {len(acknowledged)} answers at {used_bytes / ROOM_BYTES:.1%} of the volume: {problem}")
        assert 0.8 * ROOM_BYTES < used_bytes < 0.95 * ROOM_BYTES
        waiting(lambda: not _is_ready(platform), "Kubernetes sends it no requests")
        time.sleep(EVICTED_S)
        assert [item.status.phase for item in platform.pods(OWN)] == ["Running"]
        node.kill_container(container_of(pod))
        waiting(lambda: _restarts(platform) == [1], "its container has started again")
        waiting(lambda: _started(platform) == [True], "it counts as started: a full log must not restart it")
        assert not _is_ready(platform)
        time.sleep(EVICTED_S)
        assert _restarts(platform) == [1]
    finally:
        s3.start_again()
    waiting(lambda: _is_ready(platform), "it takes requests again")
    arrived = Arrived(platform.settings.root, SPEC.name)
    waiting(lambda: acknowledged <= arrived.look(), "every answer is in the store")
    (after,) = platform.pods(OWN)
    assert after.metadata.uid == pod.metadata.uid, "it was not evicted"


def _asked_until_refused(pod: Any) -> tuple[set[str], str]:
    """Ask a replica until it refuses by name; return the ids of its answers and what it said.

    Its readiness is asked for after each request: it is not ready before it refuses.
    """
    address, probes = (f"http://{pod.status.pod_ip}:{port}" for port in (3000, 3001))
    acknowledged, was_ready = set[str](), True
    for first in range(200_000, 400_000, 250):
        parts = [
            live_parts.question({"part": f"p{first + number}", "width": 0.5, "weight": 0.5}, datetime.now(UTC))
            for number in range(250)
        ]
        status, answer = ask(address, parts)
        if status != 200:
            assert status == 503 and "this replica writes nothing" in answer["error"], answer
            assert not was_ready
            return acknowledged, str(answer["error"])
        acknowledged |= {row["prediction_id"] for row in answer}
        state = loop.get(f"{probes}/readyz")
        if was_ready and not state["is_ready"]:
            print(f"not ready after {len(acknowledged)} answers: {state['problem']}")
            assert "this replica takes no requests, because its pod would be evicted" in state["problem"]
        was_ready = state["is_ready"]
    raise AssertionError("its volume was never full")


def _is_ready(platform: Platform) -> bool:
    (pod,) = loop.replicas(platform)
    return conditions_of(pod)["Ready"] == "True"


def _restarts(platform: Platform) -> list[int]:
    return [status.restart_count for status in _containers(platform)]


def _containers(platform: Platform) -> list[Any]:
    """Return the state of each container; a pod that was created a moment ago shows none."""
    return [status for pod in loop.replicas(platform) for status in pod.status.container_statuses or ()]


def _started(platform: Platform) -> list[bool]:
    """Return whether the startup probe of each container has passed; if it never does, the kubelet restarts it."""
    return [status.started for status in _containers(platform)]


def _waiting(platform: Platform, condition: Callable[[], object], text: str) -> None:
    def described() -> str:
        pods = platform.kubectl("get", "pods", "--output=wide")
        return pods + platform.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:]

    wait_until(lambda: bool(condition()), PATIENCE_S, text, described)
