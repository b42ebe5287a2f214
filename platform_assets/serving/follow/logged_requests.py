"""Define logged requests for the trial of a bundle, and what is reported of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from platform_assets.serving.answer.slices_of_work import ROWS_AT_ONCE
from platform_assets.serving.run.event_loop import HUNG_S

_VALUE_CHARACTERS, _ROW_CHARACTERS = 60, 2_000


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """Logged requests.

    Attributes:
        rows: JSON of requests of one row.
        lists: the lists that callers sent, as places in `rows`.
        limit_ms: CPU that a row may take.
    """

    rows: list[bytes]
    lists: list[list[int]]
    limit_ms: float

    @property
    def cpu_s_max(self) -> float:
        """CPU that a model within its limit may take for all of them, and one request until it counts as hung."""
        # Turns of 2, 3, ... ROWS_AT_ONCE rows have fewer rows than its square.
        rows = len(self.rows) + sum(len(places) for places in self.lists) + ROWS_AT_ONCE**2
        return HUNG_S + rows * self.limit_ms / 1000

    def describe(self, places: Sequence[int]) -> str:
        """Describe a request by its first row, within bounds: `the logged row {...}`."""
        row = msgspec.json.decode(self.rows[places[0]])
        features = {name: _shortened(value) for name, value in row["features"].items()}
        text = _shortened(msgspec.json.encode({**row, "features": features}).decode(), _ROW_CHARACTERS)
        return f"the logged row {text}" if len(places) == 1 else f"{len(places)} logged rows, the first of them {text}"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """How a bundle answered.

    Attributes:
        rows: with valid answers.
        unfit: refused as its contract says, for example for a field that is new.
        slow_ms: CPU of the 99th percentile of single rows; 0 without any.
        peak_bytes: the most memory that the process held.
    """

    rows: int
    unfit: int
    slow_ms: float
    peak_bytes: int

    def __str__(self) -> str:
        unfit = f" ({self.unfit:,} more do not fit its contract)" if self.unfit else ""
        return (
            f"{self.rows:,} logged rows answered{unfit}, 99 % of them within {self.slow_ms:.2g} ms of CPU, "
            f"with {self.peak_bytes / 2**20:.0f} MiB of memory"
        )


def _shortened(value: object, characters: int = _VALUE_CHARACTERS) -> object:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return value if len(text) <= characters else f"{text[:characters]}…"
