"""Define refusals of a release: of a model whose verdict allowed it."""

from __future__ import annotations

from platform_assets.store.records.base import Record, RecordKind
from platform_assets.store.records.releases import Digest


class Refusal(Record, frozen=True, kw_only=True):
    """A model that was not released, because it does not answer logged requests.

    Attributes:
        reason: with the row that shows it.
        by: who asked for the release.
        release: number of the newest release then, 0 for none; a later one ends the refusal.
    """

    product: str
    digest: Digest
    cutoff: str
    reason: str
    by: str
    at_utc: str
    release: int


REFUSALS = RecordKind("refusals", Refusal)
