"""Steps on Kubernetes: endings on real nodes and statuses from public threads, classified, and how soon.

On a cluster of real kubelets a step ends in every way that a test can bring about, once under our launcher and once
under Dagster's `PipesK8sClient`; seconds count from the moment at which the API first shows it. Statuses of other
people's clusters go to the classifier alone. The budgets are kept on recorded statuses, which every try shows again.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from platform_assets.base.failures import FAILURES, IMAGE, KILLED, LOST
from platform_assets.base.settings import Settings
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.launchers import StepFailure
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from proof.benchmarks.harness import Measure
from proof.chaos.r5_assets import WORK, Evidence, OneTry, launch, launch_with_pipes
from tests.cluster.opened import Opened, opened
from tests.cluster.step_runs import SMALL, StepRuns, run_step
from tests.cluster.ways import container_of, evict
from tests.doubles.played_api import Play, PlayedApi, running, settings_of
from tests.kubernetes.test_pods import ending_of, name_of
from tests.launch.test_corpus import STATUSES, share, times

CAP_S = 60.0
"""How long `PipesK8sClient` is waited for; some of its classes would take a day."""
OF_A_CLASS = {
    "preempted": "node_shutdown_terminated",
    "evicted": "evicted_before_containers",
    "out_of_memory": "oom_killed",
    "image": "image_pull_denied",
    "init": "init_container_failed",
    "admission": "admission_gpu_taken",
    "deadline": "deadline",
    "code": "code",
}
"""A recorded status for each class whose tries are counted."""
shown: list[str] = []


Act = Callable[[Opened, StepRuns, str], object]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way in which a step ends.

    Attributes:
        expected: the class.
        end: what the step does; see tests/doubles/step.py.
        act: what is done to its pod once it waits; None: nothing.
        settings: changes to the launcher's settings.
    """

    title: str
    expected: str
    end: str = "stay"
    size: StepProfile = SMALL
    act: Act | None = None
    settings: tuple[tuple[str, str | None], ...] = ()


def _delete(**more: int) -> Act:
    return lambda _, runs, pod: runs.pods.api.delete_namespaced_pod(pod, runs.pods.namespace, **more)


def _kill(place: Opened, runs: StepRuns, pod: str) -> None:
    seen = runs.pods.read(pod)
    node = next(node for node in place.cluster.nodes if node.name == seen.spec.node_name)
    node.kill_container(container_of(seen))


def _cut_power(place: Opened, runs: StepRuns, pod: str) -> None:
    name = runs.pods.read(pod).spec.node_name
    next(node for node in place.cluster.nodes if node.name == name).power_off()


CASES = (
    Case(title="deleted", expected="preempted", act=_delete()),
    Case(
        title="evicted by the API, as a drain does",
        expected="evicted",
        act=lambda _, runs, pod: evict(runs.pods.api, pod, runs.pods.namespace),
    ),
    Case(title="deleted without grace", expected="preempted", act=_delete(grace_period_seconds=0)),
    Case(title="over its memory limit", expected="out_of_memory", end="memory", size=SMALL.replace(memory_gb=0.3)),
    Case(title="SIGKILL by root on its node", expected="killed", act=_kill),
    Case(title="an error of its own", expected="code", end="code"),
    Case(title="past its deadline", expected="deadline", size=SMALL.replace(deadline_s=31, grace_s=30)),
    Case(
        title="a digest that the registry does not have",
        expected="image",
        end="well",
        settings=(("trainer_image", "absent"), ("trainer_libraries", None)),
    ),
    Case(
        title="no node with a GPU",
        expected="unschedulable",
        end="well",
        size=SMALL.replace(accelerators=1, schedule_timeout_s=5.0),
    ),
    Case(title="its node loses power", expected="node_lost", act=_cut_power),
)


def run() -> list[Measure]:
    with opened() as place:
        decided = [_decided(place, case) for case in CASES]
    recorded = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(STATUSES.glob("*.json"))}
    answers = {name: ending_of(item) for name, item in recorded.items()}
    wrong = [name for name, ending in answers.items() if ending is None or name_of(ending) != recorded[name]["failure"]]
    halves = {half: share(half) for half in ("learn", "judge")}
    tried = {name: _tries(recorded[status]) for name, status in OF_A_CLASS.items()}
    shown[:] = [
        *(
            f"{case.title}: decided {reason}, expected {case.expected}."
            for case, reason, *_ in decided
            if reason != case.expected
        ),
        *(f"{sentence}." for half in halves.values() for sentence in half.wrong),
        *(f"Another class than the thread's: {name}." for name in wrong),
        f"`PipesK8sClient` was given {CAP_S:g} s.",
    ]
    right = sum(reason == case.expected for case, reason, *_ in decided)
    return [
        *(
            Measure(f"s to the decision: {case.title} ({reason})", ours_s, peers={"PipesK8sClient": peer_s})
            for case, reason, ours_s, peer_s in decided
        ),
        _share(f"endings on the cluster whose class is right, of {len(CASES)}", right, len(CASES)),
        _share("statuses with which the rules were written, right, %", _percent(halves["learn"]), 100),
        Measure("held-out statuses, right, %", _percent(halves["judge"]), limit=100, target=">= 95"),
        _share(
            f"earlier statuses, public and constructed, right, of {len(recorded)}",
            len(recorded) - len(wrong),
            len(recorded),
        ),
        _share(
            f"classes whose tries keep to their budget, of {len(tried)}",
            sum(tried[name] == _budget(name) for name in tried),
            len(tried),
        ),
    ]


