"""Define the state of a month's budget, on which a decision rests."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A month's budget before another training, in US dollars.

    Attributes:
        next_usd: what the next training is expected to cost.
        over: a sentence on how far that exceeds the month's budget; None if it does not.
    """

    spent_usd: float = 0.0
    next_usd: float = 0.0
    over: str | None = None


NOTHING = Balance()
