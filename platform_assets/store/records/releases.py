"""Define the release ledger, whose newest record has the state of a product's channels, and refusals of a release."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from platform_assets.base import naming
from platform_assets.store.records.base import Part, Record, RecordKind

PublicKey = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z+/]{43}=$")]
"""32 bytes of an Ed25519 public key, in base64."""


class Signature(Part, frozen=True, kw_only=True):
    """An Ed25519 signature (64 bytes, in base64) of the record's bytes without this member."""

    key: PublicKey
    value: Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z+/]{86}==$")]


Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, msgspec.Meta(min_length=1)]

FORMAT = 3


class Channel(Part, frozen=True, kw_only=True):
    """The model of a channel; `digest` is that of its bundle."""

    digest: Digest
    share: float


class Channels(Part, frozen=True, kw_only=True):
    """The channels; `live` is the only one."""

    live: Channel


class Override(Part, frozen=True, kw_only=True):
    """A person's release of a model without a passing verdict."""

    by: Words
    reason: Words


class Release(Record, frozen=True, kw_only=True):
    """A release or a rollback: which model is live, and the cutoff it was trained for.

    `contract_sha256` is that of the request contract sealed in the bundle. `previous` is the number of the release
    before this one; `restores` that of the release whose model a rollback restores. `previous_sha256` is the hash of
    the bytes of the release before, `verdict_sha256` that of the model's verdict; None where there is none.
    """

    channels: Channels
    cutoff: str
    outcome: Literal["released", "rolled_back"]
    product: str
    contract_sha256: Digest
    why: str
    by: str
    at_utc: str
    previous: int | None
    restores: int | None
    override: Override | None
    previous_sha256: Digest | None
    verdict_sha256: Digest | None
    signed: Signature | None = None

    @property
    def digest(self) -> str:
        """The digest of the live model's bundle."""
        return self.channels.live.digest


RELEASES = RecordKind(naming.RELEASES, Release, newest=FORMAT)


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
