"""What attempts cost: the ledger against the journal of a cluster's double, after more than 100 random faults.

Launchers in processes of their own run counting steps as pods, ten side by side. A seeded killer ends or prevents
their tries in every way that the double knows, and kills or interrupts launchers; each work is launched again until it
is finished. Then every try of the kubelet's journal, which no code under test reads, must be one attempt of the
ledger, for the same reason, and all of them must cost the same.

The API gives a container's start and end in whole seconds, cut off, so the time of one try is wrong by less than a
second either way and by 0.4 s in the mean square, whoever reads it; of 180 tries these errors add up to 5.5 s in the
mean square. Tries that run for 1,100 s together would miss one percent by their rounding alone in one row of twenty;
these run for more than 2,000 s, where it is a quarter of a percent. An end that no status shows is decided at the
next poll: half a poll too late on average.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from platform_assets.compute import costs
from platform_assets.history.attempts import frame
from platform_assets.records.attempts import ATTEMPTS, Attempt, unique_attempts
from platform_assets.settings import REPOSITORY
from platform_assets.storage.ledgers import Ledgers
from tests.benchmarks.harness import Measure
from tests.chaos.q4_faults import FAULTS, Killer, node
from tests.chaos.q4_lanes import Lanes
from tests.chaos.q4_launch import IMAGE, PRODUCT, SIZES, settings_of
from tests.doubles.cluster.cluster import Cluster

SEED, LANES, NODES = 20261101, 10, 8
FAULT_EVERY_S, LOOK_S, MOST_S = 2.4, 0.1, 900.0
CLASSES = {
    "preempted": "preempted",
    "evicted": "evicted",
    "out_of_memory": "out_of_memory",
    "node_lost": "node_lost",
    "unschedulable": "unschedulable",
    "image": "image",
    "admission": "admission",
    "quota": "admission",
    "deleted": "cancelled",
    "killed": "out_of_memory",
    "vanished": "node_lost",
}
"""The reason that an attempt must have, by the journal's cause."""
NOT_SHOWN = ("killed", "vanished")
"""Causes that no API shows: a SIGKILL looks like a memory limit, a pod that is gone like a lost node."""
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A try as the journal tells of it.

    Attributes:
        expected: the reason.
        is_done: whether the process ended with 0: a fault that came in its last moment was too late.
        wall_s: of its process.
    """

    cause: str
    expected: str
    is_done: bool
    wall_s: float
    usd: float


def run() -> list[Measure]:
    """Break, wait until every work is finished, compare."""
    with tempfile.TemporaryDirectory(prefix="driftline-q4-", ignore_cleanup_errors=True) as location:
        folder = Path(location)
        nodes = [
            node(f"{kind}-{number}", is_spot=kind == "spot") for kind in ("spot", "own") for number in range(NODES)
        ]
        with Cluster(nodes=nodes, images={IMAGE}, cwd=REPOSITORY, start_s=0.05) as cluster:
            lanes = Lanes(cluster, folder, LANES)
            killer = Killer(cluster, lanes, folder, SEED)
            try:
                _storm(lanes, killer)
            finally:
                lanes.close()
            truth = _truth(cluster.journal.entries())
        records = [record for _, record in Ledgers(settings_of(folder).root, PRODUCT).of(ATTEMPTS).records()]
        logs = {path.name: path.read_text(errors="replace")[-2000:] for path in folder.glob("launcher-*.log")}
    if lanes.odd > killer.inflicted["run cancelled"]:
        raise RuntimeError(f"launchers ended by an error of their own: {dict(lanes.exits)}; {logs}")
    return _compared(truth, records, killer)


def _storm(lanes: Lanes, killer: Killer) -> None:
    began_s = time.monotonic()
    next_s = began_s + 4.0
    while lanes.turn(is_last=killer.is_done):
        now_s = time.monotonic()
        if now_s - began_s > MOST_S:
            raise TimeoutError(f"not over in {MOST_S:g} s; inflicted so far: {dict(killer.inflicted)}.")
        if not killer.is_done and now_s >= next_s:
            killer.strike()
            next_s = now_s + FAULT_EVERY_S
        time.sleep(LOOK_S)


def _truth(entries: Iterable[Mapping[str, Any]]) -> dict[str, Truth]:
    """Return the tries of the journal by attempt.

    Raises:
        RuntimeError: two entries of one try: the double is wrong, or a pod ran twice.
    """
    result: dict[str, Truth] = {}
    for entry in entries:
        attempt, size = entry["labels"]["driftline/attempt"], SIZES[entry["labels"]["driftline/profile"]]
        if attempt in result:
            raise RuntimeError(f"the journal tells of attempt {attempt} twice.")
        started, ended = entry["started_at"], entry["ended_at"]
        wall_s = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds() if started else 0.0
        natural = "code" if entry["exit_code"] else "finished"
        result[attempt] = Truth(
            cause=entry["cause"],
            expected=CLASSES.get(entry["cause"], natural),
            is_done=entry["exit_code"] == 0,
            wall_s=wall_s,
            usd=wall_s / 3600 * size.usd_per_hour,
        )
    return result


def _compared(truth: Mapping[str, Truth], records: list[Attempt], killer: Killer) -> list[Measure]:
    attempts = [record for _, record in unique_attempts(enumerate(records))]
    by_id = {attempt.id: attempt for attempt in attempts}
    # Whoever takes a lease from a step that is gone says of it that it vanished: no word of its own.
    text = {item.id: item.reason for item in records if item.by == "step" and item.reason != "vanished"}
    lost = [item for item in truth if item not in by_id]
    doubled = len(attempts) - sum(item in by_id for item in truth)
    differ = [
        f"{item.cause} ({attempt.by}) is {attempt.reason} after {item.wall_s:.1f} s: {(attempt.said or '')[:200]}"
        for name, item in truth.items()
        if (attempt := by_id.get(name))
        and not _is_right(item, attempt, text.get(name, "node_lost") if name in killer.unseen else None)
    ]
    right_usd, ours_usd = sum(item.usd for item in truth.values()), costs.total_usd(frame(enumerate(records)))
    true_s, ours_s = sum(item.wall_s for item in truth.values()), sum(float(item.wall_s or 0.0) for item in attempts)
    inflicted = sum(killer.inflicted.values())
    causes = Counter(item.cause for item in truth.values())
    late = sum(item.is_done and item.expected not in ("finished", "code") for item in truth.values())
    shown[:] = [
        f"Inflicted: {_counted(killer.inflicted)}.",
        f"Tries by the journal's causes: {_counted(causes)}; {len(records)} records tell of them.",
        f"They ran for {true_s:.0f} s and cost {right_usd:.5f} USD; the ledger: {ours_s:.0f} s, {ours_usd:.5f} USD.",
        f"No API shows who sent a SIGKILL: its {causes['killed']} tries count as right when called out of memory.",
        f"No API shows why a pod is gone: the {causes['vanished']} that vanished count as right when called node lost.",
        "A step that had reported its result before its pod was lost counts as right when called finished.",
        f"So do {late} that ended with 0 all the same: their fault came in their last moment.",
        f"{len(killer.unseen)} pods may have gone before a launcher looked: right is what the step itself said, too.",
        "Where nobody looked and the step said nothing, node lost is right.",
        *(f"The reason differs: {item}." for item in differ),
        *(f"Lost: an attempt that ended {truth[item].cause} after {truth[item].wall_s:.1f} s." for item in lost),
        *(f"Not in the journal: {item.document()}." for item in attempts if item.id not in truth),
    ]
    return [
        Measure(measure="faults inflicted", ours=inflicted, target=">= 100"),
        Measure(measure="kinds of fault", ours=len(killer.inflicted), limit=len(FAULTS)),
        Measure(measure="tries in the journal", ours=len(truth)),
        Measure(measure="attempts lost", ours=len(lost), limit=0, target="<= 0"),
        Measure(measure="attempts doubled or made up", ours=doubled, limit=0, target="<= 0"),
        Measure(measure="reasons that differ", ours=len(differ), limit=0, target="<= 0"),
        Measure(measure="error of the cost, %", ours=abs(ours_usd / right_usd - 1) * 100, limit=0, target="<= 1"),
    ]


def _is_right(truth: Truth, attempt: Attempt, word: str | None) -> bool:
    """Compare; `word`: what is right, too, where nobody looked in time."""
    had_reported = attempt.reason == "finished" and "had reported its result" in (attempt.said or "")
    is_by_word = word == attempt.reason and "nobody watched it" in (attempt.said or "")
    was_done = truth.is_done and attempt.reason == "finished"
    return had_reported or is_by_word or was_done or attempt.reason == truth.expected


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
