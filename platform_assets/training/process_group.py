"""Join the processes that share a training, and pass tensors between them; only tensors, so nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from platform_assets.product.learner import TrainingProblem
from platform_assets.training.steps.process import PeerLost
from platform_assets.training.watchdog import WAITING, Watchdog

BACKENDS = "cpu:gloo,cuda:nccl"


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes of one training, of which this is number `rank`; each member calls the same methods in turn.

    Attributes:
        size: how many there are.
        size_here: how many of them are on this node.
        watchdog: of this process.

    Raises:
        PeerLost: from every method, when another process is gone.
    """

    rank: int
    size: int
    size_here: int
    watchdog: Watchdog

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
        with self._waiting():
            dist.all_reduce(values)

    def copy_first(self, values: Tensor) -> None:
        """Replace values by those of rank 0."""
        with self._waiting():
            dist.broadcast(values, src=0)

    def is_any(self, one: bool, other: bool = False) -> tuple[bool, bool]:
        """Return for each of two conditions whether it holds in any process."""
        counts = torch.tensor([int(one), int(other)])
        self.add(counts)
        return counts[0].item() > 0, counts[1].item() > 0

    def first_bytes(self, data: bytes = b"") -> bytes:
        """Return the data of rank 0."""
        # Not broadcast_object_list(), which pickles.
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
        with self._waiting():
            dist.all_gather(every, own)
        for place, name in enumerate(digests):
            if other := [rank for rank in range(self.size) if not torch.equal(every[rank][place], every[0][place])]:
                raise TrainingProblem(
                    f"the {name} of rank {', '.join(map(str, other))} differs from that of rank 0; expected the same "
                    f"in all {self.size} processes of the training. Start it again where all read one store and run "
                    "one version of the code."
                )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self.watchdog.phase(WAITING), _peers():
            yield


@contextmanager
def joined(size_here: int, on_hang: Callable[[str], None]) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun's agents started, by their variables; each takes the GPU of its number, if any.

    Args:
        size_here: how many of them are on this node.
        on_hang: called in a thread with a sentence when no step has ended for too long; ends the process.
    """
    if (place := dist.get_node_local_rank()) < torch.cuda.device_count():
        torch.cuda.set_device(place)
    with _peers():
        dist.init_process_group(BACKENDS if torch.cuda.is_available() else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    yield ProcessGroup(rank=rank, size=size, size_here=size_here, watchdog=Watchdog(rank, on_hang))
    dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Name what torch reports when a connection to another process closes or stays silent."""
    try:
        yield
    except RuntimeError as problem:
        evidence = str(problem).partition(". This is typically")[0].splitlines()[0]
        raise PeerLost(f"another process of this step is gone; its own end is the cause ({evidence}).") from None
