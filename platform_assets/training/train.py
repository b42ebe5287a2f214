"""Train a network one step at a time, so that it can stop and resume anywhere.

The loop and its complete state, as values; files, signals and processes are `platform_assets.training.steps`. Same
seed, data, threads and versions give the same bytes, however often it is interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from platform_assets.product.learner import NotFinite, TrainingProblem
from platform_assets.training.loop_state import Facts, LoopState
from platform_assets.training.suspects import check_labels

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.product.inputs import Inputs
    from platform_assets.product.spec import Training
    from platform_assets.product.tasks import Task
    from platform_assets.training.process_group import ProcessGroup

WARM_UP = 0.1
"""Share of all steps in which the learning rate climbs; afterwards it falls to zero along a cosine."""
ROWS_AT_ONCE = 4096


class Loop:
    """A training in progress: call `step()` until `is_finished`.

    Args:
        model: maps `inputs` to outputs [N, O]. With `encode` and `decide`, rows are encoded once, and `decide` may
            return the outputs [N, K, O] of K members.
        inputs: tensors with N rows each.
        labels: [N], in the task's encoding.
        task: provides the loss.
        target: the labels' scale, as learned.
        training: seed, epochs, batch size, learning rate, weight decay. Without `epochs`, the newest rows (the last
            ones here) choose the epoch whose weights are kept.
        device: where everything is computed, `cpu` or `cuda`; rows are drawn on the CPU in any case.
        precision: `float32`, or `bfloat16`, which rounds what `model` multiplies but not weights, moments and loss.
        judged: how many of the newest rows choose the epoch whose weights are kept; None leaves it to `training`.
        patience: end after this many epochs that did not improve the loss of these rows; None never.

    Raises:
        TrainingProblem: no rows, labels nothing can be learned from, or a device that is missing or lacks the
            precision.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        labels: Tensor,
        training: Training,
        task: Task,
        target: Mapping[str, float] | None = None,
        device: str = "cpu",
        precision: str = "float32",
        judged: int | None = None,
        patience: int | None = None,
    ) -> None:
        check_labels(labels.numpy(), task)
        check_device(device, precision)
        self.model = model.to(device)
        self._task, self._target = task, target
        self.labels = labels.to(device)
        self.training = training
        self._device, self._precision = device, precision
        self._inputs, self._forward = tuple(part.to(device) for part in inputs), model
        if hasattr(model, "encode") and hasattr(model, "decide"):
            encoded = _in_parts(model.encode, self._inputs)
            self._inputs, self._forward = tuple(map(torch.cat, zip(*encoded, strict=True))), model.decide
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        # On the CPU whatever the device: saves hold its state, and another device must draw the same rows.
        self._order = torch.Generator().manual_seed(training.seed)
        self._judged = training.judged_of(len(labels)) if judged is None else judged
        self._patience = patience
        self._group: ProcessGroup | None = None
        self._learned = len(labels) - self._judged
        self.batches = math.ceil(self._learned / training.batch_size)
        self.epochs = training.epochs_of(self._learned)
        self.steps = self.batches * self.epochs
        self.done = 0
        self._best_loss, self._best = math.inf, dict[str, Tensor]()
        self.history: list[dict[str, int | float]] = []
        self._begin_epoch()

    @property
    def is_finished(self) -> bool:
        """Whether every step has been taken, or no epoch has been better for too long."""
        if self.done == self.steps or self._patience is None or self.done % self.batches:
            return self.done == self.steps
        losses = [row["judged_loss"] for row in self.history]
        return len(losses) > self._patience and min(losses[: -self._patience]) <= min(losses[-self._patience :])

    def share(self, group: ProcessGroup) -> None:
        """Compute, from now on, only this process's rows of each batch; the others compute the rest.

        Weights, order of rows, losses and decisions stay the same in all of them. What a network draws (dropout) and
        what it measures (batch normalisation) is each process's own.
        """
        # With another number of processes losses stay within 1e-4 over 210 steps; sums are rounded in another order.
        self._group = group

    def step(self) -> float:
        """Take one step and return the mean loss of its rows before it.

        Raises:
            TrainingProblem: the loss is not finite.
        """
        batch = self.done % self.batches
        rows = self._rows[batch * self.training.batch_size : (batch + 1) * self.training.batch_size]
        for group in self._optimizer.param_groups:
            group["lr"] = self.training.learning_rate * schedule(self.done, self.steps)
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        if self._group is None:
            loss = self._loss(rows)
            loss.backward()
        else:
            loss = self._backward_shared(rows, self._group)
        self._optimizer.step()
        value = loss.item()
        self.done += 1
        if not math.isfinite(value):
            raise NotFinite(
                f"the loss is {value} at step {self.done} of {self.steps}; expected a finite number. "
                "Lower Training.learning_rate, or look for extreme values in the product's fields."
            )
        self._loss_sum += value * len(rows)
        if self.done % self.batches == 0:
            self.history.append({"epoch": self.done // self.batches, "train_loss": self._loss_sum / self._learned})
            if self._judged:
                # Keep weights that beat all earlier ones on the newest rows; after the last epoch, load the best.
                self.model.eval()
                if self._group is not None:
                    for buffer in self.model.buffers():
                        self._group.copy_first(buffer)
                total = 0.0
                with torch.no_grad(), self._rounding():
                    for part in torch.arange(self._learned, len(self.labels), device=self._device).split(ROWS_AT_ONCE):
                        total += self._loss(part).item() * len(part)
                        if self._group is not None:
                            self._group.watchdog.went_on()
                self.history[-1]["judged_loss"] = total / self._judged
                if total / self._judged < self._best_loss:
                    self._best_loss = total / self._judged
                    self._best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
                if self.is_finished and self._best:
                    self.model.load_state_dict(self._best)
            self._begin_epoch()
        return value

    def state(self) -> LoopState:
        """Return the state between two steps."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        for parameter, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{parameter}.{name}": value for name, value in moments.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        tensors |= {"rng.default": torch.get_rng_state(), "rng.order": self._order_before}
        if self._device == "cuda":
            tensors["rng.device"] = torch.cuda.get_rng_state()
        facts = Facts(done=self.done, steps=self.steps, loss_sum=self._loss_sum, history=list(self.history))
        if self._best:
            facts["best_loss"] = self._best_loss
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        return LoopState(tensors=copies, facts=facts)

    def restore(self, state: LoopState) -> None:
        """Resume from a state of the same training.

        Raises:
            TrainingProblem: the state belongs to a training of another length.
        """
        if state.facts["steps"] != self.steps:
            raise TrainingProblem(
                f"the saved state is of a training of {state.facts['steps']} steps; this one has {self.steps}."
            )
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        self._best, self._best_loss = {}, state.facts.get("best_loss", math.inf)
        for name, value in state.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "weights":
                weights[rest] = value
            elif kind == "best":
                self._best[rest] = value
            elif kind == "optimizer":
                parameter, _, moment = rest.partition(".")
                moments.setdefault(int(parameter), {})[moment] = value
        self.model.load_state_dict(weights)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._order.set_state(state.tensors["rng.order"])
        self.done, self.history = state.facts["done"], list(state.facts["history"])
        self._begin_epoch()
        self._loss_sum = state.facts["loss_sum"]
        torch.set_rng_state(state.tensors["rng.default"])
        if self._device == "cuda":
            torch.cuda.set_rng_state(state.tensors["rng.device"])

    def _rounding(self) -> AbstractContextManager[object]:
        # float16 would need scaled losses, and the scale in every save; bfloat16 has float32's range.
        # No shipped profile asks for it: no gain was measured.
        return nullcontext() if self._precision == "float32" else torch.autocast(self._device, torch.bfloat16)

    def _loss(self, rows: Tensor) -> Tensor:
        with self._rounding():
            outputs = self._forward(*(part.index_select(0, rows) for part in self._inputs))
        return self._task.loss(outputs.float(), self.labels.index_select(0, rows), self._target)

    def _backward_shared(self, rows: Tensor, group: ProcessGroup) -> Tensor:
        """Compute the gradients of the mean loss of rows of which this process takes every n-th, and return it.

        One sum over one tensor in the order of the parameters: torch's DistributedDataParallel regroups them after its
        first step, and a sum of three numbers depends on its order, so a resumed training would get other bytes.
        """
        # Seeded per step: otherwise a save would need the random stream of every process, and fit no other number.
        torch.manual_seed((self.training.seed * 1_000_003 + self.done) * 1009 + group.rank)
        own = rows[group.rank :: group.size]
        # With fewer rows than processes some have none: a row without weight gives them gradients of zero to add.
        loss = self._loss(own if len(own) else rows[:1]) * (len(own) / len(rows))
        loss.backward()
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.detach().reshape(1)])
        group.add(flat)
        *sums, total = flat.split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, added in zip(gradients, sums, strict=True):
            gradient.copy_(added.view_as(gradient))
        return total

    def _begin_epoch(self) -> None:
        self._order_before = self._order.get_state()
        self._rows = torch.randperm(self._learned, generator=self._order).to(self._device)
        self._loss_sum = 0.0


def schedule(done: int, steps: int) -> float:
    """Return the learning rate factor of the step after `done`: a linear climb, then half a cosine."""
    climb = max(1, round(WARM_UP * steps))
    if done < climb:
        return (done + 1) / climb
    return 0.5 * (1.0 + math.cos(math.pi * (done - climb) / max(1, steps - climb)))


def tensors(inputs: Inputs, codes: np.ndarray) -> tuple[Tensor, ...]:
    """Return the arguments of a network: numbers, codes, and the image if there is one."""
    arguments = (torch.from_numpy(inputs.numeric), torch.from_numpy(codes))
    return arguments if inputs.image is None else (*arguments, torch.from_numpy(inputs.image.copy()))


def outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the outputs [N, O] of a model in eval mode, a few thousand rows at a time."""
    return torch.cat(_in_parts(model.eval(), inputs))


def check_device(device: str, precision: str = "float32") -> None:
    """Raise `TrainingProblem` unless torch supports this device and precision: a training never silently falls back."""
    if device not in ("cpu", "cuda"):
        raise TrainingProblem(f"the training's device is {device!r}; expected cpu or cuda.")
    # A fallback to the CPU would train another model at another price.
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingProblem(
            f"the training's profile has accelerators, and torch {torch.__version__} finds no CUDA device here; "
            "expected at least one. Fix the environment: the node must expose its device and driver to the step, and "
            "the image needs a torch built for CUDA. Or use a profile without accelerators: Training.profile in the "
            "product's file."
        )
    if precision not in ("float32", "bfloat16"):
        raise TrainingProblem(f"the training's precision is {precision!r}; expected float32 or bfloat16.")
    if device == "cuda" and precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingProblem(
            f"the training's profile asks for bfloat16, and {torch.cuda.get_device_name()} cannot compute in it; "
            "expected compute capability 8.0 or newer. Fix precision or node_selector of the profile, in "
            "platform_assets/launch/profiles.py."
        )


def _in_parts(compute: Any, inputs: tuple[Tensor, ...]) -> list[Any]:
    starts = range(0, max(1, len(inputs[0])), ROWS_AT_ONCE)
    with torch.no_grad():
        return [compute(*(part[start : start + ROWS_AT_ONCE] for part in inputs)) for start in starts]
