"""Make torch deterministic: same seed, data, machine and versions give the same bytes.

These are the switches of the process; the random streams are kept in `train`.
"""

from __future__ import annotations

import os

import torch

CUBLAS = ":4096:8"
"""Fixed buffer sizes; without them sums on a GPU differ from run to run, and torch refuses to multiply there."""


def fix(threads: int, device: str = "cpu") -> None:
    """Switch this process to deterministic algorithms and a fixed number of threads.

    Sums depend on how many threads share them, so the count comes from the spec and never from the machine.
    The debug mode "error" equals `use_deterministic_algorithms(True)` without importing the compiler (2 CPU seconds).

    Args:
        threads: per operation; operations run one after the other.
        device: for `cuda`, call this before anything is placed there.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1. Fix Training.threads in the product's file.")
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode fills all new memory by default, which costs time and helps only code that reads it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    if device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS
        torch.backends.cudnn.benchmark = False  # algorithms chosen by their times differ from run to run
        torch.backends.cudnn.allow_tf32 = False  # by default convolutions lose 13 of 23 bits of each factor


def seed(value: int) -> None:
    """Seed torch's default random stream, which initialises weights and then drives dropout."""
    torch.manual_seed(value)
