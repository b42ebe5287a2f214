"""Say what an accepted model cost: all that was tried from the training of the model before it to its own.

Belongs here: pure sums over the ledgers of attempts and releases. Does not belong here: what one attempt costs
(`compute.costs`), or reading. Backtests make no model: whoever calls leaves them out, and counts them beside.

A release names its cutoff and the digest of its bundle. Its training ends with the attempt that made this digest (the
export), or, in records that name none, with the newest finished one of its cutoff. What was tried before that, back
to the end of the accepted model before, was spent on the way to it: also what failed, what was lost, and trainings
whose models lost their evaluation. What comes after the newest accepted model is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from platform_assets.compute import costs
from platform_assets.compute.costs import Attempt, Parts
from platform_assets.compute.releases import RELEASED
from platform_assets.records.releases import Outcome

Numbered = tuple[int, Outcome]
"""A record of the release ledger with its number."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was tried on the way to one accepted model, or since the newest.

    Attributes:
        release: its number; None for what is open.
        cutoff, digest: of the model; None for what is open.
        attempts: oldest first, each with what its money bought.
    """

    release: int | None
    cutoff: str | None
    digest: str | None
    attempts: tuple[tuple[Attempt, Parts], ...]

    @property
    def parts(self) -> Parts:
        """What the money bought."""
        return sum((bought for _, bought in self.attempts), Parts())

    @property
    def usd(self) -> float:
        """What it cost."""
        return costs.total_usd(attempt for attempt, _ in self.attempts)

    @property
    def on_demand_usd(self) -> float:
        """What the same seconds would have cost on demand."""
        return sum(costs.on_demand_cost_usd(attempt) for attempt, _ in self.attempts)

    @property
    def trainings(self) -> int:
        """How many trainings were finished, accepted or not."""
        done = costs.finished(attempt for attempt, _ in self.attempts)
        return sum(step == costs.TRAIN for step, _ in done)

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table, money to a hundredth of a cent."""
        bought = self.parts
        return {
            "release": "open" if self.release is None else self.release,
            "cutoff": self.cutoff,
            "trainings": self.trainings,
            "attempts": len(self.attempts),
            "usd": round(self.usd, 4),
            "on_demand_usd": round(self.on_demand_usd, 4),
            **{f"{name}_usd": round(getattr(bought, name), 4) for name in costs.PARTS},
        }


def spent(attempts: Iterable[Attempt], releases: Iterable[Numbered]) -> list[Spent]:
    """Return what each accepted model cost, oldest first, and at the end what is open.

    Every attempt is in exactly one of them. A model that was released again, or came back by a rollback, is accepted
    once: the first time.

    Args:
        attempts: trainings and exports, the newest first, each once (`costs.attempts`).
        releases: the oldest first.
    """
    found = list(reversed(list(attempts)))
    done = costs.finished(found)
    models = _accepted(releases)
    made, start = [], 0
    for place, (number, record) in enumerate(models):
        is_trained_again = any(later.cutoff == record.cutoff for _, later in models[place + 1 :])
        end = _end(found, start, record, is_first=is_trained_again)
        made.append(_spent(found[start:end], done, number, record))
        start = end
    return [*made, _spent(found[start:], done, None, None)]


def _accepted(releases: Iterable[Numbered]) -> list[Numbered]:
    seen: dict[str, Numbered] = {}
    for number, record in releases:
        if record.outcome == RELEASED:
            seen.setdefault(record.digest, (number, record))
    return list(seen.values())


def _end(found: Sequence[Attempt], start: int, release: Outcome, *, is_first: bool) -> int:
    """Return the place after the last attempt of a release's training; `start` when none of it is on record.

    Args:
        is_first: whether a later release has the same cutoff, so that its training is not this one's.
    """
    digest, cutoff = release.digest, release.cutoff
    places = range(start, len(found))
    named = [at for at in places if found[at].digest == digest]
    own = named or [at for at in places if _is_training_of(found[at], cutoff)]
    if not own:
        return start
    end = (own[0] if is_first and not named else own[-1]) + 1
    while end < len(found) and costs.step_of(found[end]) == costs.EXPORT and found[end].cutoff == cutoff:
        end += 1
    return end


def _is_training_of(attempt: Attempt, cutoff: str) -> bool:
    is_own = costs.step_of(attempt) == costs.TRAIN and attempt.cutoff == cutoff
    return is_own and attempt.reason == costs.FINISHED


def _spent(found: Sequence[Attempt], done: frozenset[costs.Work], number: int | None, release: Outcome | None) -> Spent:
    cutoff = None if release is None else release.cutoff
    bought = tuple(
        (each, costs.parts(each, done, is_accepted=cutoff is not None and each.cutoff == cutoff)) for each in found
    )
    return Spent(
        release=number,
        cutoff=cutoff,
        digest=None if release is None else release.digest,
        attempts=bought,
    )
