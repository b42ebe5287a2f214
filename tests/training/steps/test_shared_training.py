"""Processes of torchrun's agent that share a training end with the same bytes however they are interrupted."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.wording import counted
from platform_assets.product.learner import TrainingProblem
from platform_assets.store.records.trainings import CHECKPOINTS, WorldSizes, continued
from platform_assets.training.process_group import ProcessGroup
from platform_assets.training.steps import process, train
from platform_assets.training.train import Loop
from platform_assets.training.watchdog import Watchdog
from tests.doubles import tiny_product
from tests.doubles.shared_training import KILLED, PATIENCE_S, Shared, wait

pytestmark = pytest.mark.slow

THOROUGH = pytest.mark.thorough
"""A run of two processes takes 13 CPU seconds, most of them for imports."""


@pytest.mark.parametrize(
    ("before", "done", "processes", "expected"),
    [
        ([], 0, 2, [(0, 2)]),
        ([(0, 2)], 50, 2, [(0, 2)]),
        ([(0, 2)], 50, 4, [(0, 2), (50, 4)]),
        ([(0, 2), (50, 4)], 50, 2, [(0, 2)]),  # the four were stopped before their first step
        ([(0, 2), (50, 4)], 50, 1, [(0, 2), (50, 1)]),
        ([(0, 2), (50, 4)], 60, 2, [(0, 2), (50, 4), (60, 2)]),
        ([(0, 2)], 0, 1, [(0, 1)]),
    ],
)
def test_numbers_of_processes_are_noted_with_the_steps_from_which_on(
    before: WorldSizes, done: int, processes: int, expected: WorldSizes
) -> None:
    assert continued(before, done, processes) == expected


TOGETHER: dict[str, Any] = {"epochs": 15, "settings": {"widths": (16, 16), "embedding": 3, "dropout": 0.0}}
"""210 steps without anything random in a network: what it drops would differ between numbers of processes."""


@THOROUGH
@pytest.mark.parametrize("processes", [1, 4])
def test_another_number_of_processes_resumes_with_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    expected, step = dict[int, float](), Loop.step

    def noting(loop: Loop) -> float:
        loss = step(loop)
        expected[loop.done] = loss
        return loss

    monkeypatch.setattr(Loop, "step", noting)
    alone, shared = Shared(tmp_path / "alone"), Shared(tmp_path / "shared")
    spec = replace(tiny_product.SPEC, training=replace(tiny_product.SPEC.training, **TOGETHER))
    train.Training(spec, train.Job.from_extras(alone.extras), alone.settings, log=lambda _: None).run()

    code, output = shared.run(2, training=TOGETHER, dies={"1": (100, signal.SIGKILL)})
    assert code == KILLED, output
    code, output = shared.run(processes, training=TOGETHER)
    assert code == 0, output
    assert "resuming from step 100 of 210" in output
    assert f"until here by 2 processes, from here on by {counted(processes, 'process')}: other roundings" in output
    assert shared.losses() == pytest.approx(expected, rel=1e-4)
    record = shared.ledgers.of(CHECKPOINTS).read(shared.extras["fingerprint"])
    assert record is not None
    assert record.world_sizes == [(0, 2), (100, processes)]


@THOROUGH
def test_processes_that_are_stopped_before_the_first_step_lose_nothing(tmp_path: Path, uninterrupted: str) -> None:
    shared, ready = Shared(tmp_path / "shared"), tmp_path / "ready"
    with shared.started(ready=str(ready)) as agent:
        wait(lambda: all(Path(f"{ready}-{rank}").exists() for rank in range(2)))
        for _ in range(3):  # as launchers do until the process has ended
            agent.terminate()
        output, _ = agent.communicate(timeout=PATIENCE_S)
    assert agent.returncode == process.EXIT_PREEMPTED, output
    assert shared.at_work() == []
    assert shared.run()[0] == 0
    assert shared.checkpoint() == uninterrupted


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ProcessGroup(rank=4, size=8, size_here=4, watchdog=Watchdog(4, print))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    group.check_device("cpu")
    with pytest.raises(TrainingProblem, match="has 4 processes on a GPU each, and torch finds 2 here; expected 4"):
        group.check_device("cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    group.check_device("cuda")


@pytest.mark.costly
def test_nothing_is_left_of_a_training_whose_agent_is_killed(tmp_path: Path) -> None:
    shared, ready = Shared(tmp_path / "shared"), tmp_path / "ready"
    with shared.started(ready=str(ready)) as agent:
        wait(lambda: all(Path(f"{ready}-{rank}").exists() for rank in range(2)))
        assert len(shared.at_work()) == 3
        agent.kill()
        agent.communicate(timeout=PATIENCE_S)
    wait(lambda: not shared.at_work())


@pytest.mark.costly
@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"own": {"1": {"weight_decay": 0.5}}}, "the configuration of rank 1 differs from that of rank 0"),
        pytest.param({"other_rows": [1]}, "the data of rank 1 differs from that of rank 0", marks=THOROUGH),
        pytest.param({"training": {"learning_rate": 1e30}}, "expected a finite number. Lower Training", marks=THOROUGH),
    ],
)
def test_what_all_processes_find_wrong_is_one_error_of_the_step(tmp_path: Path, plan: dict[str, Any], sentence: str):
    shared = Shared(tmp_path / "shared")
    code, output = shared.run(**plan)
    assert (code, shared.reasons()) == (1, ["code"]), output
    assert sentence in output
    assert output.count("Traceback") == 1
