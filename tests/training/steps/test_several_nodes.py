"""Processes on several nodes end with the bytes of as many on one, and together, however one of them ends."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from platform_assets.training.steps.process import EXIT_HUNG, EXIT_PEER_LOST, EXIT_PREEMPTED
from tests.doubles.shared_training import KILLED, Shared, ends, wait

pytestmark = pytest.mark.slow

THOROUGH = pytest.mark.thorough


def codes(ended: list[tuple[int, str]]) -> list[int]:
    return [code for code, _ in ended]


@THOROUGH
def test_two_nodes_killed_and_stopped_end_with_the_bytes_uninterrupted(tmp_path: Path, uninterrupted: str) -> None:
    shared = Shared(tmp_path / "shared")
    assert codes(shared.run_on(2, dies={"1": (9, signal.SIGKILL)})) == [EXIT_PEER_LOST, KILLED]
    assert codes(shared.run_on(2, dies={"0": (25, signal.SIGKILL)})) == [KILLED, EXIT_PEER_LOST]
    assert codes(shared.run_on(2, dies={"1": (40, signal.SIGTERM)})) == [EXIT_PREEMPTED] * 2
    ended = shared.run_on(2)
    assert codes(ended) == [0, 0], ended
    assert shared.checkpoint() == uninterrupted
    assert shared.reasons() == ["killed", "vanished", "preempted", "finished"]


@THOROUGH
def test_an_agent_that_is_stopped_stops_all_nodes_before_the_first_step(tmp_path: Path, uninterrupted: str) -> None:
    shared, ready = Shared(tmp_path / "shared"), tmp_path / "ready"
    with shared.on_nodes([[], []], ready=str(ready)) as agents:
        wait(lambda: all(Path(f"{ready}-{rank}").exists() for rank in range(2)))
        agents[1].terminate()
        assert codes(ends(agents)) == [EXIT_PREEMPTED] * 2
    assert shared.at_work() == []
    assert codes(shared.run_on(2)) == [0, 0]
    assert shared.checkpoint() == uninterrupted


@pytest.mark.costly
@pytest.mark.parametrize(
    ("variables", "number", "expected"),
    [
        # While the other waits for it in the rendezvous.
        pytest.param(("RANK=1",), signal.SIGKILL, [EXIT_PEER_LOST, KILLED], marks=THOROUGH),
        (("PET_NODE_RANK=1",), signal.SIGTERM, [EXIT_PREEMPTED] * 2),
        # Nothing but its silence tells of it.
        pytest.param(("PET_NODE_RANK=1",), signal.SIGKILL, [EXIT_PEER_LOST, -signal.SIGKILL], marks=THOROUGH),
        pytest.param(("PET_NODE_RANK=0",), signal.SIGKILL, [-signal.SIGKILL, EXIT_PEER_LOST], marks=THOROUGH),
    ],
)
def test_a_node_that_ends_while_importing_ends_the_other_one(
    tmp_path: Path, variables: tuple[str, ...], number: signal.Signals, expected: list[int]
) -> None:
    shared = Shared(tmp_path / "shared")
    with shared.on_nodes([[], []]) as agents:
        wait(lambda: len(shared.at_work("RANK=1")) == len(shared.at_work("RANK=0")) == 1)
        for pid in shared.at_work(*variables):
            os.kill(pid, number)
        ended = ends(agents)
    assert codes(ended) == expected, ended
    assert shared.at_work() == []


@pytest.mark.costly
@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({"fills": {"1": 20}}, [EXIT_PEER_LOST, 1]),
        pytest.param({"fills": {"0": 20}}, [1, EXIT_PEER_LOST], marks=THOROUGH),
        pytest.param({"training": {"learning_rate": 1e30}}, [1, 1], marks=THOROUGH),
        pytest.param({"own": {"1": {"weight_decay": 0.5}}}, [1, 1], marks=THOROUGH),
    ],
)
def test_an_error_on_one_node_is_the_one_of_the_step(tmp_path: Path, plan: dict[str, Any], expected: list[int]) -> None:
    shared = Shared(tmp_path / "shared")
    ended = shared.run_on(2, **plan)
    assert codes(ended) == expected, ended
    assert sum(output.count("Traceback") for _, output in ended) == 1
    for node, (code, output) in enumerate(ended):
        end = shared.node_end(node)
        assert (end.node, end.exit_code, list(end.last_lines)) == (node, code, [node])
        assert end.last_lines[node][-1] in output


@pytest.mark.costly
@pytest.mark.parametrize("nodes", [pytest.param(1, marks=THOROUGH), 2])
def test_a_process_that_hangs_is_named_and_ends_all(tmp_path: Path, nodes: int) -> None:
    ended = Shared(tmp_path / "shared").run_on(nodes, 2 // nodes, hangs={"1": 20}, least_s=10.0)
    assert codes(ended)[-1] == EXIT_HUNG, ended
    output = "".join(output for _, output in ended)
    assert "rank 1 was computing in step 21, in wait (threading.py, line " in output
    assert codes(ended)[0] == EXIT_HUNG
    assert "rank 0 was waiting for its peers in step 21" in output


@THOROUGH
@pytest.mark.parametrize(("nodes", "expected"), [(1, [EXIT_HUNG]), (2, [EXIT_HUNG, EXIT_PEER_LOST])])
def test_a_process_that_is_suspended_is_named_by_the_others(tmp_path: Path, nodes: int, expected: list[int]) -> None:
    shared = Shared(tmp_path / "shared")
    ended = shared.run_on(nodes, 2 // nodes, dies={"1": (20, signal.SIGSTOP)}, least_s=10.0)
    assert codes(ended) == expected, ended
    first, last = shared.node_end(), shared.node_end(nodes - 1)
    assert "rank 0 was waiting for its peers in step 21" in first.last_lines[0][-1]
    assert "rank 1 did not end by itself: it was stopped, or stuck outside Python." in last.said


@THOROUGH
@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_computes_for_long_ends_with_its_peers(tmp_path: Path, processes: int) -> None:
    shared, last = Shared(tmp_path / "shared"), str(2 * processes - 1)
    ended = shared.run_on(2, processes, dies={"0": (20, signal.SIGKILL)}, hangs={last: 20}, least_s=600.0)
    assert codes(ended) == [KILLED, EXIT_PEER_LOST], ended
