"""Fail a key when too many rows of its features were set aside (`data.declared`)."""

from __future__ import annotations

from platform_assets.data import declared
from platform_assets.data.declared import PutAside
from platform_assets.monitoring.faults import Check

CHECK = "undeclared_values"


def check(kept_rows: int, record: PutAside, limit: float) -> Check | None:
    """Return the failing check if too large a share of a key's rows was set aside; None if it does not fail.

    Args:
        kept_rows: number of rows in the key's features.
        record: the notes on them.
        limit: the largest share, as for a source's quarantine.
    """
    aside = record.get("rows_put_aside", 0)
    if not aside or aside / (kept_rows + aside) <= limit:
        return None
    reason, count = next(iter(record["put_aside_by_reason"].items()))
    return Check(
        source=declared.THE_FEATURES,
        check=CHECK,
        is_failing=True,
        came=f"{aside:,} of {kept_rows + aside:,} rows set aside ({aside / (kept_rows + aside):.1%}), {count:,} of "
        f"them because {reason}",
        expected=f"at most {limit:.1%}",
    )
