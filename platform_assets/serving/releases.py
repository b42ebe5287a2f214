"""Read a release record and decide whether a service may follow it.

A record is followed if it is the one written under its number (it names the number before), and if its digest has a
passing verdict, or the record names who released it without one, and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from platform_assets.problems import NewerRecord, Problem, UnfitRecord
from platform_assets.records import releases, verdicts
from platform_assets.storage.ledgers import Ledgers


class Refusal(Problem):
    """Why the newest release is not followed: a sentence that names it."""


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
    try:
        record = ledgers.of(releases.RELEASES).at(number)
    except (NewerRecord, UnfitRecord) as problem:
        raise Refusal(f"release {number} cannot be followed: {problem}") from None
    if record is None:
        raise Refusal(
            f"release {number} was followed, but is no longer in the store; the model stays. Restore the record, or "
            "release again under a higher number."
        )
    if (record.previous or 0) != number - 1:
        raise Refusal(
            f"release {number} states that it follows release {record.previous}; expected {number - 1}: it is a copy "
            "of another record."
        )
    if not record.override:
        _check_verdict(ledgers, number, record.digest)
    return Release(number, record.digest, record.contract_sha256)


def _check_verdict(ledgers: Ledgers, number: int, digest: str) -> None:
    try:
        verdict = ledgers.of(verdicts.VERDICTS).read(digest)
    except (NewerRecord, UnfitRecord) as problem:
        reason = f"has a verdict that cannot be read: {problem}"
    else:
        if verdict is None:
            reason = "has no verdict"
        elif verdict.digest != digest:
            reason = f"has the verdict on {verdict.digest}"
        elif not verdict.passed:
            reason = "failed its evaluation"
        else:
            return
    raise Refusal(
        f"release {number} is not followed: {digest} {reason}. Expected a passing verdict, or a person's reason in the "
        "record (`driftline release --override`)."
    )
