"""How much a test repeats: a quarter in `make test`, where a person waits; all in CI and by `make test ALL=1`."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WHOLE = bool(os.environ.get("CI") or os.environ.get("TEST_ALL"))


def draws(whole: int) -> int:
    """Return how many of so many draws, or of other repetitions, to make here; at least one."""
    return whole if WHOLE else -(-whole // 4)


def some(items: Sequence[T]) -> list[T]:
    """Return all items, or a quarter drawn at random, in their order."""
    chosen = set(random.sample(range(len(items)), draws(len(items))))
    return [item for number, item in enumerate(items) if number in chosen]
