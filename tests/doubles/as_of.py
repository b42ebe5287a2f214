"""Tables as they stood at a moment, to prove that features see nothing later."""

from datetime import datetime

import polars as pl

from platform_assets.data.feature_blocks import KNOWN_AT


def known_by(frame: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """Return a table without later rows, and with later facts of the remaining rows blanked.

    The column `known_at_utc` applies to its whole row; a column `x_known_at_utc` applies to the columns named `x_...`
    (itself included). A table with neither (a slow source) is returned unchanged.
    """
    if KNOWN_AT in frame.columns:
        frame = frame.filter(pl.col(KNOWN_AT) <= moment)
    for column in frame.columns:
        prefix = column.removesuffix(KNOWN_AT)
        if prefix not in (column, ""):
            facts = [name for name in frame.columns if name.startswith(prefix) and name != column]
            is_known = pl.col(column) <= moment
            frame = frame.with_columns(pl.when(is_known).then(pl.col(name)).alias(name) for name in [*facts, column])
    return frame
