"""Steps on Kubernetes: polls from the API showing a failure to the right decision.

Every status of tests/doubles/pod_statuses, those that were taken from public threads and documents and those that were
constructed, is shown by the double of a cluster to our launcher, and one a class to Dagster's `PipesK8sClient` beside
it. A step that had begun really runs and is really ended. Polls are counted at the client: from the first answer that
differs from those before the fault (or, where a pod vanishes, the first 404) to the decision.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from platform_assets.failures import FAILURES, KILLED, LOST
from platform_assets.profiles import PROFILES, StepProfile
from platform_assets.records.attempts import ATTEMPTS, Attempt, unique_attempts
from platform_assets.settings import REPOSITORY, Settings
from platform_assets.storage.ledgers import Ledgers
from tests.benchmarks.harness import Measure
from tests.chaos.r5_assets import PIPES_POLL_S, WORK, CountedLauncher, launch, launch_with_pipes
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node

FIXTURES = Cluster.fixtures
CAP_S = 20.0
"""How long `PipesK8sClient` is waited for; two of its classes would take a day."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ZONE = {"topology.kubernetes.io/zone": "zone-a"}
ONE_OF_A_CLASS = {
    "preempted": "node_shutdown_terminated",
    "node_lost": "vanished",
    "evicted": "evicted_before_containers",
    "evicted, no reason": "evicted_by_condition_alone",
    "out_of_memory": "oom_killed",
    "unschedulable": "no_accelerator_free",
    "image": "image_back_off",
    "init": "init_container_failed",
    "admission": "admission_gpu_taken",
    "deadline": "deadline",
    "code": "code",
}
TRIES = {
    **{
        each.name: 2 * LOST.tries + 1 if each.is_loss else each.budget.tries + 1
        for each in FAILURES
        if each is not KILLED
    },
    "unschedulable": 2,
}
"""How often a spot step is tried when every try ends alike: losses 4 times on spot nodes and 5 on demand."""
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Decided:
    """How one status was decided.

    Attributes:
        polls: from the evidence to the decision.
    """

    fixture: str
    expected: str | None
    found: str | None
    polls: int
    is_public: bool


def run() -> list[Measure]:
    """Show every status to ours, one a class to the peer, and one a class to ours until it gives up."""
    fixtures = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIXTURES.glob("*.json"))}
    decided = [_decide(name, fixture) for name, fixture in fixtures.items()]
    pipes = _pipes(ONE_OF_A_CLASS.values())
    tried = {name: _tries(ONE_OF_A_CLASS[name]) for name in TRIES}
    wrong = [item for item in decided if item.found != item.expected]
    shown[:] = [
        f"{item.fixture}: decided {item.found or 'finished'}, expected {item.expected or 'finished'}." for item in wrong
    ]
    shown.append(f"`PipesK8sClient` was waited for {CAP_S:g} s; {CAP_S / PIPES_POLL_S:g} polls mean that it went on.")
    by_name = {item.fixture: item for item in decided}
    return [
        *(
            Measure(
                measure=f"polls to the decision: {title} ({'public' if by_name[name].is_public else 'constructed'})",
                ours=by_name[name].polls,
                peers={"PipesK8sClient": pipes[name]},
                limit=1,
                target="<= 2",
            )
            for title, name in ONE_OF_A_CLASS.items()
        ),
        *_counted(decided, "public"),
        *_counted(decided, "constructed"),
        Measure(measure="most polls to a decision", ours=max(item.polls for item in decided), limit=1, target="<= 2"),
        Measure(
            measure=f"classes whose tries keep to their budget, of {len(TRIES)}",
            ours=sum(tried[name] == TRIES[name] for name in TRIES),
            limit=len(TRIES),
            target=f">= {len(TRIES)}",
        ),
    ]


def _counted(decided: Iterable[Decided], kind: str) -> list[Measure]:
    of_kind = [item for item in decided if item.is_public == (kind == "public")]
    right = sum(item.found == item.expected for item in of_kind)
    return [
        Measure(
            measure=f"{kind} statuses whose class is right, of {len(of_kind)}",
            ours=right,
            limit=len(of_kind),
            target=f">= {len(of_kind)}",
        )
    ]


def _records(folder: Path) -> list[Attempt]:
    """Return the attempts on record, the oldest first."""
    messages = Ledgers(str(folder / "store"), WORK.product).of(ATTEMPTS).records()
    return [record for _, record in reversed(unique_attempts(messages))]


def _moved(name: str, folder: Path) -> Path:
    """Copy a fixture to a folder, its newest time moved to now, or to a minute ago where the pod stays."""
    text = (FIXTURES / f"{name}.json").read_text(encoding="utf-8")
    times = [datetime.fromisoformat(found[0]) for found in TIME.finditer(text)]
    newest = datetime.now(UTC) - timedelta(seconds=0 if json.loads(text).get("gone") else 61)
    shift = newest - max(times, default=newest)

    def move(found: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(found[0]) + shift:%Y-%m-%dT%H:%M:%SZ}"

    (folder / f"{name}.json").write_text(TIME.sub(move, text), encoding="utf-8")
    return folder


