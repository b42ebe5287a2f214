"""Decide what the next release record says: a release, or a rollback to an earlier model.

A release record carries the whole state of a product's channels, so the newest one alone says what serves.
Pure functions over records. Reading and writing the ledger does not belong here (`storage.ledgers`), nor the
question whether a model may be released (its verdict).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from platform_assets.problems import Problem
from platform_assets.records.releases import FORMAT, Channel, Channels, Override, Release

RELEASED, ROLLED_BACK = "released", "rolled_back"
SHORT_DIGEST = 12


class NoEarlierRelease(Problem, ValueError):
    """A rollback where no other model was ever released before the live one."""


def next_release(
    *,
    product: str,
    digest: str,
    contract_sha256: str,
    cutoff: str,
    why: str,
    by: str,
    at: datetime,
    previous: int | None,
    restores: int | None = None,
    override: Override | None = None,
) -> Release:
    """Return the record that makes one model the whole of the live channel.

    Args:
        product: the product's name.
        digest: of the model's bundle.
        contract_sha256: of the request contract sealed in that bundle.
        cutoff: the cutoff that the model was trained for.
        why, by: for whoever reads the ledger: the reason, and the person or run.
        at: the moment on the product's clock, aware.
        previous: the number of the release that this one follows; None for the first.
        restores: of a rollback, the number of the release whose model it puts back.
        override: who releases a model without a passing verdict, and why; services follow no other release of such
            a model.

    Raises:
        ValueError: a naive moment.
    """
    if at.tzinfo is None:
        raise ValueError(f"at is {at!r}, without a time zone; pass the product's clock.")
    return Release(
        format=FORMAT,
        product=product,
        channels=Channels(live=Channel(digest=digest, share=1.0)),
        contract_sha256=contract_sha256,
        cutoff=cutoff,
        outcome="released" if restores is None else "rolled_back",
        why=why,
        by=by,
        at_utc=at.astimezone(UTC).isoformat(),
        previous=previous,
        restores=restores,
        override=override,
    )


def rollback(history: Iterable[tuple[int, Release]], *, by: str, at: datetime, why: str | None = None) -> Release:
    """Return the record that puts the model before the live one back.

    A second rollback goes one model further back; it never returns to a model that was rolled back from.

    Args:
        history: (number, record) of the product's releases, newest first; read only as far as needed.
        by: who rolls back.
        at: the moment on the product's clock, aware.
        why: the reason; a sentence that names both releases by default.

    Raises:
        NoEarlierRelease: nothing was released, or no other model before the live one.
    """
    releases = iter(history)
    live_number, live = next(releases, (None, None))
    if live is None or live_number is None:
        raise NoEarlierRelease("nothing has been released yet, so there is nothing to roll back to.")
    oldest_tried = live.restores or live_number
    for number, record in releases:
        if number < oldest_tried and record.outcome == RELEASED and record.digest != live.digest:
            break
    else:
        raise NoEarlierRelease(
            f"{live.product} has no other model before release {oldest_tried} (digest {live.digest[:SHORT_DIGEST]}); "
            "a rollback needs an earlier release with another digest."
        )
    return next_release(
        product=live.product,
        digest=record.digest,
        contract_sha256=record.contract_sha256,
        cutoff=record.cutoff,
        why=why or f"rolled back from release {live_number} to the model of release {number}",
        by=by,
        at=at,
        previous=live_number,
        restores=number,
        override=_again(record, number, by),
    )


def _again(record: Release, number: int, by: str) -> Override | None:
    """Return the override of a rollback to a release that needed one."""
    if not record.override:
        return None
    return Override(by=by, reason=f"as release {number} by {record.override.by}: {record.override.reason}")
