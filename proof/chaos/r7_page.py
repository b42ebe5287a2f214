"""What row R7 publishes of its figures."""

import statistics
from collections.abc import Sequence

from proof.benchmarks.harness import Measure
from proof.chaos import r7_month
from proof.chaos.r7_figures import Figures, Idle, Lost, Spike, Start
from proof.chaos.r7_phases import IDLE_SHARE, TIMES

SCALE_UP_S, READY_S, START_S = 60, 120, 10
DEFAULT_LEAVES_S = 50.0
BEHIND = {
    "Cluster": "lost node with one of two haproxies behind an ordinary Service",
    "Local": "lost node with one of two haproxies, callers ask that of their own node",
}
"""By the `internalTrafficPolicy` of the Service of the proxies."""
ZERO = "1"
"""CPU of the start that has a target."""
CHANGES = ("rolling update", "node drain", "another contract", "scale-down")


def measures(figures: Figures) -> list[Measure]:
    return [
        Measure("requests per second that one replica answers at 200m CPU", figures.capacity),
        Measure("requests per second, ordinary load, median", _middle(figures.bases)),
        *_of_spike(figures.spike),
        *_of_idle(figures.idle),
        *(line for name in CHANGES for line in _of_rounds(name, figures)),
        *_of_lost("lost node", figures.lost, None),
        *_of_lost(BEHIND["Cluster"], figures.lost_behind.get("Cluster"), None),
        *_of_lost(BEHIND["Local"], figures.lost_behind.get("Local"), "<= 0"),
        *_of_starts(figures.starts),
    ]


def _middle(numbers: Sequence[float]) -> float | None:
    return statistics.median(numbers) if numbers else None


def _of_spike(spike: Spike | None) -> list[Measure]:
    return [
        Measure("spike: s until more replicas are wanted", spike and spike.scale_up_s, target=f"<= {SCALE_UP_S} s"),
        Measure("spike: s until as many as it needs are ready", spike and spike.ready_s, target=f"<= {READY_S} s"),
        Measure(
            "spike: most replicas wanted, beyond what it needs",
            spike and spike.desired - spike.needed,
            peers={"needed": spike.needed} if spike else {},
        ),
        Measure("spike: s with a p99 above the product's 100 ms", spike and spike.late_s),
        Measure("spike: p99 of the last minute, ms", spike and spike.settled.p99_ms, target="<= 100 ms"),
        Measure("spike: requests that failed although retried", spike and spike.counts.failed),
    ]


def _of_idle(idle: Idle | None) -> list[Measure]:
    window = f"<= {idle.window_s:.0f} s" if idle else "<= 420 s"
    return [Measure("idle: s until the minimum of replicas", idle and idle.seconds, target=window)]


def _of_rounds(name: str, figures: Figures) -> list[Measure]:
    rounds = figures.rounds.get(name)
    sent = {
        "sent": sum(one.sent for one in rounds or ()),
        "retried": sum(one.retried for one in rounds or ()),
        "wrong": sum(one.wrong for one in rounds or ()),
    }
    failed = sum(one.failed for one in rounds) if rounds else None
    name = f"{name}, {len(rounds or ())} rounds: requests that failed although retried"
    return [Measure(name, failed, peers=sent, target="<= 0")]


def _of_lost(name: str, lost: Lost | None, target: str | None) -> list[Measure]:
    if lost is None:
        return [Measure(f"{name}: requests that failed although retried", None, target=target)]
    until = lost.until
    return [
        Measure(f"{name}: s until its replicas were no endpoints", lost.known_s),
        Measure(
            f"{name}: requests that failed although retried, until then",
            until.failed,
            peers={"sent": until.sent, "retried": until.retried},
            target=target,
        ),
        Measure(
            f"{name}: share that failed, next to the lost share squared",
            until.failed / until.sent,
            limit=lost.share**2 if target is None else None,
        ),
        Measure(f"{name}: requests that failed afterwards", lost.after.failed, target=target),
    ]