def _size(fixture: Mapping[str, Any]) -> StepProfile:
    """Return the fixture's profile, without its GPU and with a short patience."""
    accelerators = int(fixture["failure"] == "unschedulable")
    size = PROFILES[fixture.get("profile", "gpu_spot")]
    return size.replace(accelerators=accelerators, cores=1, schedule_timeout_s=1.0)


def _has_begun(fixture: Mapping[str, Any]) -> bool:
    states = [item.get("state") or {} for item in fixture["status"].get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)


def _cluster(folder: Path) -> Cluster:
    nodes = [Node(name="node-1", labels={**ZONE, "driftline/spot": "true"}), Node(name="node-2", labels=ZONE)]
    return Cluster(nodes=nodes, cwd=REPOSITORY, start_s=0.0, journal=folder / "journal.jsonl")


def _settings(folder: Path) -> Settings:
    return Settings.from_environment(
        {
            "DRIFTLINE_STATE": str(folder / "state"),
            "DRIFTLINE_ROOT": str(folder / "store"),
            "DRIFTLINE_NAMESPACE": "default",
            "DRIFTLINE_TRAINER_IMAGE": f"trainer@sha256:{0:064}",
        }
    )


def _decide(name: str, fixture: Mapping[str, Any]) -> Decided:
    """Show a status to our launcher and count."""
    with tempfile.TemporaryDirectory(prefix="driftline-r5-") as path:
        folder = Path(path)
        with _cluster(folder) as cluster:
            launcher = CountedLauncher(_settings(folder), cluster, is_one_try=True)
            _arrange(folder, cluster, name, fixture)
            launch(launcher, folder, _size(fixture))
        (record, *_) = _records(folder)
    result = None if record.reason == "finished" or "reported no result" in (record.said or "") else record.reason
    return Decided(
        fixture=name,
        expected=fixture["failure"],
        found=result,
        polls=launcher.polls(
            is_gone=bool(fixture.get("gone")),
            not_before_s=_size(fixture).schedule_timeout_s if fixture["failure"] == "unschedulable" else 0.0,
        ),
        is_public=not fixture["constructed"],
    )


def _arrange(
    folder: Path, cluster: Cluster, name: str, fixture: Mapping[str, Any], after_s: float = 0.0
) -> list[float]:
    """Have the next pod show a status: once its step has begun, in place of beginning, or without any node.

    Returns:
        When it was shown, by the monotonic clock, once it is.
    """
    shown_at_s: list[float] = []
    cluster.fixtures = _moved(name, folder)
    if fixture["failure"] != "unschedulable" and not _has_begun(fixture):
        cluster.end_next_with(name)
        return shown_at_s

    def act() -> None:
        if fixture["failure"] == "unschedulable":
            (pod,) = cluster.wait(cluster.pods, timeout_s=60)
            cluster.store.change("pods", pod, lambda now: now["status"].update(fixture["status"]))
        else:
            cluster.wait((folder / "ready").exists, timeout_s=60)
            time.sleep(after_s)
            (pod,) = cluster.pods()
            cluster.end_with(pod["metadata"]["name"], name)
        shown_at_s.append(time.monotonic())

    threading.Thread(target=act, daemon=True).start()
    return shown_at_s


def _tries(fixture: str) -> int:
    """Let every try of a spot step end alike, and return how many there were."""
    with tempfile.TemporaryDirectory(prefix="driftline-r5-") as path:
        folder = Path(path)
        impatient = {name: PROFILES[name].replace(schedule_timeout_s=0.5) for name in ("gpu", "gpu_spot")}
        with _cluster(folder) as cluster, patch.dict(PROFILES, impatient):
            size = PROFILES["cpu_spot"]
            if fixture == ONE_OF_A_CLASS["unschedulable"]:
                size = PROFILES["gpu_spot"]
            else:
                cluster.end_next_with(fixture, count=50)
            launch(CountedLauncher(_settings(folder), cluster), folder, size)
        records = _records(folder)
    assert len(Counter(record.reason for record in records)) == 1, records
    return len(records)


def _pipes(names: Iterable[str]) -> dict[str, float]:
    """Return the polls that `PipesK8sClient` took from the evidence, each status on a cluster of its own."""
    result: dict[str, float] = {}
    threads = [threading.Thread(target=_pipes_of, args=(name, result), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CAP_S + 60)
    return result


def _pipes_of(name: str, found: dict[str, float]) -> None:
    fixture = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="driftline-r5-") as path:
        folder = Path(path)
        with _cluster(folder) as cluster:
            shown_at_s = _arrange(folder, cluster, name, fixture, after_s=2 * PIPES_POLL_S)
            asked_s = time.monotonic()
            ended_s = launch_with_pipes(cluster, folder, CAP_S)
    waited_s = CAP_S if ended_s is None else ended_s - (shown_at_s or [asked_s])[0]
    found[name] = min(CAP_S, waited_s) / PIPES_POLL_S
