"""A training interrupted anywhere ends byte-identical, and useless rows are refused."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Barrier
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from platform_assets.product import modelling
from platform_assets.product.learner import TrainingProblem
from platform_assets.product.spec import Training
from platform_assets.product.tasks import Binary, MultiClass, Regression
from platform_assets.training import determinism
from platform_assets.training.train import Loop, check_device, outputs, schedule
from platform_assets.training.watchdog import Watchdog

TASK = Binary()
TRAINING = Training(threads=1, epochs=3, batch_size=16, learning_rate=0.05)
ROWS = 50
STEPS = 4 * 3


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.3), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, numeric: torch.Tensor) -> torch.Tensor:
        return self.layers(numeric)


def start(training: Training = TRAINING, precision: str = "float32") -> Loop:
    determinism.fix(training.threads)
    numeric = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(1))
    determinism.seed(training.seed)
    return Loop(Small(), (numeric,), (numeric[:, 0] > 0).to(torch.int8), training, TASK, precision=precision)


def finish(loop: Loop) -> bytes:
    while not loop.is_finished:
        loop.step()
    return save(dict(loop.state().tensors))


@cache
def undisturbed() -> bytes:
    """Train once without interruption. Not at import: an optimizer imports torch's compiler (2 CPU seconds)."""
    return finish(start())


