"""Nodes that are cut off for a while, or lost: with the right to read nodes, and without it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from kubernetes import client

from platform_assets.kubernetes.manifest import UNREACHABLE_S
from tests.cluster.accounts import RUN
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching
from tests.cluster.node import Node

pytestmark = pytest.mark.long


@pytest.fixture(params=["reads nodes", "reads no nodes"])
def account(request: pytest.FixtureRequest, launches: Launching) -> Launching:
    """Runs whose account may read nodes, or may not."""
    if request.param == "reads no nodes":
        api = client.RbacAuthorizationV1Api(launches.core.api_client)
        api.patch_cluster_role_binding(f"driftline-nodes-{launches.namespace}", {"subjects": []})
    return launches


def node_of(launches: Launching, machines: list[Node]) -> Node:
    name = launches.core.read_namespaced_pod(launches.pod(), launches.namespace).spec.node_name
    return next(node for node in machines if node.name == name)


@contextmanager
def cut_off(cluster: Cluster, node: Node) -> Iterator[None]:
    """Cut a node's cable as long as the context lasts, and wait until the node is Ready again."""
    node.cable.cut()
    try:
        yield
    finally:
        node.cable.plug()
        cluster.wait_for_node(node.name)


def test_a_node_that_is_cut_off_for_a_moment_keeps_its_step(
    cluster: Cluster, machines: list[Node], account: Launching
) -> None:
    run = account.start("wait go; report")
    run.wait_for("ready")
    with cut_off(cluster, node_of(account, machines)):
        cluster.wait_for_node(node_of(account, machines).name, is_ready=False)
    account.put("go")
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]


def test_a_lost_node_is_reported_before_its_pods_are_evicted(
    cluster: Cluster, machines: list[Node], account: Launching
) -> None:
    run = account.start("wait go; report", "report")
    run.wait_for("ready")
    node = node_of(account, machines)
    with cut_off(cluster, node):
        ended = run.ended()
        ready = next(item for item in account.core.read_node(node.name).status.conditions if item.type == "Ready")
    assert not ended.error
    assert ended.reasons == ["node_lost", "finished"]
    lost, finished = ended.records
    silent_since, last_sign = ready.last_transition_time, ready.last_heartbeat_time
    assert (datetime.fromisoformat(finished["requested_at_utc"]) - silent_since).total_seconds() < UNREACHABLE_S
    node_requests = requests(cluster, account.namespace, "nodes")
    paid_until = last_sign if len(node_requests) > 1 else silent_since
    assert datetime.fromisoformat(lost["ended_at_utc"]) == paid_until, "what is paid for ends with the node"
    forbidden = [request for request in node_requests if request["responseStatus"]["code"] == 403]
    assert len(forbidden) == (0 if len(node_requests) > 1 else 1), "a refused request is not repeated"


def requests(cluster: Cluster, namespace: str, resource: str) -> list[dict[str, Any]]:
    """Return what the account of a namespace's runs has asked the API about a resource."""
    assert cluster.control is not None
    user = f"system:serviceaccount:{namespace}:{RUN}"
    lines = (cluster.control.folder / "audit.log").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines if user in line]
    return [event for event in events if event.get("objectRef", {}).get("resource") == resource]