def _of_starts(starts: Sequence[Start]) -> list[Measure]:
    lines = [] if starts else [Measure("from zero: s until the first answer", None, target=f"<= {START_S} s")]
    for cpu in dict.fromkeys(start.cpu for start in starts):
        some = [start for start in starts if start.cpu == cpu]
        lines.append(
            Measure(
                f"from zero, CPU {cpu}: s until the first answer, median of {len(some)}",
                statistics.median(start.answered for start in some),
                peers=_parts(some),
                target=f"<= {START_S} s" if cpu == ZERO else None,
            )
        )
    return lines


def _parts(starts: Sequence[Start]) -> dict[str, float]:
    """Return where the seconds go, medians; loading and warming are one, which its readiness ends."""

    def median(begin: str, end: str) -> float:
        return statistics.median(getattr(start, end) - (getattr(start, begin) if begin else 0) for start in starts)

    return {
        "schedule": median("", "scheduled"),
        "pod and image": median("scheduled", "fetching"),
        "fetch": median("fetching", "fetched"),
        "container": median("fetched", "started"),
        "load and warm": median("started", "answered"),
    }


def sentences(figures: Figures) -> list[str]:
    """Return the sentences below the table."""
    spike, idle = figures.spike, figures.idle
    lines = list[str]()
    if spike:
        lines.append(f"Spike, {TIMES:g} times the ordinary load: {spike.counts}. Its last minute: {spike.settled}.")
    if idle:
        lines.append(f"Idle, {IDLE_SHARE:g} of the ordinary load: {idle.counts}.")
    for name, rounds in figures.rounds.items():
        lines += [f"{name}, round {number}: {counts}." for number, counts in enumerate(rounds, start=1)]
    for name, lost in _losses(figures).items():
        lines.append(f"{name}; it ran {lost.share:.0%} of the replicas: {lost.until}; afterwards: {lost.after}.")
    if figures.starts:
        lines.append("Replicas from zero found the image on the node.")
    if figures.bases:
        lines.append(
            "The ordinary load is less where the machine is slower at the beginning of a phase or round than when a "
            "replica was measured, by a fixed piece of work: "
            f"{min(figures.bases):.0f} to {max(figures.bases):.0f} requests per second."
        )
    lines.append(f"The sender was at most {_latest(figures):.2f} s late with a request.")
    lines += [f"Could not run: {name}: {why}" for name, why in figures.failures.items()]
    return [*lines, *month(figures)]


def _losses(figures: Figures) -> dict[str, Lost]:
    bare = {"lost node": figures.lost} if figures.lost else {}
    return bare | {BEHIND[policy]: lost for policy, lost in figures.lost_behind.items()}


def _latest(figures: Figures) -> float:
    lost = [one for item in _losses(figures).values() for one in (item.until, item.after)]
    counts = [one for rounds in figures.rounds.values() for one in rounds] + lost
    counts += [figures.spike.counts] if figures.spike else []
    counts += [figures.idle.counts] if figures.idle else []
    return max((one.late_s for one in counts), default=0.0)


def month(figures: Figures) -> list[str]:
    """Return the minutes of a month, at the measured times and at Kubernetes' default for lost nodes."""
    lost, proxied = figures.lost, figures.lost_behind.get("Local")
    starts = [start.answered for start in figures.starts if start.cpu == ZERO]
    if lost is None or lost.known_s is None or proxied is None or not starts:
        return ["The month was not computed: a figure that it takes could not be measured."]

    def share(name: str) -> float:
        rounds = figures.rounds.get(name, [])
        return sum(one.failed for one in rounds) / max(1, sum(one.sent for one in rounds))

    lines = []
    for leaves_s in (lost.known_s, DEFAULT_LEAVES_S):
        taken = r7_month.Figures(
            leaves_s=leaves_s,
            start_s=statistics.median(starts),
            proxied_share=proxied.until.failed / proxied.until.sent,
            rolling_share=share("another contract"),
            draining_share=share("node drain"),
        )
        for replicas in r7_month.REPLICAS:
            means = (f"{r7_month.minutes(taken, replicas, way):.4f} {way}" for way in r7_month.Way)
            lines.append(
                f"A month by these figures, {replicas} replicas, endpoints leave after {leaves_s:.0f} s: minutes below "
                f"99.9 %: {', '.join(means)}."
            )
    return lines
