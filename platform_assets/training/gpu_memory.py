"""Limit what a training allocates of the memory of its GPU, which nothing else divides where several share one.

And name a network that does not fit a device: torch says only which allocation failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from platform_assets.base.wording import one_line
from platform_assets.product.learner import TrainingProblem


def limit(gigabytes: float) -> None:
    """Have torch allocate no more of this process's GPU; what the driver takes for the process is not counted.

    Args:
        gigabytes: 10^9 bytes.

    Raises:
        TrainingProblem: the GPU has less.
    """
    import torch  # a training of trees has none

    whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if gigabytes * 1e9 > whole:
        raise TrainingProblem(
            f"the profile's gpu_memory_gb is {gigabytes:g}, and {torch.cuda.get_device_name()} has {whole / 1e9:.1f}; "
            "expected at most that. Fix gpu_memory_gb or node_selector of the profile."
        )
    torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / whole)


@contextmanager
def explained(product: str, device: str) -> Iterator[None]:
    """Run the body, which trains; one that finds no memory on its device is refused.

    Raises:
        TrainingProblem: the network, or one step of it, does not fit the device.
    """
    try:
        yield
    except RuntimeError as error:
        # By its name, because trees are trained without torch, which defines it.
        if type(error).__name__ != "OutOfMemoryError" and "DefaultCPUAllocator" not in str(error):
            raise
        raise TrainingProblem(
            f"{product} does not fit {device}: {one_line(str(error))}. Each process has the whole network, its moments "
            "and its rows of a batch; expected a device that holds them. Give the profile one with more memory, or "
            "make the network or training.batch_size smaller; a network is not divided among devices."
        ) from error
