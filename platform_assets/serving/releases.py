"""Read a release record and say whether a service may follow it.

Belongs here: what a service reads of releases and verdicts, as types, and the rule by which it follows. Does not belong
here: making records (`compute.releases`), loading what they name (`follow`).

A record is followed when it is the one that was written under its number (it names the number before), and when its
digest has a passing verdict, or the record names who released it without one, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from platform_assets import naming
from platform_assets.storage.ledgers import Ledgers

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, msgspec.Meta(min_length=1)]


class Refusal(Exception):
    """Why the newest release is not followed: a sentence that names it."""


class _Channel(msgspec.Struct, frozen=True):
    digest: Digest


class _Channels(msgspec.Struct, frozen=True):
    live: _Channel


class _Override(msgspec.Struct, frozen=True):
    by: Words
    reason: Words


class _Record(msgspec.Struct, frozen=True):
    """What a service reads of a release record, of format 2 and of those before, which had none."""

    channels: _Channels
    contract_sha256: Digest
    previous: int | None
    override: _Override | None = None


class _Verdict(msgspec.Struct, frozen=True):
    digest: Digest
    passed: bool


@dataclass(frozen=True)
class Release:
    """A release that may be followed."""

    number: int
    digest: str
    contract_sha256: str


def read(ledgers: Ledgers, number: int) -> Release:
    """Return the release of a number.

    Raises:
        Refusal: it is gone, malformed, a copy of another one, or names a digest without a passing verdict.
        LedgerProblem: the store cannot be read.
    """
    raw = ledgers.at(naming.RELEASES, number)
    if raw is None:
        raise Refusal(
            f"release {number} was followed and is not in the store any more; the model stays. Restore the record, or "
            "release again under a higher number."
        )
    try:
        record = msgspec.convert(raw, _Record)
    except msgspec.ValidationError as problem:
        raise Refusal(
            f"release {number} names no live digest and contract: {problem}; the record was changed or written by "
            "other code."
        ) from None
    if (record.previous or 0) != number - 1:
        raise Refusal(
            f"release {number} says that it follows release {record.previous}; expected {number - 1}: it is a copy of "
            "another record."
        )
    digest = record.channels.live.digest
    if record.override is None:
        _check_verdict(ledgers.read(naming.VERDICTS, digest), number, digest)
    return Release(number, digest, record.contract_sha256)


def _check_verdict(raw: dict[str, Any] | None, number: int, digest: str) -> None:
    if raw is None:
        words = "has no verdict"
    else:
        try:
            verdict = msgspec.convert(raw, _Verdict)
        except msgspec.ValidationError as problem:
            words = f"has a verdict that cannot be read: {problem}"
        else:
            if verdict.digest == digest and verdict.passed:
                return
            words = "failed its evaluation" if verdict.digest == digest else f"has the verdict on {verdict.digest}"
    raise Refusal(
        f"release {number} is not followed: {digest} {words}. Expected a passing verdict, or a person's reason in the "
        "record (`driftline release --override`)."
    )
