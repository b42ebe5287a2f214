"""The newest complete save wins, whatever a kill or a bad disk left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from platform_assets.training.loop_state import LoopState
from platform_assets.training.steps.state import MAX_SAVES, Saves


def state(done: int) -> LoopState:
    tensors = {"weights.a": torch.full((3,), float(done)), "rng.default": torch.tensor([done], dtype=torch.uint8)}
    history: list[dict[str, int | float]] = [{"epoch": 1, "train_loss": 0.1 + 0.2}]
    return LoopState(tensors=tensors, facts={"done": done, "steps": 40, "loss_sum": 0.5, "history": history})


def saved(folder: Path, *steps: int) -> Saves:
    saves = Saves(folder, "f")
    for step in steps:
        saves.save(state(step), fence=1, world_sizes=[(0, 1)])
    return saves


def done(saves: Saves) -> int | None:
    result = saves.newest()
    return None if result is None else result.state.facts["done"]


def test_a_save_is_restored_exactly(tmp_path: Path) -> None:
    result = saved(tmp_path, 5).newest()
    assert result is not None
    assert json.dumps(result.state.facts, sort_keys=True) == json.dumps(state(5).facts, sort_keys=True)
    assert {name: value.tolist() for name, value in result.state.tensors.items()} == {
        "weights.a": [5.0] * 3,
        "rng.default": [5],
    }
    assert result.state.tensors["rng.default"].dtype == torch.uint8


def test_there_is_no_save_before_the_first_one_and_after_forgetting(tmp_path: Path) -> None:
    assert done(Saves(tmp_path, "f")) is None
    saves = saved(tmp_path, 5)
    saves.forget()
    assert done(saves) is None


def test_the_newest_wins_and_only_the_last_two_are_kept(tmp_path: Path) -> None:
    saves = saved(tmp_path, 3, 7, 11)
    assert done(saves) == 11
    assert len(list(saves.folder.iterdir())) == MAX_SAVES * 2


@pytest.mark.parametrize("damage", ["flip a bit", "cut the tensors", "cut the facts", "lose the tensors"])
def test_a_damaged_save_falls_back_to_the_previous_one(tmp_path: Path, damage: str) -> None:
    saves = saved(tmp_path, 3, 7)
    tensors, facts = (saves.folder / f"step-000000007.{suffix}" for suffix in ("safetensors", "json"))
    data = bytearray(tensors.read_bytes())
    if damage == "flip a bit":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "cut the tensors":
        tensors.write_bytes(data[:-4])
    elif damage == "cut the facts":
        facts.write_bytes(facts.read_bytes()[:10])
    else:
        tensors.unlink()
    assert done(saves) == 3


def test_tensors_without_facts_are_not_a_save_yet(tmp_path: Path) -> None:
    saves = saved(tmp_path, 3, 7)
    (saves.folder / "step-000000007.json").unlink()
    assert done(saves) == 3


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    assert not [path for path in saved(tmp_path, 1, 2, 3).folder.iterdir() if path.name.startswith(".")]
