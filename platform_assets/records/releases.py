"""What serves: the release ledger. Its newest record carries the whole state of a product's channels."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from platform_assets import naming
from platform_assets.records.base import Part, Record, RecordKind

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, msgspec.Meta(min_length=1)]

FORMAT = 2
"""Format 1 had no `override`; it is read as a record without one."""


class Channel(Part, frozen=True, kw_only=True):
    """The model of a channel; `digest` is that of its bundle."""

    digest: Digest
    share: float


class Channels(Part, frozen=True, kw_only=True):
    """The only channel there is."""

    live: Channel


class Override(Part, frozen=True, kw_only=True):
    """Who releases a model without a passing verdict, and why."""

    by: Words
    reason: Words


class Outcome(Record, frozen=True, kw_only=True):
    """What a release did: which model is live, and for which cutoff it was trained."""

    channels: Channels
    cutoff: str
    outcome: Literal["released", "rolled_back"]

    @property
    def digest(self) -> str:
        """The digest of the live model's bundle."""
        return self.channels.live.digest


class Release(Outcome, frozen=True, kw_only=True):
    """A release or a rollback.

    `contract_sha256` is that of the request contract sealed in the bundle. `previous` is the number of the release that
    this one follows, `restores` that of the one whose model a rollback puts back.
    """

    product: str
    contract_sha256: Digest
    why: str
    by: str
    at_utc: str
    previous: int | None
    restores: int | None
    override: Override | msgspec.UnsetType | None = msgspec.UNSET


RELEASES = RecordKind(naming.RELEASES, Release, newest=FORMAT)
OUTCOMES = RecordKind(naming.RELEASES, Outcome)
"""What is kept at hand of releases (`history.money`)."""
