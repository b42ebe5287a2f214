"""Say how often a step may be tried: the classes of failure and what each may cost.

Belongs here: budgets of tries, for whoever tries again and for whoever expects what that may cost. Does not belong
here: how a try ended and what follows (`resources/launchers/endings.py`), or sizes and prices (`profiles.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from platform_assets.profiles import StepProfile, profile

FailureClass = Literal[
    "preempted",
    "node_lost",
    "evicted",
    "killed",
    "out_of_memory",
    "unschedulable",
    "image",
    "init",
    "admission",
    "deadline",
    "code",
]
LOSSES: tuple[FailureClass, ...] = ("preempted", "node_lost", "evicted", "killed")
"""The step did nothing wrong and may go on where it stood."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a class of failure may cost.

    Attributes:
        tries: how many more tries failures of this class may cause, within one run of the asset.
        pause_s: how long to wait before the first of them; it doubles.
    """

    tries: int
    pause_s: float = 0.0


LOST = Budget(tries=4, pause_s=1.0)
"""Of all losses together on one kind of node, spot or on demand."""
BUDGETS: dict[FailureClass, Budget] = {
    "out_of_memory": Budget(tries=1),
    "unschedulable": Budget(tries=0),
    "image": Budget(tries=1, pause_s=15.0),
    "init": Budget(tries=1, pause_s=5.0),
    "admission": Budget(tries=2, pause_s=10.0),
    "deadline": Budget(tries=0),
    "code": Budget(tries=0),
}


def paid_tries(size: StepProfile) -> tuple[StepProfile, ...]:
    """Return the sizes of all tries of a step that may run, each up to its deadline, in the costliest course.

    Those that end before a process began (`image`, `init`, `admission`, `unschedulable`) cost nothing.
    """
    on_spot = [size] * LOST.tries if size.is_spot else []
    last = size if size.on_demand is None else profile(size.on_demand)
    return (*on_spot, *[last] * (1 + LOST.tries + BUDGETS["out_of_memory"].tries))
