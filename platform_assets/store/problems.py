"""Define the errors of tables; every message names the stage, what came and where to fix it."""

from __future__ import annotations

from collections.abc import Iterable

from platform_assets.base.problems import Problem

SHOWN_KEYS = 5


class TableProblem(Problem):
    """A table that cannot be read or written."""


class MissingPartitions(TableProblem):
    """Keys without a partition record, and so without content.

    Attributes:
        stage: the stage that was read.
        keys: the missing keys, sorted.
    """

    def __init__(self, product: str, stage: str, keys: Iterable[str]) -> None:
        """Build the message from the product, the stage and the missing keys."""
        self.stage = stage
        self.keys = tuple(sorted(keys))
        super().__init__(f"{product}/{stage} has no {plural(self.keys)}; materialise {stage} for it first.")


class DigestMismatch(TableProblem):
    """Content that does not match its record: files were changed outside the platform."""


def plural(keys: Iterable[str]) -> str:
    """Format keys for a message, naming the first few: `keys 0001, 0002 and 57 more`."""
    named = sorted(keys)
    more = f" and {len(named) - SHOWN_KEYS} more" if len(named) > SHOWN_KEYS else ""
    return f"key{'s' if len(named) != 1 else ''} {', '.join(named[:SHOWN_KEYS])}{more}"
