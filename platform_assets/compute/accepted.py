"""Say what an accepted model cost: all that was tried from the training of the model before it to its own.

Belongs here: pure sums over the frame of attempts and the releases. Does not belong here: what one attempt costs
(`compute.costs`), or reading. Backtests make no model: whoever calls leaves them out, and counts them beside.

A release names its cutoff and the digest of its bundle. Its training ends with the attempt that made this digest (the
export), or, in records that name none, with the newest finished one of its cutoff. What was tried before that, back
to the end of the accepted model before, was spent on the way to it: also what failed, what was lost, and trainings
whose models lost their evaluation. What comes after the newest accepted model is open.
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
"""What money bought, in US dollars: work that is in an accepted model; work of trainings that ended, whose models were
not accepted (yet); work that was done and had to be done again; tries at what nobody has finished. The four of an
attempt add up to its cost."""


def bought(attempts: pl.DataFrame, releases: Iterable[Numbered]) -> pl.DataFrame:
    """Return attempts, the oldest first, with the release that each led to (null: open) and what its money bought.

    Every attempt is in exactly one. A model that was released again, or came back by a rollback, is accepted once: the
    first time.

    Args:
        attempts: trainings and exports, by `history.attempts.SCHEMA`.
        releases: the oldest first.
    """
    found = attempts.reverse()
    ends = _ends(found.select("step", "cutoff", "digest", "reason").rows(), _accepted(releases))
    spans: list[tuple[int | None, str | None]] = []
    for number, cutoff, count in ends:
        spans += [(number, cutoff)] * count
    spans += [(None, None)] * (found.height - len(spans))
    of = pl.DataFrame(spans, {"release": pl.Int64, "model": pl.String}, orient="row")
    lost, kept = pl.col("usd") * pl.col("lost_share"), pl.col("usd") * (1 - pl.col("lost_share"))
    is_done = (pl.col("reason") == FINISHED).any().over("work")
    is_accepted = (pl.col("cutoff") == pl.col("model")).fill_null(value=False)
    return found.hstack(of).with_columns(
        pl.when(is_done & is_accepted).then(kept).otherwise(0.0).alias(USEFUL),
        pl.when(is_done & ~is_accepted).then(kept).otherwise(0.0).alias(REJECTED),
        pl.when(is_done).then(lost).otherwise(0.0).alias(LOST),
        pl.when(~is_done).then("usd").otherwise(0.0).alias(FAILED),
    )


def models(spent: pl.DataFrame, releases: Iterable[Numbered]) -> pl.DataFrame:
    """Return what each accepted model cost, oldest first, and at the end what is open (release and cutoff null).

    Args:
        spent: from `bought`.
        releases: those that it was made with.
    """
    rows: list[tuple[int | None, str | None]] = [(number, record.cutoff) for number, record in _accepted(releases)]
    known = pl.DataFrame([*rows, (None, None)], {"release": pl.Int64, "cutoff": pl.String}, orient="row")
    found = spent.group_by("release").agg(**sums())
    joined = known.join(found, on="release", how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.exclude("release", "cutoff").fill_null(0))


def sums() -> dict[str, pl.Expr]:
    """Return what attempts with what they bought add up to, by name."""
    return costs.sums() | {part: pl.col(part).sum() for part in PARTS}


def _accepted(releases: Iterable[Numbered]) -> list[Numbered]:
    seen: dict[str, Numbered] = {}
    for number, record in releases:
        if record.outcome == RELEASED:
            seen.setdefault(record.digest, (number, record))
    return list(seen.values())


def _ends(found: Sequence[Try], accepted: Sequence[Numbered]) -> list[tuple[int, str, int]]:
    """Return number, cutoff and count of attempts of each accepted model."""
    spans, start = [], 0
    for place, (number, record) in enumerate(accepted):
        is_trained_again = any(later.cutoff == record.cutoff for _, later in accepted[place + 1 :])
        end = _end(found, start, record, is_first=is_trained_again)
        spans.append((number, record.cutoff, end - start))
        start = end
    return spans


def _end(found: Sequence[Try], start: int, release: Outcome, *, is_first: bool) -> int:
    """Return the place after the last attempt of a release's training; `start` when none of it is on record.

    Args:
        is_first: whether a later release has the same cutoff, so that its training is not this one's.
    """
    rest = range(start, len(found))
    named = [at for at in rest if found[at][2] == release.digest]
    trained = (TRAIN, release.cutoff, FINISHED)
    own = named or [at for at in rest if (found[at][0], found[at][1], found[at][3]) == trained]
    if not own:
        return start
    end = (own[0] if is_first and not named else own[-1]) + 1
    while end < len(found) and found[end][:2] == (EXPORT, release.cutoff):
        end += 1
    return end
