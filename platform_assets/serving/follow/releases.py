"""Read a release record and decide whether a service may follow it.

A record is followed if it is the one written under its number (it names the number before, and the hash of the record
before), and if its digest has a passing verdict, or the record names who released it without one, and why. Where
public keys are pinned, both must be signed by one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from platform_assets.base import naming
from platform_assets.base.problems import NewerRecord, Problem, UnfitRecord
from platform_assets.store import signatures
from platform_assets.store.artifacts import sha256
from platform_assets.store.ledgers import DamagedRecord, Ledgers
from platform_assets.store.records import releases, verdicts


class Refusal(Problem):
    """Why the newest release is not followed: a sentence that names it."""


@dataclass(frozen=True)
class Release:
    """A release that may be followed; `sha256` is the hash of its record's bytes."""

    number: int
    digest: str
    contract_sha256: str
    sha256: str = ""


def read(
    ledgers: Ledgers, number: int, followed: int, followed_sha256: str | None, pinned: Sequence[str] = ()
) -> Release:
    """Return the release of a number.

    Args:
        number: the newest one.
        followed, followed_sha256: the newest one that could be followed, up to which hashes are checked, and the hash
            of its record where it is known; 0 for none.
        pinned: the public keys that count; without any, signatures are not checked.

    Raises:
        Refusal: it is gone, malformed, a copy of another one, not signed, not the successor of what was followed, or
            names a digest without a passing verdict.
        LedgerProblem: the store cannot be read.
    """
    data, record = _stored(ledgers, number)
    if pinned:
        try:
            signatures.check(naming.RELEASES, data, record.signed, pinned)
        except signatures.SignatureProblem as problem:
            raise Refusal(f"release {number} {problem}; the model stays.") from None
    if (record.previous or 0) != number - 1:
        raise Refusal(
            f"release {number} states that it follows release {record.previous}; expected {number - 1}: it is a copy "
            "of another record."
        )
    if record.product != ledgers.product:
        raise Refusal(f"release {number} is one of product {record.product!r:.100}; expected {ledgers.product!r}.")
    _check_chain(ledgers, number, record, followed, followed_sha256)
    if not record.override:
        try:
            stored = ledgers.of(verdicts.VERDICTS).stored(record.digest)
            reason = "has no verdict" if stored is None else _doubt(*stored, record, pinned)
        except (DamagedRecord, NewerRecord, UnfitRecord) as problem:
            reason = f"has a verdict that cannot be read: {problem}"
        if reason is not None:
            raise Refusal(
                f"release {number} is not followed: {record.digest} {reason}. Expected a passing verdict, or a "
                "person's reason in the record (`driftline release --override`)."
            )
    return Release(number, record.digest, record.contract_sha256, sha256(data))


def _stored(ledgers: Ledgers, number: int) -> tuple[bytes, releases.Release]:
    try:
        stored = ledgers.of(releases.RELEASES).stored(f"{number:08d}")
    except (DamagedRecord, NewerRecord, UnfitRecord) as problem:
        raise Refusal(f"release {number} cannot be followed: {problem}") from None
    if stored is None:
        raise Refusal(
            f"release {number} was followed, but is no longer in the store; the model stays. Restore the record, or "
            "release again under a higher number."
        )
    return stored


def _check_chain(
    ledgers: Ledgers, number: int, record: releases.Release, followed: int, followed_sha256: str | None
) -> None:
    """Follow the hashes from a release back to the one that was followed."""
    while number - 1 >= followed and number > 1 and record.previous_sha256 is not None:
        expected = record.previous_sha256
        if number - 1 == followed and followed_sha256 is not None:
            actual = followed_sha256
        elif followed == 0:
            return  # nothing was followed here: the newest record speaks for itself
        else:
            data, record = _stored(ledgers, number - 1)
            actual = sha256(data)
        if actual != expected:
            raise Refusal(
                f"release {number} states that the record before it has sha256 {expected}; release {number - 1} has "
                f"{actual}: one of them was changed or replaced. The model stays; put the record back from a backup."
            )
        number -= 1


def _doubt(data: bytes, verdict: verdicts.Verdict, record: releases.Release, pinned: Sequence[str]) -> str | None:
    """Return why a verdict allows no release, or None if it does."""
    if verdict.digest != record.digest:
        return f"has the verdict on {verdict.digest}"
    if record.verdict_sha256 is not None and sha256(data) != record.verdict_sha256:
        return f"has another verdict than the release names, {record.verdict_sha256}"
    # Where the key that signed the release, which names the hash of these bytes, is the verdict's too, the verdict's
    # own signature proves nothing more, and costs as much as the release's.
    has_one_key = verdict.signed is not None and record.signed is not None and verdict.signed.key == record.signed.key
    if pinned and not (has_one_key and record.verdict_sha256 is not None):
        try:
            signatures.check(naming.VERDICTS, data, verdict.signed, pinned)
        except signatures.SignatureProblem as problem:
            return f"has a verdict that {problem}"
    return None if verdict.passed else "failed its evaluation"
