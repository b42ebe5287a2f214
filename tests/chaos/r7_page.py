"""What row R7 publishes of its figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tests.benchmarks.harness import Measure
from tests.chaos import r7_month
from tests.chaos.r7_figures import Figures, Idle, Lost, Overload, Spike, Start
from tests.chaos.r7_load import TIMEOUT_S
from tests.chaos.r7_phases import IDLE_SHARE, RECOVERED_S, TIMES

SCALE_UP_S, READY_S, START_S = 60, 120, 10
DEFAULT_LEAVES_S = 50.0
BEHIND = {
    "Cluster": "lost node with one of two haproxies behind an ordinary Service",
    "Local": "lost node with one of two haproxies, callers ask that of their own node",
}
"""By the `internalTrafficPolicy` of the Service of the proxies."""
ZERO = ("1", "shipped")
"""CPU and image of the start that the order is about."""
CHANGES = ("rolling update", "node drain", "another contract", "scale-down")
WIRING = (
    "This proves how the parts are wired, on one kernel whose two cores also run both nodes, the control plane, the "
    "callers and other work of the machine. It says nothing about capacity."
)
CHOSEN = (
    "Chosen after a failed trial, so not tested by this row: the ordinary load is 60 % of what one replica "
    "answers (at 65 %, a spike of 98 % of the minimum, 11,019 of 25,775 requests failed, most in a storm of "
    "repetitions that went on with a third replica ready); the pods' group weighs 16 times a process of the machine; "
    "the autoscaler may add replicas after 15 s, no longer 30 s; callers wait before they repeat a request, as the "
    "client in docs/serve.md does (`Retry-After`, here 1 s, and 50 to 250 ms). They used to repeat it at once: of "
    "five drains, 1,967 of 22,618 requests failed on one day and 155 of 18,846 on another, on which all attempts that "
    "failed had been refused by the one replica that was left, while the machine's host took up to 30 % of its CPU. "
    "Then the load was set by the fastest of three samples of the machine: in one drain 86 requests per second were "
    "sent "
    "where a replica answers 68, and 623 of 2,021 failed, all refused; it is set by the median of some seconds now, "
    "and never exceeds its share of what was measured."
)
SETTINGS = (
    "Settings of the cluster's controllers here, and Kubernetes' defaults: autoscaler's sync 15 s (15 s), "
    "initialization period 5 min (5 min), metrics every 15 s (15 s), a node is given up after 10 s without a sign of "
    "life (50 s). The manifest sets for its product: scale-up over 15 s (0 s), scale-down over 300 s (5 min) and one "
    "replica per minute, eviction from a lost node after 10 s (5 min)."
)
BALANCERS = (
    "Behind a cloud's load balancer the wait before a replica ends (`preStop`, 5 s, and 5 s of draining) must cover "
    "the time until the balancer sends it nothing new. Not run. AWS: a target is deregistered over 300 s by default "
    "(`deregistration_delay.timeout_seconds`). Azure's Application Gateway: connection draining is off by default, "
    "and 30 s where an Ingress switches it on. Google Cloud: the backend service's connection draining timeout is "
    "set by you, 0 to 3,600 s, and its endpoints may take up to 60 s longer to go."
)


PROXIES = (
    "Two haproxies, one per node, as deploy/kubernetes/examples/proxy.yaml has them; callers come in by the node that "
    "is not lost. Behind an ordinary Service each try meets the lost proxy as often as the other one, until it stops "
    "being an endpoint: as without any proxy. With `internalTrafficPolicy: Local` callers ask the proxy of their own "
    "node, and are lost with it or not at all. Callers outside of the cluster need an address per node, and their "
    "second try at another one, or a balancer that checks nodes: not run."
)


def measures(figures: Figures) -> list[Measure]:
    """Return the table's lines."""
    return [
        Measure(measure="requests per second that one replica answers at 200m CPU", ours=figures.capacity),
        Measure(measure="requests per second, ordinary load, median", ours=_middle(figures.bases)),
        Measure(measure="thousandths of a core that a replica takes before its first request", ours=figures.unasked_m),
        *_of_spike(figures.spike),
        *_of_idle(figures.idle),
        *(line for name in CHANGES for line in _of_rounds(name, figures)),
        *_of_lost("lost node", figures.lost, None),
        *_of_lost(BEHIND["Cluster"], figures.lost_behind.get("Cluster"), None),
        *_of_lost(BEHIND["Local"], figures.lost_behind.get("Local"), "<= 0"),
        *_of_overload(figures.overload),
        *_of_starts(figures.starts),
    ]


