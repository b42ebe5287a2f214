"""Minutes of a month in which fewer than 99.9 % of requests are answered after one retry, by row R7's figures.

`python -m proof.chaos.r7_month` prints the table for Kubernetes' own settings. A minute counts by the share of its
requests that is expected to fail, at a constant rate of requests. Each event is counted alone: simulated months, in
which events may overlap, differed by 1 %. Not in it: overload of the replicas that are left (enough that the
service can do without one), an unhealthy store or API server, and callers who are lost with their own node.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

MINUTE_S, MONTH_S = 60.0, 30 * 86_400.0
ALLOWED = 0.001
"""Share of a minute's requests that may fail."""
REPLICAS = (2, 3, 5)


class Way(StrEnum):
    """How callers reach the replicas."""

    BARE = "without a proxy"
    SERVICE = "through proxies behind an ordinary Service"
    LOCAL = "through the proxy of the caller's node"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a month is computed from. Row R7 measures the seconds and shares; the rates are stated, not measured.

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


class Event(NamedTuple):
    """A stretch of seconds in which a share of requests fails twice, and how many of them a month has."""

    rate: float
    seconds: float
    share: float


def minutes(figures: Figures, replicas: int, way: Way) -> float:
    """Return the minutes below 99.9 % per month."""
    return sum(event.rate * minutes_per_event(event.seconds, event.share) for event in events(figures, replicas, way))


def per_million(figures: Figures, replicas: int, way: Way) -> float:
    """Return the requests that fail, of a million."""
    return 1e6 * sum(rate * seconds * share for rate, seconds, share in events(figures, replicas, way)) / MONTH_S


def minutes_per_event(duration_s: float, share: float) -> float:
    """Return the expected minutes below 99.9 % of one failing stretch that begins at any second of a minute.

    A minute is below when more than `x` seconds of it fail. A stretch covers more than `x` seconds of a minute in
    `duration + 60 - 2x` of its 60 possible beginnings, counted over all minutes.
    """
    fewest_s = ALLOWED * MINUTE_S / share if share else MINUTE_S
    if duration_s <= fewest_s or fewest_s >= MINUTE_S:
        return 0.0
    return (duration_s + MINUTE_S - 2 * fewest_s) / MINUTE_S


def events(figures: Figures, replicas: int, way: Way) -> Iterator[Event]:
    """Yield what fails requests: lost nodes and zones, proxies that are away, rolling updates and drains."""
    gone_s = figures.leaves_s + figures.evicted_s + figures.start_s
    for rate, lost in _losses(figures, replicas):
        if lost == replicas:
            yield Event(rate, gone_s, 1.0)
        else:
            # Without a proxy both tries pick any endpoint.
            share = (lost / replicas) ** 2 if way is Way.BARE else figures.proxied_share
            yield Event(rate, figures.leaves_s, share)
    yield Event(figures.releases, replicas * figures.start_s, figures.rolling_share)
    yield Event(replicas * figures.drains, figures.start_s, figures.draining_share)
    if way is Way.LOCAL:  # callers are lost with the proxy of their node, and meet the crashes of that one
        yield Event(figures.proxies * figures.crashes, figures.restart_s, 1 / figures.proxies)
    if way is Way.SERVICE:
        yield Event(figures.proxies * figures.crashes, figures.restart_s, (1 / figures.proxies) ** 2)
        for rate, lost in _losses(figures, figures.proxies):
            yield Event(rate, figures.leaves_s, (lost / figures.proxies) ** 2)


def _losses(figures: Figures, pods: int) -> Iterator[tuple[float, int]]:
    """Yield how often nodes and zones vanish per month, and how many of the pods with them."""
    yield pods * figures.losses, 1
    for zone in range(min(figures.zones, pods)):
        yield figures.zone_losses, len(range(zone, pods, figures.zones))


if __name__ == "__main__":
    print("| s until endpoints leave | replicas | | minutes below 99.9 % per month | failed per million |")
    for leaves_s in (50.0, 10.0):
        taken = replace(Figures(), leaves_s=leaves_s)
        for count in REPLICAS:
            for way in Way:
                cells = f"{minutes(taken, count, way):.4f} | {per_million(taken, count, way):.4f}"
                print(f"| {leaves_s:.0f} | {count} | {way} | {cells} |")
