"""Attribute training spend to accepted models: pure sums over the frame of attempts and the releases.

Backtests do not produce models; callers leave them out and count them separately.

A release names its cutoff and its bundle's digest. Its training ends with the attempt that produced this digest (the
export), or, where records name no digest, with the newest finished attempt of its cutoff. Everything tried before
that, back to the end of the previous accepted model, was spent on it: failures, lost work, and trainings whose models
lost their evaluation. What comes after the newest accepted model is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from platform_assets.compute import costs
from platform_assets.compute.releases import RELEASED
from platform_assets.records.attempts import EXPORT, FINISHED, TRAIN
from platform_assets.records.releases import Outcome

Numbered = tuple[int, Outcome]
"""A record of the release ledger with its number."""
Try = tuple[str, str | None, str | None, str]
"""Step, cutoff, digest and reason of an attempt."""

USEFUL, REJECTED, LOST, FAILED = "useful_usd", "rejected_usd", "lost_usd", "failed_usd"
PARTS = (USEFUL, REJECTED, LOST, FAILED)
"""What an attempt's money bought, in US dollars; the four parts add up to its cost. Useful: work that is in an accepted
model. Rejected: work of finished trainings whose models were not (or not yet) accepted. Lost: work that had to be
repeated. Failed: attempts at something that never finished.
"""


def bought(attempts: pl.DataFrame, releases: Iterable[Numbered]) -> pl.DataFrame:
    """Add to each attempt the release it led to (null: open) and what its money bought. Oldest first.

    Every attempt belongs to exactly one release. A model that was released again, or returned by a rollback, counts
    once: the first time.

    Args:
        attempts: trainings and exports, by `history.attempts.SCHEMA`, newest first.
        releases: oldest first.
    """
    oldest_first = attempts.reverse()
    ends = _ends(oldest_first.select("step", "cutoff", "digest", "reason").rows(), _accepted(releases))
    spans: list[tuple[int | None, str | None]] = []  # one per attempt
    for number, cutoff, count in ends:
        spans += [(number, cutoff)] * count
    spans += [(None, None)] * (oldest_first.height - len(spans))
    attribution = pl.DataFrame(spans, {"release": pl.Int64, "model": pl.String}, orient="row")
    lost, useful = pl.col("usd") * pl.col("lost_share"), pl.col("usd") * (1 - pl.col("lost_share"))
    is_done = (pl.col("reason") == FINISHED).any().over("work")
    is_accepted = (pl.col("cutoff") == pl.col("model")).fill_null(value=False)
    return oldest_first.hstack(attribution).with_columns(
        pl.when(is_done & is_accepted).then(useful).otherwise(0.0).alias(USEFUL),
        pl.when(is_done & ~is_accepted).then(useful).otherwise(0.0).alias(REJECTED),
        pl.when(is_done).then(lost).otherwise(0.0).alias(LOST),
        pl.when(~is_done).then("usd").otherwise(0.0).alias(FAILED),
    )


def models(spent: pl.DataFrame, releases: Iterable[Numbered]) -> pl.DataFrame:
    """Sum what each accepted model cost, oldest first, with the open spend as the last row (release and cutoff null).

    Args:
        spent: from `bought`.
        releases: the same as there.
    """
    rows: list[tuple[int | None, str | None]] = [(number, record.cutoff) for number, record in _accepted(releases)]
    releases_frame = pl.DataFrame([*rows, (None, None)], {"release": pl.Int64, "cutoff": pl.String}, orient="row")
    cost_by_release = spent.group_by("release").agg(**sums())
    joined = releases_frame.join(cost_by_release, on="release", how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.exclude("release", "cutoff").fill_null(0))


def sums() -> dict[str, pl.Expr]:
    """Return the sums of attempts with what they bought, by name."""
    return costs.sums() | {part: pl.col(part).sum() for part in PARTS}


def _accepted(releases: Iterable[Numbered]) -> list[Numbered]:
    first_by_digest: dict[str, Numbered] = {}
    for number, record in releases:
        if record.outcome == RELEASED:
            first_by_digest.setdefault(record.digest, (number, record))
    return list(first_by_digest.values())


def _ends(attempts: Sequence[Try], accepted: Sequence[Numbered]) -> list[tuple[int, str, int]]:
    """Return (number, cutoff, number of attempts) per accepted model."""
    spans, start = [], 0
    for position, (number, record) in enumerate(accepted):
        is_trained_again = any(later.cutoff == record.cutoff for _, later in accepted[position + 1 :])
        end = _end(attempts, start, record, is_first=is_trained_again)
        spans.append((number, record.cutoff, end - start))
        start = end
    return spans


def _end(attempts: Sequence[Try], start: int, release: Outcome, *, is_first: bool) -> int:
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
