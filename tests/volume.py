"""How much a test repeats: a quarter in `make test`, where a person waits; all in CI and by `make test ALL=1`."""

from __future__ import annotations

import os

WHOLE = bool(os.environ.get("CI") or os.environ.get("TEST_ALL"))


def draws(whole: int) -> int:
    """Return how many of so many draws, or of other repetitions, to make here; at least one."""
    return whole if WHOLE else -(-whole // 4)
