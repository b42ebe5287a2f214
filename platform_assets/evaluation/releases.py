"""Compose the next release record: a release, or a rollback to an earlier model.

A release record carries the whole state of a product's channels, so the newest one alone defines what serves.
Pure functions over records; whether a model may be released is its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from platform_assets.base.problems import Problem
from platform_assets.store.records.releases import FORMAT, Channel, Channels, Override, Release

RELEASED, ROLLED_BACK = "released", "rolled_back"
SHORT_DIGEST = 12


class NoEarlierRelease(Problem, ValueError):
    """A rollback is impossible: no other model was released before the live one."""


def next_release(
    *,
    product: str,
    digest: str,
    contract_sha256: str,
    cutoff: str,
    reason: str,
    author: str,
    at: datetime,
    previous: int | None,
    restores: int | None = None,
    override: Override | None = None,
) -> Release:
    """Return the record that makes one model the only one in the live channel.

    Args:
        digest: of the model's bundle.
        contract_sha256: of the request contract sealed in that bundle.
        cutoff: the cutoff the model was trained for.
        reason, author: for readers of the ledger; the author is a person or a run.
        at: the moment on the product's clock, aware.
        previous: number of the release this one follows; None for the first.
        restores: for a rollback, number of the release whose model it restores.
        override: who releases a model without a passing verdict, and the reason; services follow no other release of
            such a model.

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
        why=reason,
        by=author,
        at_utc=at.astimezone(UTC).isoformat(),
        previous=previous,
        restores=restores,
        override=override,
        previous_sha256=None,
        verdict_sha256=None,
    )


def rollback(
    history: Iterable[tuple[int, Release]], *, author: str, at: datetime, reason: str | None = None
) -> Release:
    """Return the record that rolls back to the previous model.

    A second rollback goes one model further back; it never returns to a model that was rolled back from.

    Args:
        history: (number, record) of the product's releases, newest first; read only as far as needed.
        author: who rolls back.
        at: the moment on the product's clock, aware.
        reason: by default a sentence that names both releases.

    Raises:
        NoEarlierRelease: nothing was released, or no other model before the live one.
    """
    releases = iter(history)
    live_number, live = next(releases, (None, None))
    if live is None or live_number is None:
        raise NoEarlierRelease("nothing has been released yet, so there is nothing to roll back to.")
    # Below the release that a rollback restored, so that no model comes back that was rolled back from.
    oldest_tried = live.restores or live_number
    for number, record in releases:
        if number < oldest_tried and record.outcome == RELEASED and record.digest != live.digest:
            break
    else:
        raise NoEarlierRelease(
            f"{live.product} has no other model before release {oldest_tried} (digest {live.digest[:SHORT_DIGEST]}); "
            "a rollback needs an earlier release with another digest."
        )
    again = record.override  # a release that needed one needs it again
    if again is not None:
        again = Override(by=author, reason=f"as release {number} by {again.by}: {again.reason}")
    return next_release(
        product=live.product,
        digest=record.digest,
        contract_sha256=record.contract_sha256,
        cutoff=record.cutoff,
        reason=reason or f"rolled back from release {live_number} to the model of release {number}",
        author=author,
        at=at,
        previous=live_number,
        restores=number,
        override=again,
    )
