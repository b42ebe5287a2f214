"""Join the processes that share a training, and pass tensors between them; only tensors, so nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from platform_assets.product.learner import TrainingProblem
from platform_assets.training.steps.process import PeerLost

BACKENDS = "cpu:gloo,cuda:nccl"


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes of one training, of which this is number `rank`; each member calls the same methods in turn.

    Attributes:
        size: how many there are.
        size_here: how many of them are on this node.

    Raises:
        PeerLost: from every method, when another process is gone.
    """

    rank: int
    size: int
    size_here: int

    def check_device(self, device: str) -> None:
        """Raise `TrainingProblem` unless each process has a GPU, where they compute on GPUs."""
        count = torch.cuda.device_count()
        if device == "cuda" and count < self.size_here:
            raise TrainingProblem(
                f"the training's profile has {self.size_here} processes on a GPU each, and torch finds {count} here; "
                f"expected {self.size_here}. Fix the node, which must expose them to the step, or the profile."
            )

    def add(self, values: Tensor) -> None:
        """Replace values by their sum over all processes, with the same bytes in each."""
        with _peers():
            dist.all_reduce(values)

    def copy_first(self, values: Tensor) -> None:
        """Replace values by those of rank 0."""
        with _peers():
            dist.broadcast(values, src=0)

    def is_any(self, is_so: bool) -> bool:
        """Return whether something is so in any process."""
        count = torch.tensor([int(is_so)])
        self.add(count)
        return count.item() > 0

    def first_bytes(self, data: bytes = b"") -> bytes:
        """Return the data of rank 0."""
        length = torch.tensor([len(data)])
        self.copy_first(length)
        values = torch.zeros(int(length.item()), dtype=torch.uint8)
        if self.rank == 0 and data:
            values = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if len(values):
            self.copy_first(values)
        return values.numpy().tobytes()

    def check_equal(self, **digests: str) -> None:
        """Compare hexadecimal sha256 digests with those of the other processes.

        Raises:
            TrainingProblem: in every process, if one differs; it names what differs, and where.
        """
        own = torch.tensor([list(bytes.fromhex(digest)) for digest in digests.values()], dtype=torch.uint8)
        every = [torch.zeros_like(own) for _ in range(self.size)]
        with _peers():
            dist.all_gather(every, own)
        for place, name in enumerate(digests):
            if other := [rank for rank in range(self.size) if not torch.equal(every[rank][place], every[0][place])]:
                raise TrainingProblem(
                    f"the {name} of rank {', '.join(map(str, other))} differs from that of rank 0; expected the same "
                    f"in all {self.size} processes of the training. Start it again where all read one store and run "
                    "one version of the code."
                )


@contextmanager
def joined(size_here: int) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun's agents started, by their variables; each takes the GPU of its number, if any.

    Args:
        size_here: how many of them are on this node.
    """
    if (place := dist.get_node_local_rank()) < torch.cuda.device_count():
        torch.cuda.set_device(place)
    with _peers():
        dist.init_process_group(BACKENDS if torch.cuda.is_available() else "gloo")
    yield ProcessGroup(rank=dist.get_rank(), size=dist.get_world_size(), size_here=size_here)
    dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Name what torch reports when a connection to another process closes or stays silent."""
    try:
        yield
    except RuntimeError as problem:
        evidence = str(problem).partition(". This is typically")[0].splitlines()[0]
        raise PeerLost(f"another process of this step is gone; its own end is the cause ({evidence}).") from None
