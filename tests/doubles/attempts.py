"""Attempts as the frame that money is added up from."""

from __future__ import annotations

import polars as pl
from msgspec.structs import replace

from platform_assets.history.attempts import frame
from platform_assets.records.attempts import Attempt


def newest_first(*found: Attempt) -> pl.DataFrame:
    """Return attempts by `history.attempts.SCHEMA`, none told of twice; the last has number 1."""
    return frame((len(found) - path, replace(item, id=None)) for path, item in enumerate(found))


def oldest_first(*found: Attempt) -> pl.DataFrame:
    """Return attempts by `history.attempts.SCHEMA`; the first has number 1."""
    return newest_first(*reversed(found))
