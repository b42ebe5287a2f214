"""Figures of row R7, as the simulated month takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import psutil

from tests.chaos.r7_calls import Counts

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
class Overload:
    """Three times what one replica answers.

    Attributes:
        seconds: for which it was sent.
        capacity: requests per second that it answers to callers who wait.
        counts: of the requests meanwhile.
        good: of these, requests that were answered within a second.
        median_ms: from a request to its answer, of those that were answered.
        after: of the ordinary load, once it was over.
    """

    seconds: float
    capacity: float
    counts: Counts
    good: int
    median_ms: float
    after: Counts

    @property
    def goodput(self) -> float:
        """Requests that were answered within a second, of those that could be."""
        return self.good / self.seconds / self.capacity


@dataclass(frozen=True)
class Machine:
    """The machine during a phase.

    Attributes:
        stolen: share of CPU time that its host gave to others.
        work_ms: milliseconds of CPU of a fixed piece of work at the beginning or the end, the longer ones.
    """

    stolen: float
    work_ms: float

    def __str__(self) -> str:
        return f"{self.stolen:.1%} stolen, {self.work_ms:.0f} ms"


@dataclass(frozen=True)
class Start:
    """One start of a first replica, in seconds after its creation.

    Attributes:
        cpu: the limit, in cores.
        image: "shipped" or "smallest".
        scheduled, fetching, fetched, started, ready, answered: moments.
    """

    cpu: str
    scheduled: float
    fetching: float
    fetched: float
    started: float
    ready: float
    answered: float
    image: str = "shipped"


@dataclass
class Figures:
    """What the row found; a phase that could not run is missing.

    Attributes:
        capacity: requests per second that one replica answers to callers who wait.
        unasked_m: thousandths of a core that a replica takes before its first request, the mean of both.
        bases: requests per second of the ordinary load, at the beginnings of phases and rounds.
        rounds: by the name of the change, the requests during each round.
        lost_behind: the lost node, by the `internalTrafficPolicy` of the Service of the proxies.
        overload: by what its worker refuses.
        pulls_s: seconds of pulling an image, one per node that had to, by "shipped" or "smallest".
        megabytes: of these images, unpacked.
        imports_s: seconds of Python, by what it imports.
        load_averages: of the machine, at the beginning of each phase.
        machine: by the name of a phase, how the machine was.
        failures: by the name of a phase, why it could not run.
    """

    capacity: float = 0.0
    unasked_m: float | None = None
    bases: list[float] = field(default_factory=list)
    spike: Spike | None = None
    idle: Idle | None = None
    rounds: dict[str, list[Counts]] = field(default_factory=dict)
    lost: Lost | None = None
    lost_behind: dict[str, Lost] = field(default_factory=dict)
    overload: dict[str, Overload] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    pulls_s: dict[str, list[float]] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    imports_s: dict[str, float] = field(default_factory=dict)
    load_averages: list[float] = field(default_factory=list)
    machine: dict[str, Machine] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def watched(machines: MutableMapping[str, Machine], name: str) -> Iterator[None]:
    """Note how the machine was meanwhile: a replica that had enough CPU is short of it on a machine that got slower."""
    before, before_ms = psutil.cpu_times(), work_ms()
    yield
    after = psutil.cpu_times()
    stolen = (after.steal - before.steal) / (sum(after[:8]) - sum(before[:8]))
    machines[name] = Machine(stolen, max(before_ms, work_ms()))


def work_ms() -> float:
    """Return the CPU time of a fixed piece of work, the median of some seconds: its best moment may be half of it."""
    times = []
    for _ in range(TRIES):
        began = time.thread_time()
        sum(number * number for number in range(300_000))
        times.append(time.thread_time() - began)
        time.sleep(BETWEEN_S)
    return 1000 * median(times)
