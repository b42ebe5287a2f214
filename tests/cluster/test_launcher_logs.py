"""The lines of a step reach the run's log, once and in order, or the log says which are missing."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.launched_run import Result
from tests.cluster.launching import Launching
from tests.cluster.node import Node
from tests.cluster.test_launcher_nodes import cut_off, node_of

pytestmark = pytest.mark.long

AWAY_S = 11.0
LINES = 60


@contextmanager
def kubelet_stopped(_: Cluster, node: Node) -> Iterator[None]:
    """Let a kubelet stand still as long as the context lasts."""
    node.send("kubelet", signal.SIGSTOP)
    try:
        yield
    finally:
        node.send("kubelet", signal.SIGCONT)


@pytest.mark.parametrize("trouble", [kubelet_stopped, cut_off])
def test_no_line_is_lost_while_a_log_cannot_be_read(
    cluster: Cluster, machines: list[Node], launches: Launching, trouble: Callable[[Cluster, Node], Iterator[None]]
) -> None:
    run = launches.start(f"say {LINES} 0.4; report")
    run.wait_for("line 3")
    with trouble(cluster, node_of(launches, machines)):
        time.sleep(AWAY_S)
    ended = run.ended()
    assert not ended.error
    assert messages(ended) == [f"line {number}" for number in range(LINES)]


def messages(ended: Result) -> list[str]:
    return [line for line in ended.lines if line.startswith("line ")]


def test_lines_lost_while_the_kubelet_is_suspended_are_reported(
    cluster: Cluster, machines: list[Node], launches: Launching
) -> None:
    run = launches.start("say 3 0.1; wait go; say 3 0.1; report")
    run.wait_for("ready")
    with kubelet_stopped(cluster, node_of(launches, machines)):
        launches.core.delete_namespaced_pod(launches.pod(), launches.namespace, grace_period_seconds=0)
        launches.put("go")
        ended = run.ended()
    assert messages(ended) == ["line 0", "line 1", "line 2"]
    assert any("are missing from this log" in line for line in ended.lines)
