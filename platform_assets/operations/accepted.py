"""Attribute training spend to accepted models: pure sums over the frame of attempts and the releases.

Backtests do not produce models; callers leave them out. Trials of a search belong to a month and to no release.

A release names its cutoff and its bundle's digest. Its training ends with the attempt that produced this digest (the
export), or, where records name no digest, with the newest finished attempt of its cutoff. Everything tried before
that, back to the end of the previous accepted model, was spent on it: failures, lost work, and trainings whose models
lost their evaluation. What comes after the newest accepted model is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from platform_assets.evaluation.releases import RELEASED
from platform_assets.store.records.attempts import EXPORT, FINISHED, TRAIN, TRIAL
from platform_assets.store.records.releases import Release

Numbered = tuple[int, Release]
"""A record of the release ledger with its number."""
Try = tuple[str, str | None, str | None, str]
"""Step, cutoff, digest and reason of an attempt."""


def attributed(attempts: pl.DataFrame, releases: Iterable[Numbered]) -> pl.DataFrame:
    """Add to each attempt its release and that model's cutoff (null: open), and its waste. Oldest first.

    Every attempt but a trial belongs to exactly one release. A model that was released again, or returned by a
    rollback, counts once: the first time. `wasted_usd` went into work that was repeated, or into something that never
    finished.

    Args:
        attempts: trainings and exports, by `store.history.attempts.SCHEMA`, newest first.
        releases: oldest first.
    """
    is_trial, first_by_digest = pl.col("step") == TRIAL, dict[str, Numbered]()
    oldest_first = attempts.filter(~is_trial).reverse()
    for number, record in releases:
        if record.outcome == RELEASED:
            first_by_digest.setdefault(record.digest, (number, record))
    tries = oldest_first.select("step", "cutoff", "digest", "reason").rows()
    ends = _ends(tries, list(first_by_digest.values()))
    spans: list[tuple[int | None, str | None]] = []  # one per attempt
    for number, cutoff, count in ends:
        spans += [(number, cutoff)] * count
    spans += [(None, None)] * (oldest_first.height - len(spans))
    attribution = pl.DataFrame(spans, {"release": pl.Int64, "model": pl.String}, orient="row")
    is_done = (pl.col("reason") == FINISHED).any().over("work")
    wasted_usd = pl.when(is_done).then(pl.col("usd") * pl.col("lost_share")).otherwise("usd")
    both = [oldest_first.hstack(attribution), attempts.filter(is_trial)]
    return pl.concat(both, how="diagonal").sort("number").with_columns(wasted_usd=wasted_usd)


def models(spent: pl.DataFrame) -> pl.DataFrame:
    """Return the month of its last attempt, release, cutoff and cost per accepted model, oldest first, then the open.

    Without trials.

    Args:
        spent: from `attributed`, with `month` (`costs.with_month`).
    """
    costs_usd = (
        spent.filter(pl.col("step") != TRIAL)
        .group_by("release", "model", maintain_order=True)
        .agg(pl.col("month").last(), pl.col("usd").sum())
    )
    return costs_usd.select("month", "release", "model", "usd")


def months(spent: pl.DataFrame) -> pl.DataFrame:
    """Sum attempts, finished trainings, cost and waste by month, the newest first.

    Args:
        spent: as of `models`.
    """
    is_training = (pl.col("reason") == FINISHED) & (pl.col("step") == TRAIN)
    return (
        spent.group_by("month")
        .agg(
            pl.len().alias("attempts"),
            pl.col("work").filter(is_training).n_unique().alias("trainings"),
            pl.col("usd", "wasted_usd").sum(),
        )
        .sort("month", descending=True)
    )


def _ends(attempts: Sequence[Try], accepted: Sequence[Numbered]) -> list[tuple[int, str, int]]:
    """Return (number, cutoff, number of attempts) per accepted model."""
    spans, start = [], 0
    for position, (number, record) in enumerate(accepted):
        is_trained_again = any(later.cutoff == record.cutoff for _, later in accepted[position + 1 :])
        end = _end(attempts, start, record, is_first=is_trained_again)
        spans.append((number, record.cutoff, end - start))
        start = end
    return spans


def _end(attempts: Sequence[Try], start: int, release: Release, *, is_first: bool) -> int:
    """Return the position after the last attempt of a release's training; `start` if none of it is on record.

    Args:
        is_first: whether a later release has the same cutoff, so that the last training of the cutoff is not this
            one's.
    """
    rest = range(start, len(attempts))
    named = [at for at in rest if attempts[at][2] == release.digest]
    trained = (TRAIN, release.cutoff, FINISHED)
    matching = named or [at for at in rest if (attempts[at][0], attempts[at][1], attempts[at][3]) == trained]
    if not matching:
        return start
    end = (matching[0] if is_first and not named else matching[-1]) + 1
    while end < len(attempts) and attempts[end][:2] == (EXPORT, release.cutoff):
        end += 1
    return end
