"""The newest complete save next to the store wins, whatever a kill left behind; on S3 and on a folder in its place."""

import json
from typing import Any

import pytest
import torch

from platform_assets.base.settings import Settings
from platform_assets.store.leases import LeaseLost
from platform_assets.store.objects import open_store
from platform_assets.training.loop_state import LoopState
from platform_assets.training.steps.state import MAX_SAVES, Saves, saves

pytestmark = pytest.mark.slow


def state(done: int) -> LoopState:
    tensors = {"weights.a": torch.full((3,), float(done)), "rng.default": torch.tensor([done], dtype=torch.uint8)}
    history: list[dict[str, int | float]] = [{"epoch": 1, "train_loss": 0.1 + 0.2}]
    return LoopState(tensors=tensors, facts={"done": done, "steps": 40, "loss_sum": 0.5, "history": history})


def names(root: str) -> list[str]:
    return sorted(item["path"].rsplit("/", 1)[-1] for item in open_store(root).list("saves").collect())


def newest(saves: Saves) -> int | None:
    result = saves.newest()
    return None if result is None else result.state.facts["done"]


def test_a_save_is_restored_exactly_and_only_the_newest_are_kept(root: str) -> None:
    saves = Saves(root, "f")
    assert saves.newest() is None
    for done in (5, 10, 15):
        saves.save(state(done), fence=1, world_sizes=[(0, 1)])
    result = Saves(root, "f").newest()
    assert result is not None
    assert json.dumps(result.state.facts, sort_keys=True) == json.dumps(state(15).facts, sort_keys=True)
    assert result.state.tensors["weights.a"].tolist() == [15.0] * 3
    assert result.state.tensors["rng.default"].dtype == torch.uint8
    assert len(names(root)) == MAX_SAVES + 1
    assert Saves(root, "other").newest() is None


def test_a_damaged_or_lost_save_falls_back_to_the_previous_one(root: str) -> None:
    saves, store = Saves(root, "f"), open_store(root)
    for done in (5, 10):
        saves.save(state(done), fence=1, world_sizes=[(0, 1)])
    whole = bytearray(store.get("saves/f/step-000000010-1.safetensors").bytes())
    whole[-1] ^= 1
    store.put("saves/f/step-000000010-1.safetensors", bytes(whole))
    assert newest(saves) == 5
    store.put("saves/f/step-000000010-1.safetensors", b"torn")
    assert newest(saves) == 5
    store.delete("saves/f/step-000000010-1.safetensors")
    assert newest(saves) == 5
    store.delete("saves/f/step-000000005-1.safetensors")
    assert newest(saves) is None


def test_a_kill_between_tensors_and_index_costs_one_save(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = Saves(root, "f")
    saves.save(state(5), fence=1, world_sizes=[(0, 1)])

    def killed(self: Saves, data: bytes, mode: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Saves, "_put_index", killed)
        with pytest.raises(KeyboardInterrupt):
            saves.save(state(10), fence=1, world_sizes=[(0, 1)])
    assert newest(Saves(root, "f")) == 5


def test_two_holders_of_the_lease_never_overwrite_each_others_tensors(root: str) -> None:
    first, second = Saves(root, "f"), Saves(root, "f")
    first.save(state(5), fence=1, world_sizes=[(0, 1)])
    second.save(state(5), fence=2, world_sizes=[(0, 1)])
    assert {"step-000000005-1.safetensors", "step-000000005-2.safetensors"} <= set(names(root))
    assert newest(first) == 5


@pytest.mark.parametrize("saved", [(), (5,), (5, 10)])
def test_a_holder_of_an_older_lease_saves_nothing_once_the_saves_are_claimed(s3_root: str, saved: tuple[int, ...]):
    first, second = Saves(s3_root, "f"), Saves(s3_root, "f")
    first.claim(fence=1)
    for done in saved:
        first.save(state(done), fence=1, world_sizes=[(0, 1)])
    second.claim(fence=2)
    with pytest.raises(LeaseLost, match="saves saves/f belong to lease 2, ours is 1"):
        first.save(state(15), fence=1, world_sizes=[(0, 1)])
    with pytest.raises(LeaseLost):
        first.claim(fence=1)
    assert newest(second) == (saved[-1] if saved else None)
    second.save(state(20), fence=2, world_sizes=[(0, 1)])
    assert newest(Saves(s3_root, "f")) == 20
    second.forget()


def test_a_save_that_was_under_way_when_the_saves_were_claimed_is_refused(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Saves(s3_root, "f"), Saves(s3_root, "f")
    first.save(state(5), fence=1, world_sizes=[(0, 1)])
    put = Saves._put_index

    def cut_off(self: Saves, data: bytes, mode: Any) -> None:
        if self is first and newest(second) == 5:
            second.claim(fence=2)
            second.save(state(7), fence=2, world_sizes=[(0, 1)])
        put(self, data, mode)

    monkeypatch.setattr(Saves, "_put_index", cut_off)
    with pytest.raises(LeaseLost):
        first.save(state(10), fence=1, world_sizes=[(0, 1)])
    assert newest(second) == 7


def test_nothing_is_left_once_the_result_is_stored(root: str) -> None:
    saves = Saves(root, "f")
    saves.save(state(5), fence=1, world_sizes=[(0, 1)])
    saves.forget()
    assert names(root) == []
    saves.forget()


def test_a_store_on_s3_has_its_saves_next_to_it_and_a_folder_in_scratch(settings: Settings) -> None:
    assert saves(settings.replace(root="s3://bucket/store"), "f").every_s == 15.0
    here = saves(settings, "f")
    here.save(state(5), fence=2, world_sizes=[(0, 1)])
    here.claim(fence=1)  # by a store that is newer than the folder
    assert (here.every_s, newest(here)) == (2.0, 5)
    assert len(list((settings.scratch / "saves" / "f").iterdir())) == 2, "a temporary file is left"


@pytest.mark.parametrize(
    "index", [b"", b"[{", b'{"name": 1}', b'[{"name": "a", "sha256": "b", "fence": 1, "facts": {}}]']
)
def test_a_damaged_index_or_one_of_other_code_is_replaced(root: str, index: bytes) -> None:
    saves, store = Saves(root, "f"), open_store(root)
    saves.save(state(5), fence=1, world_sizes=[(0, 1)])
    store.put("saves/f/newest.json", index)
    assert saves.newest() is None
    saves.save(state(10), fence=1, world_sizes=[(0, 1)])
    assert newest(saves) == 10
