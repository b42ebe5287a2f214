"""How much a test repeats: a quarter in `make test` and `.ci/run`, all by `make test ALL=1`.

What is drawn is the same each time. `make proof` runs all and draws anew: what it finds becomes an `@example`.
"""

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WHOLE = bool(os.environ.get("TEST_ALL"))


ANEW = bool(os.environ.get("TEST_ANEW"))
"""Whether this run looks for examples that no run before it had."""


def draws(whole: int) -> int:
    """Return how many of so many draws, or of other repetitions, to make here; at least one."""
    return whole if WHOLE else -(-whole // 4)


def some(items: Sequence[T]) -> list[T]:
    chosen = set(random.Random(None if ANEW else 0).sample(range(len(items)), draws(len(items))))
    return [item for number, item in enumerate(items) if number in chosen]
