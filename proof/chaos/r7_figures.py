"""Figures of row R7."""

import time
from dataclasses import dataclass, field
from statistics import median

from proof.chaos.r7_calls import Counts

TRIES, BETWEEN_S = 15, 0.1
"""Of the fixed piece of work."""


@dataclass(frozen=True)
class Spike:
    """Three times the load.

    Attributes:
        scale_up_s, ready_s: until the autoscaler wanted more replicas, and until as many as it wanted in the end were
            ready; None if they never were.
        desired: the most replicas that it wanted.
        needed: replicas that the load needs at the autoscaler's target, by the measured capacity of one.
        late_s: how long the p99 was above the product's limit.
        counts: of the requests from the beginning of the spike to its end.
        settled: of those of its last minute.
    """

    scale_up_s: float | None
    ready_s: float | None
    desired: int
    needed: int
    late_s: float
    counts: Counts
    settled: Counts


@dataclass(frozen=True)
class Idle:
    """After the spike.

    Attributes:
        seconds: from the end of the spike until the replicas were the minimum; None if they never were.
        window_s: what the manifest states.
    """

    seconds: float | None
    window_s: float
    counts: Counts


@dataclass(frozen=True)
class Lost:
    """A node without power.

    Attributes:
        share: of the replicas that were on it.
        known_s: until its replicas had left the Service's endpoints; None if they never did.
        until: requests until then; through the proxy those of the same time.
        after: requests afterwards.
    """

    share: float
    known_s: float | None
    until: Counts
    after: Counts


@dataclass(frozen=True)
class Start:
    """One start of a first replica, in seconds after its creation.

    Attributes:
        cpu: the limit, in cores.
        scheduled, fetching, fetched, started, ready, answered: moments.
    """

    cpu: str
    scheduled: float
    fetching: float
    fetched: float
    started: float
    ready: float
    answered: float


@dataclass
class Figures:
    """What the row found; a phase that could not run is missing.

    Attributes:
        capacity: requests per second that one replica answers to callers who wait.
        bases: requests per second of the ordinary load, at the beginnings of phases and rounds.
        rounds: by the name of the change, the requests during each round.
        lost_behind: the lost node, by the `internalTrafficPolicy` of the Service of the proxies.
        failures: by the name of a phase, why it could not run.
    """

    capacity: float = 0.0
    bases: list[float] = field(default_factory=list)
    spike: Spike | None = None
    idle: Idle | None = None
    rounds: dict[str, list[Counts]] = field(default_factory=dict)
    lost: Lost | None = None
    lost_behind: dict[str, Lost] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def work_ms() -> float:
    """Return the CPU time of a fixed piece of work, the median of some seconds: its best moment may be half of it."""
    times = []
    for _ in range(TRIES):
        began = time.thread_time()
        sum(number * number for number in range(300_000))
        times.append(time.thread_time() - began)
        time.sleep(BETWEEN_S)
    return 1000 * median(times)
