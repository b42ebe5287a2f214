"""Simulate months of a service: minutes in which fewer than 99.9 % of requests are answered after one retry.

`python -m tests.chaos.r7_month` prints the table for Kubernetes' own settings. A minute counts by the share of its
requests that is expected to fail, at a constant rate of requests. Not in it: overload of the replicas that are left
(enough that the service can do without one), an unhealthy store or API server, and callers who are
lost with their own node.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

MINUTE_S, MONTH_S = 60.0, 30 * 86_400.0
ALLOWED = 0.001
"""Share of a minute's requests that may fail."""
REPLICAS, MONTHS, SEED = (2, 3, 5), 10_000, 7


class Way(StrEnum):
    """How callers reach the replicas."""

    BARE = "without a proxy"
    SERVICE = "through proxies behind an ordinary Service"
    LOCAL = "through the proxy of the caller's node"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a month is simulated from. Row R7 measures the seconds and shares; the rates are stated, not measured.

    Attributes:
        leaves_s: seconds from the loss of a node until its replicas have left the Service's endpoints.
        evicted_s: seconds from then until they are replaced: the tolerations of the service's manifest.
        start_s: seconds from the creation of a replica to its first answer.
        proxied_share: share of requests that fail through the proxy while a lost replica is still an endpoint.
        rolling_share: share of requests that fail during a rolling update, after one retry.
        draining_share: share of requests that fail while a drained replica ends, after one retry.
        losses: nodes that vanish without notice, per node and month. 0.05 is the upper end of the smallest class of
            AWS's Spot Instance Advisor; its interruptions have a notice, which is not counted on here.
        zone_losses: zones that vanish at once, per zone and month: one in ten years.
        zones: over which the replicas are spread evenly, and the proxies too.
        proxies: each on a node of its own, or for `Way.LOCAL` on one of so many nodes with as many callers each.
        crashes: of each proxy, per month, without its node: one in a year.
        restart_s: seconds from a proxy's crash until it answers again on its node.
        releases: rolling updates to another contract per month.
        drains: of each node per month. GKE patches nodes as often as weekly
            (docs.cloud.google.com/kubernetes-engine/upgrades).
    """

    leaves_s: float = 50.0
    evicted_s: float = 10.0
    start_s: float = 10.0
    proxied_share: float = 0.0
    rolling_share: float = 0.0
    draining_share: float = 0.0
    losses: float = 0.05
    zone_losses: float = 1 / 120
    zones: int = 3
    proxies: int = 2
    crashes: float = 1 / 12
    restart_s: float = 2.0
    releases: float = 8.0
    drains: float = 4.3


class Outage(NamedTuple):
    """A replica that does not answer: an endpoint until `left_s`, replaced at `back_s`."""

    replica: int
    begun_s: float
    left_s: float
    back_s: float


class Span(NamedTuple):
    """A stretch of time in which a share of requests fails whatever else happens."""

    begun_s: float
    ended_s: float
    share: float


class Month(NamedTuple):
    """Minutes below 99.9 %, and the seconds whose requests failed, weighted by the share that did."""

    minutes: int
    failed_s: float


@dataclass(frozen=True)
class Result:
    """Simulated months, those with the fewest minutes below 99.9 % first."""

    months: tuple[Month, ...]

    @property
    def mean(self) -> float:
        """Minutes below 99.9 % per month."""
        return sum(month.minutes for month in self.months) / len(self.months)

    @property
    def per_million(self) -> float:
        """Requests that fail, of a million."""
        return 1e6 * sum(month.failed_s for month in self.months) / len(self.months) / MONTH_S

    def quantile(self, share: float) -> int:
        """Return the minutes that a share of months does not exceed."""
        return self.months[min(len(self.months) - 1, int(share * len(self.months)))].minutes


def failing_share(listed: int, lost: int, answering: int, proxied_share: float | None) -> float:
    """Return the share of requests that fail twice.

    Args:
        listed: endpoints of the Service.
        lost: endpoints among them that do not answer.
        answering: replicas that do.
        proxied_share: without a proxy None: both tries pick any endpoint.
    """
    if not answering:
        return 1.0
    if not lost:
        return 0.0
    return (lost / listed) ** 2 if proxied_share is None else proxied_share


def minutes_per_event(duration_s: float, share: float) -> float:
    """Return the expected minutes below 99.9 % of one failing stretch that begins at any second of a minute.

    A minute is below when more than `x` seconds of it fail. A stretch covers more than `x` seconds of a minute in
    `duration + 60 - 2x` of its 60 possible beginnings, counted over all minutes.
    """
    fewest_s = ALLOWED * MINUTE_S / share if share else MINUTE_S
    if duration_s <= fewest_s or fewest_s >= MINUTE_S:
        return 0.0
    return (duration_s + MINUTE_S - 2 * fewest_s) / MINUTE_S


def expected_minutes(figures: Figures, replicas: int) -> float:
    """Return the minutes per month without a proxy if no two events overlapped: the exact first order."""
    total = replicas * figures.losses * minutes_per_event(figures.leaves_s, 1 / replicas**2)
    for members in zone_members(replicas, figures.zones):
        total += figures.zone_losses * _zone_minutes(figures, replicas, len(members))
    total += figures.releases * minutes_per_event(replicas * figures.start_s, figures.rolling_share)
    return total + replicas * figures.drains * minutes_per_event(figures.start_s, figures.draining_share)


def _zone_minutes(figures: Figures, replicas: int, members: int) -> float:
    if members == replicas:
        return minutes_per_event(figures.leaves_s + figures.evicted_s + figures.start_s, 1.0)
    return minutes_per_event(figures.leaves_s, (members / replicas) ** 2)


def zone_members(replicas: int, zones: int) -> list[range]:
    """Return the replicas of each zone that has some."""
    return [range(zone, replicas, zones) for zone in range(min(zones, replicas))]


def simulate(figures: Figures, replicas: int, way: Way, months: int = MONTHS, seed: int = SEED) -> Result:
    """Simulate months; the same seed draws the same losses of replicas for each way."""
    if replicas < 1 or months < 1:
        raise ValueError(f"replicas is {replicas} and months {months}; expected at least 1 each.")
    share = None if way is Way.BARE else figures.proxied_share
    drawn, drawn_proxies = random.Random(f"{seed} {replicas}"), random.Random(f"{seed} {way}")
    results = []
    for _ in range(months):
        outages, spans = draw(figures, replicas, drawn)
        results.append(judge(outages, [*spans, *draw_proxies(figures, way, drawn_proxies)], replicas, share))
    return Result(tuple(sorted(results)))


def draw_proxies(figures: Figures, way: Way, drawn: random.Random) -> list[Span]:
    """Draw a month's stretches in which a proxy that is asked does not answer.

    Behind an ordinary Service that is the proxy of a lost node, met twice in a row, until it has left the endpoints,
    and one that crashed, until it is ready again. Who asks the proxy of its own node meets the crashes of that one.
    """
    if way is Way.BARE:
        return []
    is_shared = way is Way.SERVICE
    crash = (1 / figures.proxies) ** 2 if is_shared else 1 / figures.proxies
    lost = [(figures.crashes, figures.restart_s, crash)] * figures.proxies
    if is_shared:
        lost += [(figures.losses, figures.leaves_s, (1 / figures.proxies) ** 2)] * figures.proxies
        for members in zone_members(figures.proxies, figures.zones):
            lost.append((figures.zone_losses, figures.leaves_s, (len(members) / figures.proxies) ** 2))
    return [Span(at_s, at_s + seconds, share) for rate, seconds, share in lost for at_s in _moments(rate, drawn)]


def draw(figures: Figures, replicas: int, drawn: random.Random) -> tuple[list[Outage], list[Span]]:
    """Draw a month: replicas that are lost or drained, and stretches of updates and drains that fail some requests."""
    outages = list[Outage]()
    for replica in range(replicas):
        outages += (_lost(figures, replica, at_s) for at_s in _moments(figures.losses, drawn))
    for members in zone_members(replicas, figures.zones):
        for at_s in _moments(figures.zone_losses, drawn):
            outages += (_lost(figures, replica, at_s) for replica in members)
    spans = [
        Span(at_s, at_s + replicas * figures.start_s, figures.rolling_share)
        for at_s in _moments(figures.releases, drawn)
    ]
    drains = sorted((at_s, replica) for replica in range(replicas) for at_s in _moments(figures.drains, drawn))
    for at_s, replica in drains:
        begun_s = _allowed(at_s, outages)
        outages.append(Outage(replica, begun_s, begun_s, begun_s + figures.start_s))
        spans.append(Span(begun_s, begun_s + figures.start_s, figures.draining_share))
    return outages, spans


def _moments(rate: float, drawn: random.Random) -> Iterator[float]:
    """Yield the moments of a Poisson process with so many events per month."""
    at_s = 0.0
    while rate and (at_s := at_s + drawn.expovariate(rate / MONTH_S)) < MONTH_S:
        yield at_s


def _lost(figures: Figures, replica: int, at_s: float) -> Outage:
    left_s = at_s + figures.leaves_s
    return Outage(replica, at_s, left_s, left_s + figures.evicted_s + figures.start_s)


def _allowed(at_s: float, outages: Sequence[Outage]) -> float:
    """Return when a drain may take its replica: the PodDisruptionBudget waits until no other one is missing."""
    for outage in sorted(outages, key=lambda outage: outage.begun_s):
        if outage.begun_s <= at_s < outage.back_s:
            at_s = outage.back_s
    return at_s


def judge(outages: Sequence[Outage], spans: Sequence[Span], replicas: int, proxied_share: float | None = None) -> Month:
    """Return how many minutes of a month have a larger share of failed requests than is allowed."""
    spans = [span for span in spans if span.share]
    outages = [outage for group in _overlapping(outages) if _matters(group, replicas) for outage in group]
    edges = sorted({edge for outage in outages for edge in outage[1:]} | {edge for span in spans for edge in span[:2]})
    failed_s = defaultdict[int, float](float)
    for begun_s, ended_s in itertools.pairwise(edges):
        share = _share(begun_s, outages, spans, replicas, proxied_share)
        if share:
            _add(failed_s, begun_s, ended_s, share)
    allowed_s = ALLOWED * MINUTE_S
    return Month(sum(seconds > allowed_s for seconds in failed_s.values()), sum(failed_s.values()))


def _overlapping(outages: Sequence[Outage]) -> list[list[Outage]]:
    """Return outages in groups, each of which overlaps no other."""
    groups, ends_s = list[list[Outage]](), -1.0
    for outage in sorted(outages, key=lambda outage: outage.begun_s):
        if outage.begun_s >= ends_s:
            groups.append([])
        groups[-1].append(outage)
        ends_s = max(ends_s, outage.back_s)
    return groups


def _matters(group: Sequence[Outage], replicas: int) -> bool:
    """Return whether requests can fail: nearly all groups are a drain alone, which leaves other replicas."""
    return replicas == 1 or len(group) > 1 or group[0].left_s > group[0].begun_s


def _share(
    at_s: float, outages: Sequence[Outage], spans: Sequence[Span], replicas: int, proxied_share: float | None
) -> float:
    """Return the share of requests that fail at a moment; causes are taken as independent."""
    missing = [outage for outage in outages if outage.begun_s <= at_s < outage.back_s]
    away = {outage.replica for outage in missing}
    gone = {outage.replica for outage in missing if outage.left_s <= at_s}
    answered = 1 - failing_share(replicas - len(gone), len(away - gone), replicas - len(away), proxied_share)
    for span in spans:
        if span.begun_s <= at_s < span.ended_s:
            answered *= 1 - span.share
    return 1 - answered


def _add(failed_s: dict[int, float], begun_s: float, ended_s: float, share: float) -> None:
    """Add a failing stretch to the minutes that it covers."""
    for minute in range(int(begun_s // MINUTE_S), int(ended_s // MINUTE_S) + 1):
        covered_s = min(ended_s, (minute + 1) * MINUTE_S) - max(begun_s, minute * MINUTE_S)
        failed_s[minute] += max(0.0, covered_s) * share


def table(cases: Mapping[str, Figures], months: int = MONTHS) -> list[str]:
    """Return Markdown: minutes of a month below 99.9 %, by replicas and by the way to them."""
    lines = [
        "| figures | replicas | | minutes below 99.9 % per month | of the worst in 100 months | failed per million |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in cases.items():
        for replicas in REPLICAS:
            for way in Way:
                result = simulate(figures, replicas, way, months)
                cells = f"{result.mean:.4f} | {result.quantile(0.99)} | {result.per_million:.4f}"
                lines.append(f"| {name} | {replicas} | {way} | {cells} |")
    return lines


if __name__ == "__main__":
    defaults = Figures()
    print("\n".join(table({"50 s until endpoints leave": defaults, "10 s": replace(defaults, leaves_s=10.0)})))