def _middle(numbers: Sequence[float]) -> float | None:
    return statistics.median(numbers) if numbers else None


def _of_spike(spike: Spike | None) -> list[Measure]:
    return [
        Measure(
            measure="spike: s until more replicas are wanted",
            ours=spike and spike.scale_up_s,
            target=f"<= {SCALE_UP_S} s",
        ),
        Measure(
            measure="spike: s until as many as it needs are ready",
            ours=spike and spike.ready_s,
            target=f"<= {READY_S} s",
        ),
        Measure(
            measure="spike: most replicas wanted, beyond what it needs",
            ours=spike and spike.desired - spike.needed,
            peers={"needed": spike.needed} if spike else {},
        ),
        Measure(measure="spike: s with a p99 above the product's 100 ms", ours=spike and spike.late_s),
        Measure(measure="spike: p99 of the last minute, ms", ours=spike and spike.settled.p99_ms, target="<= 100 ms"),
        Measure(measure="spike: requests that failed although retried", ours=spike and spike.counts.failed),
    ]


def _of_idle(idle: Idle | None) -> list[Measure]:
    window = f"<= {idle.window_s:.0f} s" if idle else "<= 420 s"
    return [Measure(measure="idle: s until the minimum of replicas", ours=idle and idle.seconds, target=window)]


def _of_rounds(name: str, figures: Figures) -> list[Measure]:
    rounds = figures.rounds.get(name)
    sent = {
        "sent": sum(one.sent for one in rounds or ()),
        "retried": sum(one.retried for one in rounds or ()),
        "wrong": sum(one.wrong for one in rounds or ()),
    }
    failed = sum(one.failed for one in rounds) if rounds else None
    name = f"{name}, {len(rounds or ())} rounds: requests that failed although retried"
    return [Measure(measure=name, ours=failed, peers=sent, target="<= 0")]


def _of_lost(name: str, lost: Lost | None, target: str | None) -> list[Measure]:
    if lost is None:
        return [Measure(measure=f"{name}: requests that failed although retried", ours=None, target=target)]
    until = lost.until
    return [
        Measure(measure=f"{name}: s until its replicas were no endpoints", ours=lost.known_s),
        Measure(
            measure=f"{name}: requests that failed although retried, until then",
            ours=until.failed,
            peers={"sent": until.sent, "retried": until.retried},
            target=target,
        ),
        Measure(
            measure=f"{name}: share that failed, next to the lost share squared",
            ours=until.failed / until.sent,
            limit=lost.share**2 if target is None else None,
        ),
        Measure(measure=f"{name}: requests that failed afterwards", ours=lost.after.failed, target=target),
    ]


def _of_overload(overload: Mapping[str, Overload]) -> list[Measure]:
    lines = []
    for name, one in overload.items():
        text = f"overload, {TIMES:g} times what one replica answers, {name}"
        lines += [
            Measure(measure=f"{text}: share answered within 1 s of what it can answer", ours=one.goodput),
            Measure(measure=f"{text}: ms until the answer, median", ours=one.median_ms),
            Measure(measure=f"{text}: requests that failed in the {RECOVERED_S:g} s after it", ours=one.after.failed),
        ]
    return lines