def _share(measure: str, right: float, total: float) -> Measure:
    return Measure(measure, right, limit=total, target=f">= {total:g}")


def _percent(half: Any) -> float:
    return 100.0 * half.right / half.total


def _decided(place: Opened, case: Case) -> tuple[Case, str, float, float]:
    """Return a case with the class that our launcher gave it, and the seconds that it and the peer took."""
    with ExitStack() as stack:
        ours, peers = stack.enter_context(place.runs()), stack.enter_context(place.runs())
        peer_s = _peer(place, peers, case)
        ours_s = _ours(place, ours, case)
        _repair(place)
        reasons = ours.reasons()
    return case, reasons[0] if reasons else "no record", ours_s, peer_s


def _repair(place: Opened) -> None:
    for node in place.cluster.nodes:
        if node.space is None:
            node.power_on()
            place.cluster.wait_for_node(node.name)


def _settings(runs: StepRuns, case: Case) -> Settings:
    changes = dict(case.settings)
    if "trainer_image" in changes:
        name = (runs.settings.trainer_image or "").partition("@")[0]
        changes["trainer_image"] = f"{name}@sha256:{0:064}"
    return runs.settings.replace(**changes)


def _ours(place: Opened, runs: StepRuns, case: Case) -> float:
    launcher = OneTry(_settings(runs, case), configuration=runs.configuration)
    launcher.longest_pause_s = 0.0
    with Evidence(runs) as evidence:
        _arrange(place, runs, case, evidence)
        launch(runs, launcher, case.end, case.size)
        return max(0.0, time.monotonic() - _since(evidence, case))


def _peer(place: Opened, runs: StepRuns, case: Case) -> float:
    with Evidence(runs) as evidence:
        _arrange(place, runs, case, evidence)
        ended_s = launch_with_pipes(runs, _settings(runs, case), case.end, case.size)(CAP_S + 2 * case.size.grace_s)
        _repair(place)
        return min(CAP_S, max(0.0, ended_s - _since(evidence, case)))


def _arrange(place: Opened, runs: StepRuns, case: Case, evidence: Evidence) -> None:
    """Do to the pod what the case says once it waits."""
    if case.act is None:
        return
    act = case.act

    def strike(pod: str) -> None:
        act(place, runs, pod)
        if act is _cut_power:
            evidence.note()

    runs.when_ready(strike)


def _since(evidence: Evidence, case: Case) -> float:
    """Return when the evidence was there; for a pod that finds no node, when the profile's patience was over."""
    return evidence.at_s if case.expected != "unschedulable" else evidence.created_s + case.size.schedule_timeout_s


def _budget(name: str) -> int:
    """Return how often a spot step is tried when every try ends alike: losses on spot nodes, then on demand.

    An image that the registry refuses is final: the kubelet has tried it twice.
    """
    failure = next(item for item in FAILURES if item.name == name and item is not KILLED)
    return 2 * LOST.tries + 1 if failure.is_loss else 1 if failure is IMAGE else failure.budget.tries + 1


def _tries(recorded: dict[str, Any]) -> int:
    """Let every try of a spot step show one recorded status, and return how many there were."""
    newest = max(times(recorded), default=datetime.now(UTC))
    shift_s = (newest - datetime.now(UTC)).total_seconds() + 61
    with tempfile.TemporaryDirectory(prefix="driftline-r5-") as folder:
        settings = settings_of(folder)
        states = [item.get("state", {}) for item in recorded["status"].get("containerStatuses") or []]
        has_run = any("terminated" in state for state in states)
        with PlayedApi(Play([running()] * has_run + [recorded["status"]]), clock_shift_s=shift_s) as api:
            launcher = KubernetesLauncher(settings, configuration=api.configuration(), poll_s=0.05)
            launcher.longest_pause_s = 0.0
            with suppress(StepFailure):
                run_step(launcher, folder, ["well"], PROFILES["cpu_spot"], WORK)
        entries = Ledgers(settings.root, WORK.product).of(ATTEMPTS).records()
        records = [record for _, record in unique_attempts(entries)]
    assert len(Counter(record.reason for record in records)) == 1, records
    return len(records)
