"""Processes that share a training end with the same bytes after twenty kills, and on any number of nodes."""

import random
import signal
from pathlib import Path

from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.steps.process import EXIT_PEER_LOST, EXIT_PREEMPTED
from tests.doubles.shared_training import KILLED, Shared

STEPS = 70


def codes(ended: list[tuple[int, str]]) -> list[int]:
    return [code for code, _ in ended]


def test_twenty_kills_of_random_processes_at_random_steps_change_no_byte(tmp_path: Path) -> None:
    draw, shared, alone = random.Random(45), Shared(tmp_path / "shared"), Shared(tmp_path / "alone")
    killed = list[int]()
    for step in sorted(draw.sample(range(1, STEPS), 20)):
        killed.append(shared.run(dies={str(draw.randrange(2)): (step, signal.SIGKILL)})[0])
    assert killed == [KILLED] * 20
    code, output = shared.run()
    assert code == 0, output
    assert alone.run()[0] == 0
    assert shared.checkpoint() == alone.checkpoint()


def test_a_stop_of_one_process_ends_both_after_the_same_step(tmp_path: Path) -> None:
    shared, alone = Shared(tmp_path / "shared"), Shared(tmp_path / "alone")
    assert shared.run(dies={"1": (40, signal.SIGTERM)})[0] == EXIT_PREEMPTED
    assert [shared.run()[0], alone.run()[0]] == [0, 0]
    assert shared.checkpoint() == alone.checkpoint()
    assert shared.reasons() == ["preempted", "finished"]
    assert sorted(shared.losses()) == list(range(1, STEPS + 1))
    manifest = ArtifactStore(shared.settings.root).get_json(shared.checkpoint())
    assert manifest["computed"] == {"device": "cpu", "precision": "float32", "world_size": 2}


def test_twenty_kills_of_random_processes_on_two_nodes_change_no_byte(tmp_path: Path) -> None:
    draw, shared, alone = random.Random(45), Shared(tmp_path / "shared"), Shared(tmp_path / "alone")
    for step in sorted(draw.sample(range(1, STEPS), 20)):
        rank = draw.randrange(4)
        ended = shared.run_on(2, 2, dies={str(rank): (step, signal.SIGKILL)})
        assert codes(ended) == [KILLED if rank // 2 == node else EXIT_PEER_LOST for node in range(2)], ended
    assert codes(shared.run_on(2, 2)) == [0, 0]
    assert alone.run(4)[0] == 0
    assert shared.checkpoint() == alone.checkpoint()


def test_the_same_number_of_processes_gives_the_same_bytes_on_any_number_of_nodes(tmp_path: Path) -> None:
    checkpoints = set()
    for nodes in (1, 2, 4):
        shared = Shared(tmp_path / str(nodes))
        assert codes(shared.run_on(nodes, 4 // nodes)) == [0] * nodes
        checkpoints.add(shared.checkpoint())
    assert len(checkpoints) == 1