def _of_starts(starts: Sequence[Start]) -> list[Measure]:
    lines = (
        [] if starts else [Measure(measure="from zero: s until the first answer", ours=None, target=f"<= {START_S} s")]
    )
    for cpu, image in dict.fromkeys((start.cpu, start.image) for start in starts):
        some = [start for start in starts if (start.cpu, start.image) == (cpu, image)]
        what = f"CPU {cpu}{', smallest image' * (image == 'smallest')}"
        lines.append(
            Measure(
                measure=f"from zero, {what}: s until the first answer, median of {len(some)}",
                ours=statistics.median(start.answered for start in some),
                peers=_parts(some),
                target=f"<= {START_S} s" if (cpu, image) == ZERO else None,
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
    lines = [WIRING, CHOSEN, SETTINGS, BALANCERS]
    if spike:
        lines.append(f"Spike, {TIMES:g} times the ordinary load: {spike.counts}. Its last minute: {spike.settled}.")
    if idle:
        lines.append(f"Idle, {IDLE_SHARE:g} of the ordinary load: {idle.counts}.")
    for name, rounds in figures.rounds.items():
        lines += [f"{name}, round {number}: {counts}." for number, counts in enumerate(rounds, start=1)]
    for name, lost in _losses(figures).items():
        lines.append(f"{name}; it ran {lost.share:.0%} of the replicas: {lost.until}; afterwards: {lost.after}.")
    for name, one in figures.overload.items():
        lines.append(f"Overload of one replica, {name}, {one.seconds:g} s: {one.counts}; afterwards: {one.after}.")
    lines.append(
        f"Requests of the last {TIMEOUT_S:g} s before the endpoints leave are saved by their repetition, which comes "
        "after that: so fewer fail than the lost share squared. By Kubernetes' default the time is 50 s."
    )
    lines.append(PROXIES)
    if figures.pulls_s:
        lines.append(f"Replicas from zero found the image on the node. Pulls, from this machine: {_pulls(figures)}.")
    if figures.imports_s:
        lines.append(
            "Seconds of one Python process in a replica with one core, by what it imports: "
            f"{_imports(figures)}. A smaller image shortens the pull alone."
        )
    if figures.load_averages:
        low, high = min(figures.load_averages), max(figures.load_averages)
        lines.append(f"The machine's load average at the beginnings of phases: {low:.0f} to {high:.0f}, on two cores.")
    if figures.bases:
        lines.append(
            "The ordinary load is less where the machine is slower at the beginning of a phase or round than when a "
            "replica was measured, by a fixed piece of work: "
            f"{min(figures.bases):.0f} to {max(figures.bases):.0f} requests per second."
        )
    if figures.machine:
        parts = "; ".join(f"{name} {machine}" for name, machine in figures.machine.items())
        lines.append(f"CPU time that the machine's host gave to others, and that of a fixed piece of work: {parts}.")
    lines.append(f"The sender was at most {_latest(figures):.2f} s late with a request.")
    lines += [f"Could not run: {name}: {why}" for name, why in figures.failures.items()]
    return [*lines, *month(figures)]


def _pulls(figures: Figures) -> str:
    return "; ".join(
        f"the {image} image, {figures.megabytes[image]:.0f} MB, {' and '.join(f'{one:.1f}' for one in seconds)} s"
        for image, seconds in figures.pulls_s.items()
    )


def _imports(figures: Figures) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in figures.imports_s.items())


def _losses(figures: Figures) -> dict[str, Lost]:
    bare = {"lost node": figures.lost} if figures.lost else {}
    return bare | {BEHIND[policy]: lost for policy, lost in figures.lost_behind.items()}


def _latest(figures: Figures) -> float:
    lost = [one for item in _losses(figures).values() for one in (item.until, item.after)]
    counts = [one for rounds in figures.rounds.values() for one in rounds] + lost
    counts += [figures.spike.counts] if figures.spike else []
    counts += [figures.idle.counts] if figures.idle else []
    counts += [item for one in figures.overload.values() for item in (one.counts, one.after)]
    return max((one.late_s for one in counts), default=0.0)


def month(figures: Figures) -> list[str]:
    """Return a simulated month, at the measured times and at Kubernetes' default for lost nodes."""
    lost, proxied = figures.lost, figures.lost_behind.get("Local")
    starts = [start.answered for start in figures.starts if (start.cpu, start.image) == ZERO]
    if lost is None or lost.known_s is None or proxied is None or not starts:
        return ["The month was not simulated: a figure that it takes could not be measured."]

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
            means = (
                f"{r7_month.simulate(taken, replicas, way, r7_month.MONTHS).mean:.4f} {way}" for way in r7_month.Way
            )
            lines.append(
                f"A simulated month, {replicas} replicas, endpoints leave after {leaves_s:.0f} s: minutes below "
                f"99.9 %: {', '.join(means)}."
            )
    taken, sent = r7_month.Figures(), proxied.until.sent
    lines.append(
        f"The months take the measured share of failures: {proxied.until.failed} of {sent} requests through the proxy, "
        f"which bounds it by {3 / sent:.1%} (95 %) where none failed."
    )
    lines.append(
        f"Rates of the months, stated and not measured: {taken.losses:g} nodes lost without notice per node and month, "
        f"{taken.zone_losses:.3f} zones, {taken.releases:g} releases of another contract, {taken.drains:g} drains per "
        f"node, {taken.crashes:.3f} crashes of each of {taken.proxies} proxies, back after {taken.restart_s:g} s; the "
        f"mean of {r7_month.MONTHS} months each."
    )
    return lines
