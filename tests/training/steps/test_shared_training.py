"""Processes that share a training, started by torchrun's agent, end with the same bytes however they were interrupted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.training.steps import process
from tests.doubles import tiny_product
from tests.doubles.tiny_rank import Plan

KILLED = 128 + signal.SIGKILL
STEPS = 70
PATIENCE_S = 120


class Shared:
    """Trainings of the tiny product in a store of their own, by as many processes as each is told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.settings = Settings(root=str(folder / "store"), state=folder / "state")
        self.plan, self.folder = folder / "plan", folder
        self.extras = tiny_product.store(self.settings)

    def start(self, processes: int = 2, **plan: Any) -> subprocess.Popen[str]:
        extras = {**self.extras, "world_size": processes}
        self.plan.write_bytes(msgspec.json.encode(Plan(extras=extras, **plan)))
        options = [f"--processes={processes}", "--grace-s=30", "tests.doubles.tiny_rank"]
        return subprocess.Popen(
            [sys.executable, "-m", "platform_assets.launch.torchrun", *options],
            cwd=REPOSITORY,
            env={**os.environ, **self.settings.to_environment(), "TINY_RANK": str(self.plan)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, processes: int = 2, **plan: Any) -> tuple[int, str]:
        """Return exit code and output of a training; nothing of it is left."""
        started = self.start(processes, **plan)
        output, _ = started.communicate(timeout=5 * PATIENCE_S)
        assert self.at_work() == []
        return started.returncode, output

    def at_work(self) -> list[int]:
        """Return the processes of this training, the agent included."""
        sign = f"TINY_RANK={self.plan}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_alive = (folder / "stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
                if is_alive and sign in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def checkpoint(self) -> str:
        result: dict[str, Any] = msgspec.json.decode((self.folder / "result").read_bytes())
        return str(result["checkpoint"])

    def losses(self) -> dict[int, float]:
        lines = (self.folder / "losses").read_text(encoding="utf-8").splitlines()
        return {int(step): float(loss) for step, loss in (line.split() for line in lines)}

    def reasons(self) -> list[str]:
        return [record["reason"] for _, record in Ledgers(self.settings.root, "tiny").records("attempts")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of two processes that nothing interrupts."""
    shared = Shared(tmp_path_factory.mktemp("shared") / "alone")
    code, output = shared.run()
    assert code == 0, output
    return shared.checkpoint()


def test_two_processes_killed_and_stopped_at_any_step_end_byte_identical(tmp_path: Path, uninterrupted: str) -> None:
    shared = Shared(tmp_path / "shared")
    codes = [
        shared.run(dies=dies)[0]
        for dies in (
            {"1": (9, signal.SIGKILL)},
            {"0": (25, signal.SIGKILL)},
            {"1": (40, signal.SIGTERM)},  # of that process alone: both end after the same step
            {},
        )
    ]
    assert codes == [KILLED, KILLED, process.EXIT_PREEMPTED, 0]
    assert shared.checkpoint() == uninterrupted
    assert shared.reasons() == ["killed", "vanished", "preempted", "finished"]
    assert sorted(shared.losses()) == list(range(1, STEPS + 1))


@pytest.mark.thorough
def test_twenty_kills_of_random_processes_at_random_steps_change_no_byte(tmp_path: Path, uninterrupted: str) -> None:
    draw, shared, codes = random.Random(45), Shared(tmp_path / "shared"), list[int]()
    for step in sorted(draw.sample(range(1, STEPS), 20)):
        codes.append(shared.run(dies={str(draw.randrange(2)): (step, signal.SIGKILL)})[0])
    assert codes == [KILLED] * 20
    code, output = shared.run()
    assert code == 0, output
    assert shared.checkpoint() == uninterrupted