@dataclass
class Member:
    """A process of a group, as a thread: sums in the order of the ranks."""

    rank: int
    size: int
    barrier: Barrier
    values: dict[int, torch.Tensor]
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(0, on_hang=print))

    def add(self, values: torch.Tensor) -> None:
        self.values[self.rank] = values.clone()
        self.barrier.wait()
        values.copy_(torch.stack([self.values[rank] for rank in range(self.size)]).sum(dim=0))
        self.barrier.wait()

    def copy_first(self, values: torch.Tensor) -> None:
        self.values[self.rank] = values.clone()
        self.barrier.wait()
        values.copy_(self.values[0])
        self.barrier.wait()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        self.seen = nn.Buffer(torch.zeros(1))

    def forward(self, numeric: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += numeric.sum()
        return self.layers(numeric)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_any_number_of_processes_takes_the_steps_of_one_and_all_have_the_same_weights(size: int) -> None:
    """The last batch of an epoch has 2 rows, so some of 3 or 5 processes have none of it."""
    training = replace(TRAINING, epochs=None, batch_size=26)
    numeric = torch.randn(146, 2, generator=torch.Generator().manual_seed(1))
    labels = (numeric[:, 0] > 0).to(torch.int8)

    def begun() -> Loop:
        determinism.seed(training.seed)
        return Loop(Normed(), (numeric,), labels, training, TASK)

    def losses(loop: Loop) -> list[float]:
        return [loop.step() for _ in range(3 * loop.batches)]

    determinism.fix(1)
    alone, barrier, values = begun(), Barrier(size, timeout=600), dict[int, torch.Tensor]()
    assert (alone.batches, alone._learned % 26) == (6, 2)
    expected, loops = losses(alone), [begun() for _ in range(size)]
    for rank, loop in enumerate(loops):
        loop.share(cast(Any, Member(rank, size, barrier, values)))
    with ThreadPoolExecutor(size) as pool:
        results = list(pool.map(losses, loops))
    assert all(result == results[0] for result in results)
    assert results[0] == pytest.approx(expected, rel=1e-5)
    assert [row["judged_loss"] for row in loops[0].history] == pytest.approx(
        [row["judged_loss"] for row in alone.history], rel=1e-5
    )
    assert len({save(dict(loop.state().tensors)) for loop in loops}) == 1


@settings(max_examples=20)
@given(st.sets(st.integers(0, STEPS), max_size=4))
def test_interrupted_at_any_steps_the_final_state_has_the_same_bytes(stops: set[int]) -> None:
    loop = start()
    for stop in sorted(stops):
        while loop.done < stop:
            loop.step()
        state = loop.state()
        loop = start()
        torch.rand(7)
        loop.restore(state)
    assert finish(loop) == undisturbed()


def test_the_history_survives_an_interruption_inside_an_epoch() -> None:
    uninterrupted = start()
    finish(uninterrupted)
    loop = start()
    for _ in range(6):
        loop.step()
    state = loop.state()
    again = start()
    again.restore(state)
    finish(again)
    assert again.history == uninterrupted.history
    assert [row["epoch"] for row in uninterrupted.history] == [1, 2, 3]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training without `epochs` take 12 steps, holding back rows of a small table."""
    monkeypatch.setattr(modelling, "LEAST_STEPS", 12)
    monkeypatch.setattr(modelling, "LEAST_ROWS", ROWS)


UNSTATED = Training(threads=1, batch_size=16, learning_rate=0.5)


@pytest.mark.usefixtures("few_steps")
def test_without_epochs_the_weights_that_did_best_on_the_newest_rows_are_kept() -> None:
    loop = start(UNSTATED)
    assert (loop.epochs, loop.batches, loop.steps) == (4, 3, 12)
    remaining = {}
    while not loop.is_finished:
        loop.step()
        if loop.done % loop.batches == 0 and not loop.is_finished:
            remaining[len(loop.history)] = {name: value.clone() for name, value in loop.model.state_dict().items()}
    judged = [row["judged_loss"] for row in loop.history]
    best = judged.index(min(judged)) + 1
    assert best < 4, "the learning rate is so large that a later epoch is worse"
    assert all(torch.equal(value, remaining[best][name]) for name, value in loop.model.state_dict().items())
    numeric, labels = loop._inputs[0][-5:], loop.labels[-5:]
    assert TASK.loss(outputs(loop.model, (numeric,)), labels, None).item() == pytest.approx(min(judged))


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("stop", [0, 1, 3, 4, 8, 11, 12])
def test_without_epochs_an_interrupted_training_ends_with_the_same_bytes(stop: int) -> None:
    uninterrupted, loop = finish(start(UNSTATED)), start(UNSTATED)
    while loop.done < stop:
        loop.step()
    state = loop.state()
    again = start(UNSTATED)
    torch.rand(3)
    again.restore(state)
    assert finish(again) == uninterrupted


def test_a_small_table_is_learned_by_default_where_four_epochs_are_not_enough() -> None:
    numeric = torch.randn(700, 2, generator=torch.Generator().manual_seed(3))
    labels = ((numeric[:, 0] > 0) ^ (numeric[:, 1] > 0)).to(torch.int8)
    result = []
    for training in (Training(epochs=4), Training()):
        determinism.seed(0)
        model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
        finish(Loop(model, (numeric[:500],), labels[:500], training, TASK))
        result.append(TASK.loss(outputs(model, (numeric[500:],)), labels[500:], None).item())
    assert result[0] > 0.65
    assert result[1] < 0.45


def test_another_seed_gives_other_bytes() -> None:
    assert finish(start(Training(threads=1, epochs=3, batch_size=16, learning_rate=0.05, seed=1))) != undisturbed()


def test_each_member_learns_by_its_own_loss() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2, bias=False)
            with torch.no_grad():
                self.layer.weight.copy_(torch.tensor([[0.0], [2.0]]))

        def forward(self, numeric: torch.Tensor) -> torch.Tensor:
            return self.layer(numeric).unsqueeze(2)

    loop = Loop(Pair(), (torch.tensor([[1.0], [-1.0]]),), torch.tensor([1, 0]), TRAINING, TASK)
    softplus = [math.log1p(math.exp(-logit)) for logit in (0.0, 2.0)]
    assert loop.step() == pytest.approx(sum(softplus) / 2)


def test_a_state_does_not_change_when_training_continues() -> None:
    loop = start()
    loop.step()
    state = loop.state()
    before = save(dict(state.tensors))
    loop.step()
    assert save(dict(state.tensors)) == before


def test_the_learning_rate_climbs_to_one_and_falls_to_nearly_zero() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(factors) == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001
    assert schedule(0, 1) == 1.0


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (TASK, [], "no labelled rows"),
        (TASK, [1, 1], r"values \[1\] in 2"),
        (TASK, [0, 2], "both 0 and 1"),
        (TASK, [1], r"values \[1\] in 1"),
        (MultiClass(classes=("a", "b", "c")), [0, 2, 0], "no label 'b' of 3 classes"),
        (Regression(), [2.5, 2.5], r"value 2\.5 in all 2"),
        (Regression(), [2.5], r"value 2\.5 in all 1"),
    ],
)
def test_labels_without_information_are_refused(task: Any, labels: list[float], message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        Loop(Small(), (torch.zeros(len(labels), 2),), torch.tensor(labels), TRAINING, task)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    loop = Loop(Small(), (torch.full((4, 2), float("nan")),), torch.tensor([0, 1, 0, 1]), TRAINING, TASK)
    with pytest.raises(TrainingProblem, match="loss is nan at step 1 of 3"):
        loop.step()


def test_a_state_of_another_training_is_refused() -> None:
    state = start(Training(threads=1, epochs=4, batch_size=16)).state()
    with pytest.raises(TrainingProblem, match="16 steps; this one has 12"):
        start().restore(state)


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        determinism.fix(0)


def test_a_training_for_a_gpu_is_refused_without_one_and_never_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingProblem, match=r"has accelerators, and torch .* finds no CUDA device here; expected"):
        Loop(Small(), (torch.zeros(2, 2),), torch.tensor([0, 1]), TRAINING, TASK, device="cuda")
    with pytest.raises(TrainingProblem, match="device is 'tpu'; expected cpu or cuda"):
        check_device("tpu")
    check_device("cpu")
    with pytest.raises(TrainingProblem, match="precision is 'float8'; expected float32 or bfloat16"):
        check_device("cpu", "float8")


def test_a_gpu_that_cannot_compute_in_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(TrainingProblem, match="asks for bfloat16, and Tesla T4 cannot compute in it; expected"):
        check_device("cuda", "bfloat16")
    check_device("cuda", "float32")


@pytest.mark.parametrize(("precision", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_mixed_precision_rounds_products_and_not_state(precision, expected) -> None:
    loop = start(precision=precision)
    observed = []
    loop.model.layers[0].register_forward_hook(lambda module, inputs, output: observed.append(output.dtype))
    loop.step()
    assert observed == [expected]
    assert {value.dtype for value in loop.model.state_dict().values()} == {torch.float32}
    remaining = {name: value.dtype for name, value in loop.state().tensors.items() if not name.startswith("rng.")}
    assert set(remaining.values()) == {torch.float32}


def test_mixed_precision_is_deterministic_resumable_and_learns_the_same() -> None:
    uninterrupted = start(precision="bfloat16")
    mixed = finish(uninterrupted)
    loop = start(precision="bfloat16")
    for _ in range(5):
        loop.step()
    state = loop.state()
    again = start(precision="bfloat16")
    again.restore(state)
    assert finish(again) == mixed
    assert mixed != undisturbed()
    exact = start()
    finish(exact)
    losses = [[row["train_loss"] for row in item.history] for item in (uninterrupted, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=2**-6)


def test_training_on_a_gpu_is_deterministic_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    for switch in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, switch, True)
    determinism.fix(1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ""
    determinism.fix(1, "cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == determinism.CUBLAS
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_deterministic_debug_mode() == 2, "a non-deterministic operation is an error"
