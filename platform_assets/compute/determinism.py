"""Make torch repeat itself: same seed, same data, same machine and versions, same bytes.

Belongs here: the switches of the process. Does not belong here: where random streams are kept (`train`).
"""

from __future__ import annotations

import os

import torch

CUBLAS = ":4096:8"
"""Buffers of a fixed size; without them sums on a GPU differ from run to run, and torch refuses to multiply there."""


def fix(threads: int, device: str = "cpu") -> None:
    """Switch this process to deterministic algorithms and a fixed number of threads.

    Sums depend on how many threads share them, so the count comes from the spec and never from the machine.
    The debug mode "error" is `use_deterministic_algorithms(True)` without its import of the compiler (2 CPU seconds).

    Args:
        threads: of one operation; operations themselves run one after the other.
        device: for `cuda`, call it before anything is put there.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1. Mend Training.threads in the product's file.")
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    if device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # by default convolutions lose 13 of 23 bits of each factor


def seed(value: int) -> None:
    """Start torch's default random stream: weights at birth, then dropout."""
    torch.manual_seed(value)
