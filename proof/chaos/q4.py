"""What attempts cost: the ledger against containerd's own record of a cluster, after more than 100 random failures.

Launchers in processes of their own run counting steps as pods on three real nodes, five side by side. A seeded killer
ends or prevents their tries, and kills or interrupts launchers; each work is launched again until it is finished. Then
every container that containerd started must be one attempt of the ledger, for the reason that the killer knows, and all
of them must cost the same. No code under test reads containerd; the launcher reads the pod's status.

The API gives a container's start and end in whole seconds, cut off, so the time of one try is wrong by less than a
second either way and by 0.4 s in the mean square, whoever reads it. An end that no status shows is estimated from what
is left: events, the node's last post, the step's own last record. A step that had reported its result before its pod
was lost counts as right when called finished. Both reasons that differed on 2026-11-27 are mistakes of this row.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from platform_assets.launch import costs
from platform_assets.store.history.attempts import frame
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, Attempt, unique_attempts
from proof.benchmarks.harness import Measure
from proof.chaos.q4_faults import FAULTS, LABEL, UNSEEN, Killer
from proof.chaos.q4_lanes import Lanes
from proof.chaos.q4_launch import PRODUCT, SIZES
from tests.cluster.opened import opened

SEED, LANES, NODES = 20261101, 5, 3
FAULT_EVERY_S, LOOK_S, MOST_S = 3.0, 0.1, 1800.0
CLASSES = {
    "deleted": "preempted",
    "evicted by the API": "preempted",
    "SIGTERM": "preempted",
    "SIGKILL": "killed",
    "out of memory": "out_of_memory",
    "deleted without grace": "preempted",
    "node without power": "node_lost",
    "own error": "code",
    "run cancelled": "cancelled",
    "launcher killed, pod deleted": "preempted",
    "launcher killed, pod gone": "preempted",
}
"""The reason that an attempt must have, by what was done to it."""
UNSTARTED = ("image", "unschedulable", "node_lost")
"""Reasons of an attempt without a container; the last of one whose node lost power before it started."""
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Truth:
    """An attempt by containerd's record.

    Attributes:
        expected: the reason.
        is_done: whether the process ended with 0: a fault came before it listened, or in its last moment.
        wall_s: of its process.
    """

    cause: str
    expected: str
    is_done: bool
    wall_s: float
    usd: float


def run() -> list[Measure]:
    with opened(NODES) as place, place.runs() as runs:
        for node in place.cluster.nodes[::2]:
            place.cluster.core.patch_node(node.name, {"metadata": {"labels": {"driftline/spot": "true"}}})
        folder = place.folder / "launchers"
        folder.mkdir()
        lanes = Lanes(runs, folder, LANES)
        killer = Killer(place, runs, lanes, SEED)
        try:
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
        finally:
            lanes.close()
        containers = killer.close()
        records = [record for _, record in Ledgers(runs.settings.root, PRODUCT).of(ATTEMPTS).records()]
        logs = {path.name: path.read_text(errors="replace")[-2000:] for path in folder.glob("launcher-*.log")}
    if lanes.odd > killer.inflicted["run cancelled"]:
        raise RuntimeError(f"launchers ended by an error of their own: {dict(lanes.exits)}; {logs}")
    # Two containers of one attempt would be a step that ran twice.
    result: dict[str, Truth] = {}
    for container in containers:
        attempt, size = container.labels[LABEL], SIZES[container.labels["driftline/profile"]]
        if attempt in result:
            raise RuntimeError(f"attempt {attempt} had two containers.")
        assert container.ended_at is not None
        wall_s = (container.ended_at - container.started_at).total_seconds()
        cause = killer.causes.get(attempt, "natural")
        natural = "code" if container.code else "finished"
        # Spot nodes are emptied by evictions; on other nodes an eviction says no more than that.
        by_profile = {} if size.is_spot else {"evicted by the API": "evicted"}
        result[attempt] = Truth(
            cause=cause,
            expected=(CLASSES | by_profile).get(cause, natural),
            is_done=container.code == 0,
            wall_s=wall_s,
            usd=wall_s / 3600 * size.usd_per_hour,
        )
    return _compared(result, records, killer)


def _compared(truth: Mapping[str, Truth], records: list[Attempt], killer: Killer) -> list[Measure]:
    attempts = [record for _, record in unique_attempts(enumerate(records))]
    by_id = {attempt.id: attempt for attempt in attempts}
    # The next holder of a lease records "vanished" for a step that is gone; that is not its own record.
    own_reasons = {item.id: item.reason for item in records if item.by == "step" and item.reason != "vanished"}
    lost = [item for item in truth if item not in by_id]
    unpaid = [item for item in attempts if item.id not in truth and item.reason in UNSTARTED and not item.cost_usd]
    doubled = len(attempts) - sum(item in by_id for item in truth) - len(unpaid)
    differ = [
        f"{item.cause} ({attempt.by}) is {attempt.reason} after {item.wall_s:.1f} s: {(attempt.said or '')[:200]}"
        for name, item in truth.items()
        if (attempt := by_id.get(name))
        and not _is_right(item, attempt, own_reasons.get(name, "node_lost" if item.cause in UNSEEN else None))
    ]
    right_usd, ours_usd = sum(item.usd for item in truth.values()), costs.total_usd(frame(enumerate(records)))
    true_s, ours_s = sum(item.wall_s for item in truth.values()), sum(float(item.wall_s or 0.0) for item in attempts)
    inflicted = sum(killer.inflicted.values())
    causes = Counter(item.cause for item in truth.values())
    late = sum(item.is_done and item.expected not in ("finished", "code") for item in truth.values())
    shown[:] = [
        f"Inflicted: {_counted(killer.inflicted)}.",
        f"Attempts by what was done to them: {_counted(causes)}; in {len(records)} records.",
        f"They ran for {true_s:.0f} s and cost {right_usd:.5f} USD; the ledger: {ours_s:.0f} s, {ours_usd:.5f} USD.",
        f"Attempts without a container cost nothing: {_counted(Counter(item.reason for item in unpaid))}.",
        "A step that had reported its result before its pod was lost counts as right when called finished.",
        f"So do {late} that exited with 0: SIGTERM came before they listened, or in their last moment.",
        "Where nobody looked, what the step itself said is right too, and node lost if it said nothing.",
        *(f"The reason differs: {item}." for item in differ),
        *(f"Lost: an attempt that ended {truth[item].cause} after {truth[item].wall_s:.1f} s." for item in lost),
        *(
            f"Without a container: {item.document()}."
            for item in attempts
            if item.id not in truth and item not in unpaid
        ),
    ]
    return [
        Measure("faults inflicted", inflicted, target=">= 100"),
        Measure("kinds of fault", len(killer.inflicted), limit=len(FAULTS)),
        Measure("containers that containerd started", len(truth)),
        Measure("attempts lost", len(lost), limit=0, target="<= 0"),
        Measure("attempts doubled or made up", doubled, limit=0, target="<= 0"),
        Measure("reasons that differ", len(differ), limit=0, target="<= 0"),
        Measure("error of the cost, %", abs(ours_usd / right_usd - 1) * 100, limit=0, target="<= 1"),
    ]


def _is_right(truth: Truth, attempt: Attempt, word: str | None) -> bool:
    """Compare; `word`: what is right, too, where nobody looked in time."""
    had_reported = attempt.reason == "finished" and "had reported its result" in (attempt.said or "")
    is_by_word = word == attempt.reason and "nobody watched it" in (attempt.said or "")
    was_done = truth.is_done and attempt.reason == "finished"
    return had_reported or is_by_word or was_done or attempt.reason == truth.expected


def _counted(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
