"""What a training takes of a GPU's memory: the device is played, because none is here."""

from types import SimpleNamespace

import pytest
import torch

from platform_assets.product.learner import TrainingProblem
from platform_assets.training import gpu_memory


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What torch was set to, on a GPU with 40 * 10^9 bytes."""
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    memory = {1: SimpleNamespace(total_memory=40_000_000_000)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", memory.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    return told


def test_torch_gets_the_fraction_of_the_memory_that_the_gpu_has(fractions: list[float]) -> None:
    gpu_memory.limit(10)
    gpu_memory.limit(40)
    assert fractions == [0.25, 1.0]


def test_more_than_the_gpu_has_is_refused(fractions: list[float]) -> None:
    with pytest.raises(TrainingProblem, match=r"gpu_memory_gb is 48, and NVIDIA A100 has 40.0; expected at most that"):
        gpu_memory.limit(48)
    assert fractions == []


def test_a_gpu_without_room_is_named_and_other_errors_pass() -> None:
    with (
        pytest.raises(TrainingProblem, match=r"^flights does not fit cuda: CUDA out of memory\. Tried"),
        gpu_memory.explained("flights", "cuda"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    with pytest.raises(RuntimeError, match="shapes"), gpu_memory.explained("flights", "cuda"):
        raise RuntimeError("shapes")
