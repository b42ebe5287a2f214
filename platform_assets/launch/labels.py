"""Make label values of pods, and the labels by which cost is attributed to a product and its team."""

from __future__ import annotations

import hashlib
import re

PRODUCT, TEAM = "driftline/product", "driftline/team"
LONGEST = 63


def label(value: str) -> str:
    """Return the nearest valid label value, with a digest unless it is the value itself: two values stay two."""
    allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", value)[:LONGEST]
    short = re.sub(r"[^A-Za-z0-9]+$", "", re.sub(r"^[^A-Za-z0-9]+", "", allowed))
    if short == value:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{short[: LONGEST - 1 - len(digest)]}-{digest}".lstrip("-")


def attribution_labels(product: str, owner: str | None) -> dict[str, str]:
    """Return the labels of pods that work for a product; without a team where its owner is not known."""
    return {PRODUCT: label(product)} | ({} if owner is None else {TEAM: label(owner.removeprefix("team:"))})
