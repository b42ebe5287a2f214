"""Attempts as the frame from which money is added up."""

import polars as pl
from msgspec.structs import replace

from platform_assets.store.history.attempts import frame
from platform_assets.store.records.attempts import Attempt


def newest_first(*attempts: Attempt) -> pl.DataFrame:
    """Return attempts by `store.history.attempts.SCHEMA`, without duplicates; the last has number 1."""
    return frame((len(attempts) - index, replace(item, id=None)) for index, item in enumerate(attempts))
