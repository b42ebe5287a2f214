"""Tell when too many rows of a key's features were put aside (`compute.declared`)."""

from __future__ import annotations

from platform_assets.compute import declared
from platform_assets.compute.declared import PutAside
from platform_assets.compute.faults import Check

CHECK = "undeclared_values"


def check_share(kept: int, record: PutAside, limit: float) -> Check | None:
    """Return the check that fails when more of a key's rows were put aside than may be; None when it does not fail.

    Args:
        kept: rows of the key's features.
        record: the notes of their record.
        limit: the largest share, as for a source's quarantine.
    """
    aside = record.get("rows_put_aside", 0)
    if not aside or aside / (kept + aside) <= limit:
        return None
    reason, count = next(iter(record["put_aside_by_reason"].items()))
    return Check(
        source=declared.THE_FEATURES,
        check=CHECK,
        is_failing=True,
        came=f"{aside:,} of {kept + aside:,} rows put aside ({aside / (kept + aside):.1%}), {count:,} of them because "
        f"{reason}",
        expected=f"at most {limit:.1%}",
    )
