"""Parts of GPUs and zones, counted by the real scheduler; the devices themselves are numbers in a node's status."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from kubernetes import client

from platform_assets.base.settings import Settings
from platform_assets.launch.endings import first_try
from platform_assets.launch.step_profile import ZONE
from platform_assets.store.artifacts import ArtifactStore
from tests.cluster import gangs
from tests.cluster.cluster import Cluster
from tests.cluster.gangs import Gang
from tests.cluster.launching import Launching, Run
from tests.cluster.step_runs import SMALL, WORK, pod_of
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long

SLICE, SHARE, WHOLE = "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "nvidia.com/gpu"
SLEEP = "trap 'exit 0' TERM; sleep 1000 & wait"
READ_BYTES = 20_000_000
PATIENCE_S = 60.0


def names_of(core: client.CoreV1Api) -> list[str]:
    return sorted(node.metadata.name for node in core.list_node().items)


@contextmanager
def with_devices(core: client.CoreV1Api, node: str, counts: dict[str, int]) -> Iterator[None]:
    """Write extended resources into a node's capacity, and wait until its kubelet offers them."""
    paths = {name: "/status/capacity/" + name.replace("/", "~1") for name in counts}

    def patch(operations: list[dict[str, Any]]) -> None:
        core.patch_node_status(node, operations)

    patch([{"op": "add", "path": paths[name], "value": str(count)} for name, count in counts.items()])
    wait_until(
        lambda: (
            {name: core.read_node(node).status.allocatable.get(name) for name in counts}
            == {name: str(count) for name, count in counts.items()}
        ),
        PATIENCE_S,
        f"{node} offers {counts}",
        lambda: str(core.read_node(node).status.allocatable),
    )
    try:
        yield
    finally:
        patch([{"op": "remove", "path": path} for path in paths.values()])


@contextmanager
def in_zones(core: client.CoreV1Api, zones: dict[str, str]) -> Iterator[None]:
    for node, zone in zones.items():
        core.patch_node(node, {"metadata": {"labels": {ZONE: zone}}})
    try:
        yield
    finally:
        for node in zones:
            core.patch_node(node, {"metadata": {"labels": {ZONE: None}}})


def gang_of(cluster: Cluster, namespace: str, image: str, **profile: Any) -> Gang:
    """Return a gang of a profile's pods, each of which sleeps."""
    size = SMALL.replace(memory_gb=0.1, grace_s=15, **profile)
    settings = Settings.from_environment({"DRIFTLINE_NAMESPACE": namespace, "DRIFTLINE_TRAINER_IMAGE": image})
    pod = pod_of(settings, first_try(size), is_shared=True)
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", SLEEP]
    return gangs.gang(cluster.api, pod, nodes=size.nodes)


def placed(gang: Gang) -> list[str]:
    return sorted(pod.spec.node_name for pod in gang.pods() if pod.status.phase == "Running")


def refusals(gang: Gang) -> list[str]:
    """Return why its pods have no node, in the scheduler's words."""
    conditions = [condition for pod in gang.pods() for condition in pod.status.conditions or ()]
    return [item.message for item in conditions if item.type == "PodScheduled" and item.status == "False"]


@pytest.mark.parametrize(
    ("resource", "per_node"), [(WHOLE, 4), (SLICE, 1), (SHARE, 1)], ids=["several GPUs", "a slice", "a share"]
)
def test_a_gang_gets_the_devices_of_two_nodes_and_the_next_waits_for_them(
    resource: str, per_node: int, reachable: Cluster, namespace: str, shell: str
) -> None:
    nodes = names_of(reachable.core)
    profile = {"accelerators": per_node, "accelerator_resource": resource, "nodes": 2}
    first, second = (gang_of(reachable, namespace, shell, **profile) for _ in range(2))
    counts = {resource: per_node}
    with with_devices(reachable.core, nodes[0], counts), with_devices(reachable.core, nodes[1], counts):
        first.create()
        wait_until(lambda: placed(first) == nodes, PATIENCE_S, "a pod runs on each node", lambda: str(refusals(first)))
        second.create()
        wait_until(lambda: len(refusals(second)) == 2, PATIENCE_S, "the second waits")
        assert all(f"2 Insufficient {resource}" in sentence for sentence in refusals(second))
        first.delete()
        wait_until(lambda: placed(second) == nodes, PATIENCE_S, "the second runs", lambda: str(refusals(second)))
        second.delete()


def start_reading(launches: Launching, blob: str, letter: str, **profile: Any) -> Run:
    return launches.start(
        module="tests.doubles.reading_step",
        extras={"blob": blob},
        profile={"memory_gb": 0.5, "schedule_timeout_s": 900.0, **profile},
        work=replace(WORK, fingerprint=letter * 64),
    )


def test_a_step_is_bound_to_the_zone_of_its_data_or_its_bytes_have_a_price(launches: Launching) -> None:
    blob = ArtifactStore(launches.steps.settings.root).put(os.urandom(READ_BYTES))
    near, far = names_of(launches.core)
    price = {"cross_zone_usd_per_gb": 50.0}
    with in_zones(launches.core, {near: "zone-a", far: "zone-b"}):
        bound = start_reading(launches, blob, "f", data_zone="zone-a", data_zone_only=True, **price).ended()
        elsewhere = {"data_zone": "zone-a", "node_selector": {ZONE: "zone-b"}, **price}
        crossing = start_reading(launches, blob, "e", **elsewhere).ended()
        waiting = start_reading(launches, blob, "d", data_zone="zone-c", data_zone_only=True)
        waiting.wait_for("2 node(s) didn't match Pod's node affinity/selector")
        with in_zones(launches.core, {far: "zone-c"}):
            waited = waiting.ended()
    assert [result.error for result in (bound, crossing, waited)] == ["", "", ""]
    assert any("runs in zone zone-b but its data is in zone-a" in line for line in crossing.lines)
    (there,), (across,), (late,) = (
        [record for record in result.records if record["fingerprint"] == letter * 64]
        for result, letter in zip((bound, crossing, waited), "fed", strict=True)
    )
    assert (there["node"], there["zone"], there["data_zone"]) == (near, "zone-a", "zone-a")
    assert (there["cross_zone_bytes"], there["cross_zone_usd"]) == (0, 0)
    assert READ_BYTES <= there["received_bytes"] <= 1.5 * READ_BYTES
    assert (across["node"], across["zone"]) == (far, "zone-b")
    assert READ_BYTES <= across["cross_zone_bytes"] == across["received_bytes"] <= 1.5 * READ_BYTES
    assert across["cross_zone_usd"] == pytest.approx(across["cross_zone_bytes"] / 1e9 * 50.0)
    assert (late["node"], late["zone"], late["cross_zone_bytes"]) == (far, "zone-c", 0)
    assert "cross_zone_usd" not in late
