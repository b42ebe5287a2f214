"""Wait for what the platform decides about a key, and for the result.

Reads two kinds of records, and the service's metrics, which name the release that it serves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from platform_assets.demo.processes import wait_until
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Decision

RELEASES_READ = 5
# Without a label: one process serves. With one in the pattern a demo waited in vain at its second release.
_SERVED = re.compile(rb"^driftline_release ([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a training that was decided.

    Attributes:
        kind: whether its model was released or the champion kept.
        release: the number of the release that is live now; None if there never was one.
        digest: of the trained model.
        reasons: of its verdict.
    """

    kind: Literal["released", "kept_champion"]
    release: int | None
    digest: str
    reasons: tuple[str, ...]


def wait_for_decision(product: ProductStore, key: str, *, check: Callable[[], None]) -> Decision:
    """Return a key's decision as soon as it is on record; see `wait_until`."""
    return wait_until(lambda: product.history.decision(key), f"the decision of {product.name} for {key}", check)


def outcome_of(product: ProductStore, cutoff: str) -> Outcome | None:
    """Return the result of the training for a cutoff, or None while it is open."""
    history = product.history
    judged = product.tables.records("evaluation", [cutoff]).get(cutoff)
    verdict = None if judged is None else history.verdict(judged.content_digest)
    if judged is None or verdict is None:
        return None
    digest, reasons = judged.content_digest, verdict.reasons
    newest = history.newest_releases(RELEASES_READ)
    live = newest[0][0] if newest else None
    if not verdict.passed:
        return Outcome(kind="kept_champion", release=live, digest=digest, reasons=reasons)
    if any(record.cutoff == cutoff and record.digest == digest for _, record in newest):
        return Outcome(kind="released", release=live, digest=digest, reasons=reasons)
    # A training that gave the live model's bytes again makes no new release.
    if newest and newest[0][1].digest == digest:
        return Outcome(kind="released", release=live, digest=digest, reasons=reasons)
    return None


def wait_for_outcome(product: ProductStore, cutoff: str, *, check: Callable[[], None]) -> Outcome:
    """Return the result of the training for a cutoff as soon as it is settled; see `wait_for_decision`."""
    # Seldom: a look reads several records, and a training takes minutes.
    subject = f"a release of {product.name} for cutoff {cutoff}, or the verdict that keeps the champion"
    return wait_until(lambda: outcome_of(product, cutoff), subject, check, pause_s=1.0)


def wait_for_service(address: str, release: int, *, check: Callable[[], None]) -> None:
    """Wait until the service reports that it serves this release.

    Args:
        address: of its probes.
    """
    import httpx

    def look() -> bool | None:
        try:
            served = _SERVED.search(client.get("/metrics").content)
        except httpx.TransportError:
            return None
        return True if served is not None and float(served[1]) == release else None

    with httpx.Client(base_url=address, timeout=10.0) as client:
        wait_until(look, f"release {release} in the service at {address}", check)
