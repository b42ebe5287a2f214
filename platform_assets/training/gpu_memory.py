"""Limit what a training allocates of the memory of its GPU, which nothing else divides where several share one."""

from __future__ import annotations

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
