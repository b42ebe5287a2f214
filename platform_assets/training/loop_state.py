"""Define the state of a network's training between two steps, without torch: only a network's fit loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class Facts(TypedDict):
    """Progress of a training; `best_loss` is that of the validation rows, present once an epoch is complete."""

    done: int
    steps: int
    loss_sum: float
    history: list[dict[str, int | float]]  # an epoch is a whole number, in saves too
    best_loss: NotRequired[float]


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """Everything between two steps: a training resumed from it is identical to one that never stopped.

    Attributes:
        tensors: weights, optimizer moments, random streams (uint8), flat by name; on the CPU, whatever the device.
        facts: position and history.
    """

    tensors: Mapping[str, Tensor]
    facts: Facts

    def to_bytes(self) -> bytes:
        """Return the tensors in the format of safetensors."""
        from safetensors.torch import save

        return save({name: value.contiguous() for name, value in self.tensors.items()})

    @staticmethod
    def of_bytes(data: bytes, facts: Facts) -> LoopState | None:
        """Return the state of what `to_bytes` gave; None for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return LoopState(tensors=load(data), facts=facts)
        except SafetensorError:
            return None
