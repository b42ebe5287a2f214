"""Every class of failure is told from what the API shows, and nothing that runs is called ended.

The statuses are tests/doubles/pod_statuses: `address` is the public thread or file whose fields and values they are;
containers are renamed `step`, and ids are left out. `constructed`: a field that decides the class is ours.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.failures import FAILURES
from platform_assets.profiles import PROFILES
from resources.launchers import pods
from resources.launchers.endings import Ending
from resources.launchers.pod_status import read_event, read_node, read_pod

STATUSES = Path(__file__).resolve().parents[1] / "doubles" / "pod_statuses"
FIXTURES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(STATUSES.glob("*.json"))}
FIELDS = {
    "failure",
    "address",
    "constructed",
    "what",
    "metadata",
    "status",
    "events",
    "node",
    "exit_code",
    "gone",
    "profile",
}
CLASSES = [failure.name for failure in FAILURES]
START = datetime(2026, 11, 24, 10, tzinfo=UTC)
SPOT, ON_DEMAND = PROFILES["gpu_spot"], PROFILES["gpu"]
Json = dict[str, Any]


def times(value: Any) -> Iterator[datetime]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from times(inner)
    elif isinstance(value, str) and value.endswith("Z") and value[:2] == "20":
        yield datetime.fromisoformat(value)


def name_of(ending: Ending) -> str | None:
    return None if ending.failure is None else ending.failure.name


def pod_of(fixture: Json) -> Json:
    created = {"creationTimestamp": f"{min(times(fixture), default=START):%Y-%m-%dT%H:%M:%SZ}"}
    metadata = {"name": "pod", "namespace": "ml", **created, **fixture.get("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": fixture["status"]}


def ending(
    pod: Any, *, events: Sequence[Any] = (), node: Json | None = None, last_seen: Any = None, **known: Any
) -> Ending | None:
    """Ask with JSON as the API answers it; a node that is an empty mapping is gone."""
    return pods.ending(
        None if pod is None else read_pod(pod),
        events=[read_event(event) for event in events],
        node=None if node is None else read_node(node),
        last_seen=read_pod(last_seen) if last_seen else None,
        **known,
    )


def ending_of(fixture: Json, pod: Json | None = None) -> Ending | None:
    """Ask a minute after the newest time in the fixture; where a pod waits for a node, after its timeout."""
    pod = pod or pod_of(fixture)
    profile = PROFILES[fixture.get("profile", "gpu_spot")]
    waits_s = profile.schedule_timeout_s if fixture["failure"] == "unschedulable" else 61
    return ending(
        None if fixture.get("gone") else pod,
        now=max(times([fixture, pod]), default=START) + timedelta(seconds=waits_s),
        profile=profile,
        events=fixture.get("events", ()),
        node=fixture.get("node"),
        last_seen=pod if fixture.get("gone") else None,
    )


@pytest.mark.parametrize("name", FIXTURES)
def test_a_status_is_told_by_class_and_exit_code(name: str) -> None:
    fixture = FIXTURES[name]
    result = ending_of(fixture)
    assert result is not None
    assert (name_of(result), result.exit_code) == (fixture["failure"], fixture["exit_code"]), result.evidence


@pytest.mark.parametrize("name", FIXTURES)
def test_what_the_api_showed_is_quoted_in_one_sentence(name: str) -> None:
    fixture = FIXTURES[name]
    result = ending_of(fixture)
    assert result is not None
    assert result.evidence == result.evidence.strip().rstrip(".")
    assert "\n" not in result.evidence
    assert len(result.evidence) <= 400
    step = (fixture["status"].get("containerStatuses") or [{}])[0].get("state", {})
    output = [fixture["status"].get("reason"), step.get("terminated", {}).get("reason")]
    if any(output):
        assert any(reason in result.evidence for reason in output if reason)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_says_where_it_comes_from(name: str) -> None:
    fixture = FIXTURES[name]
    assert fixture.keys() <= FIELDS
    assert fixture["failure"] in (None, *CLASSES)
    assert fixture["what"].endswith(".")
    assert fixture["constructed"] or fixture["address"].startswith("https://")


def test_every_class_has_a_public_status() -> None:
    public = Counter(fixture["failure"] for fixture in FIXTURES.values() if not fixture["constructed"])
    assert set(public) == {None, *CLASSES} - {"killed"}, "killed is what a laptop tells of SIGKILL, no pod does"


# -- what goes on --


def running(**changes: Any) -> Json:
    step = {"name": "step", "state": {"running": {"startedAt": "2026-11-24T10:00:05Z"}}}
    status = {"phase": "Running", "startTime": "2026-11-24T10:00:02Z", "containerStatuses": [step]}
    pod = {"metadata": {"creationTimestamp": "2026-11-24T10:00:00Z"}, "spec": {"nodeName": "n1"}, "status": status}
    return merged(pod, changes)


def pending(**changes: Any) -> Json:
    pod = {"metadata": {"creationTimestamp": "2026-11-24T10:00:00Z"}, "spec": {}, "status": {"phase": "Pending"}}
    return merged(pod, changes)


def merged(pod: Json, changes: Json) -> Json:
    return {key: {**pod[key], **changes.get(key, {})} for key in pod}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Json:
    at = "2026-11-24T10:00:01Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def waits(reason: str, message: str = "") -> list[Json]:
    return [{"name": "step", "state": {"waiting": {"reason": reason, "message": message}}}]


def terminated(code: int | None, reason: str, **more: Any) -> list[Json]:
    code_field = {} if code is None else {"exitCode": code}
    return [{"name": "step", "state": {"terminated": {**code_field, "reason": reason, **more}}}]


DISRUPTED = condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting")
DELETED = {"deletionTimestamp": "2026-11-24T11:00:00Z", "deletionGracePeriodSeconds": 120}
NOT_READY = {"status": {"conditions": [condition("Ready", "False", "KubeletNotReady", "node is shutting down")]}}
SILENT = {"status": {"conditions": [condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting")]}}


@pytest.mark.parametrize(
    "pod",
    [
        running(),
        running(status={"conditions": [DISRUPTED]}),
        running(metadata=DELETED),
        running(metadata=DELETED, status={"conditions": [DISRUPTED]}),
        running(
            status={"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."}
        ),
        running(status={"initContainerStatuses": waits("ImagePullBackOff")}),
        pending(),
        pending(
            status={"conditions": [condition("PodScheduled", "True")], "containerStatuses": waits("ContainerCreating")}
        ),
        pending(status={"containerStatuses": waits("PodInitializing")}),
        pending(status={"containerStatuses": waits("ErrImagePull", "pull QPS exceeded")}),
        pending(
            status={"containerStatuses": waits("CreateContainerConfigError", "failed to sync secret cache: timed out")}
        ),
        pending(status={"containerStatuses": None, "conditions": None}),
        {"metadata": {}, "spec": {}, "status": {}},
        {},
    ],
)
def test_what_runs_or_may_still_run_goes_on(pod: Json) -> None:
    assert ending(pod, now=START + timedelta(seconds=599), profile=SPOT, node=NOT_READY) is None


def test_a_deleted_pod_has_its_grace_to_save_a_checkpoint() -> None:
    pod = running(metadata=DELETED)
    until = START + timedelta(hours=1, seconds=60)
    assert ending(pod, now=until - timedelta(seconds=1), profile=SPOT) is None
    lost = ending(pod, now=until, profile=SPOT)
    assert lost is not None
    assert name_of(lost) == "node_lost"
    assert "2026-11-24T11:00:00Z" in lost.evidence


def test_a_pod_without_a_node_is_unschedulable_exactly_when_its_timeout_is_over() -> None:
    no_room = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")
    pod = pending(status={"conditions": [no_room]})
    over = START + timedelta(seconds=SPOT.schedule_timeout_s)
    assert ending(pod, now=over - timedelta(seconds=1), profile=SPOT) is None
    result = ending(pod, now=over, profile=SPOT)
    assert result is not None
    assert name_of(result) == "unschedulable"
    assert "3 Insufficient cpu" in result.evidence
    assert ending(pending(), now=over, profile=SPOT) is not None  # no scheduler ever looked at it


def test_a_gated_pod_waits_for_its_queue() -> None:
    pod = pending(status={"conditions": [condition("PodScheduled", "False", "SchedulingGated")]})
    assert ending(pod, now=START + timedelta(days=3), profile=SPOT) is None


def test_a_pod_whose_creation_is_not_shown_is_no_reason_to_give_it_up() -> None:
    pod = {"metadata": {}, "spec": {}, "status": {"phase": "Pending"}}
    late = START + timedelta(days=1)
    assert ending(pod, now=late, profile=SPOT) is None
    assert ending(pod, now=late, profile=SPOT, last_seen=pending()) is not None


# -- which evidence wins --


def failure(pod: Json | None, **more: Any) -> str | None:
    result = ending(pod, now=START + timedelta(minutes=5), **{"profile": SPOT, **more})
    assert result is not None
    return name_of(result)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "out_of_memory"),
        ({"profile": ON_DEMAND}, "out_of_memory"),
        ({"events": [{"reason": "OOMKilling", "message": "Memory cgroup out of memory"}]}, "out_of_memory"),
        ({"events": [{"reason": "SpotInterruption", "message": "Spot ITN received"}]}, "preempted"),
        ({"events": [{"reason": "TaintManagerEviction", "message": "Cancelling deletion of Pod"}]}, "out_of_memory"),
        ({"node": {"spec": {"taints": [{"key": "aws-node-termination-handler/spot-itn"}]}}}, "preempted"),
        ({"node": {"status": {"conditions": [condition("GracefulNodeShutdownInProgress", "True")]}}}, "preempted"),
        ({"node": SILENT}, "node_lost"),
        ({"node": {}}, "node_lost"),
    ],
)
def test_a_kill_that_nothing_on_the_pod_explains(more: Json, expected: str) -> None:
    assert failure(running(status={"containerStatuses": terminated(137, "Error")}), **more) == expected


@pytest.mark.parametrize(
    ("reason", "message", "exit_code", "node", "expected"),
    [
        ("PreemptionByScheduler", "", 143, None, "preempted"),
        ("DeletionByTaintManager", "", 143, None, "preempted"),
        ("DeletionByTaintManager", "", 143, SILENT, "node_lost"),
        ("DeletionByTaintManager", "", None, None, "node_lost"),
        ("DeletionByPodGC", "PodGC: node no longer exists", None, None, "node_lost"),
        ("TerminationByKubelet", "The node was low on resource: memory.", 137, None, "evicted"),
        ("TerminationByKubelet", "Pod was terminated in response to imminent node shutdown.", 137, None, "preempted"),
        ("EvictionByEvictionAPI", "Eviction API: evicting", 1, None, "preempted"),
        ("ReasonOfAnotherScheduler", "", 137, None, "preempted"),
    ],
)
def test_a_disruption_by_its_reason(reason: str, message: str, exit_code: int, node: Json, expected: str) -> None:
    status = {
        "phase": "Failed",
        "conditions": [condition("DisruptionTarget", "True", reason, message)],
        "containerStatuses": terminated(exit_code, "Error") if exit_code else None,
    }
    assert failure(running(status=status), node=node) == expected


def test_a_disruption_that_was_called_off_explains_nothing() -> None:
    called_off = condition("DisruptionTarget", "False", "PreemptionByScheduler")
    status = {"phase": "Failed", "conditions": [called_off], "containerStatuses": terminated(1, "Error")}
    assert failure(running(status=status)) == "code"


def test_an_exit_after_the_request_to_stop_is_preempted_and_one_before_it_is_not() -> None:
    def at(minute: int) -> str | None:
        ended = terminated(1, "Error", finishedAt=f"2026-11-24T10:{minute}:00Z")
        return failure(running(metadata=DELETED, status={"phase": "Failed", "containerStatuses": ended}))

    assert at(57) == "code"  # deleted at 11:00 less 120 s
    assert at(59) == "preempted"


def test_a_step_that_finished_in_its_grace_finished_whatever_its_sidecar_did() -> None:
    sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    ended = [*terminated(0, "Completed", finishedAt="2026-11-24T10:59:00Z"), sidecar]
    assert failure(running(metadata=DELETED, status={"phase": "Failed", "containerStatuses": ended})) is None


def test_a_node_that_came_back_and_refuses_what_it_ran_was_lost() -> None:
    refused = pending(status={"phase": "Failed", "reason": "NodeAffinity", "message": "Predicate NodeAffinity failed"})
    assert failure(refused) == "admission"
    assert failure(refused, last_seen=running()) == "node_lost"
    killed = {**refused["status"], "containerStatuses": terminated(137, "Error")}
    assert failure(pending(status=killed)) == "node_lost"
    assert failure(pending(status={**killed, "containerStatuses": terminated(2, "Error")})) == "code"


def test_another_container_is_never_taken_for_the_steps() -> None:
    sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    step = {"name": "step", "state": {"running": {}}}
    assert ending(running(status={"containerStatuses": [sidecar, step]}), now=START, profile=SPOT) is None
    del step["name"]
    assert ending(running(status={"containerStatuses": [sidecar, step]}), now=START, profile=SPOT) is None
    beside = [{"name": "proxy", "state": {"running": {}}}, *terminated(3, "Error")]
    assert failure(running(status={"containerStatuses": beside})) == "code"


def test_a_sidecar_among_the_init_containers_may_fail() -> None:
    proxy = {"name": "proxy", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    status = {"initContainerStatuses": [proxy], "containerStatuses": waits("PodInitializing")}
    spec = {"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}
    assert ending(pending(spec=spec, status=status), now=START, profile=SPOT) is None
    assert failure(pending(status=status)) == "init"


# -- a pod that is gone --


@pytest.mark.parametrize(
    ("last_seen", "more", "expected"),
    [
        (None, {}, "node_lost"),
        (running(), {"node": {}}, "node_lost"),
        (running(), {"node": SILENT}, "node_lost"),
        (running(), {}, "node_lost"),
        (running(), {"node": {"spec": {"taints": [{"key": "karpenter.sh/disrupted"}]}}}, "preempted"),
        (running(), {"events": [{"reason": "Evicted", "message": "The node was low on resource: memory."}]}, "evicted"),
        (running(metadata=DELETED), {}, "preempted"),
        (running(status={"conditions": [DISRUPTED]}), {"profile": ON_DEMAND}, "evicted"),
        (running(status={"containerStatuses": terminated(137, "OOMKilled")}), {"node": {}}, "out_of_memory"),
        (running(status={"containerStatuses": terminated(0, "Completed")}), {"node": {}}, None),
        (pending(status={"containerStatuses": waits("ErrImagePull")}), {}, "image"),
        (pending(), {}, "preempted"),
    ],
)
def test_a_404_hides_no_cause(last_seen: Json | None, more: Json, expected: str | None) -> None:
    assert failure(None, last_seen=last_seen, **more) == expected


# -- times and truth --


def test_an_ending_has_the_containers_own_times() -> None:
    result = ending_of(FIXTURES["oom_killed"])
    assert result is not None
    assert result.started_at == datetime(2020, 2, 5, 19, 50, 13, tzinfo=UTC)
    assert result.ended_at == datetime(2020, 2, 5, 19, 50, 15, tzinfo=UTC)


def test_a_lost_container_has_a_start_and_no_end() -> None:
    result = ending(None, now=START + timedelta(hours=1), profile=SPOT, last_seen=running())
    assert result is not None
    assert (result.started_at, result.ended_at) == (START + timedelta(seconds=5), None)
    failed = running(status={"phase": "Failed", "reason": "Evicted", "containerStatuses": None})
    result = ending(failed, now=START + timedelta(hours=1), profile=SPOT, last_seen=running())
    assert result is not None
    assert result.started_at == START + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("started_at", "finished_at"),
    [
        ("2026-11-24T10:00:05Z", "2026-11-24T09:59:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("1970-01-01T00:00:00Z", None),
        (None, None),
        ("yesterday", 7),
    ],
)
def test_times_that_cannot_be_are_unknown(started_at: Any, finished_at: Any) -> None:
    ended = terminated(1, "Error", startedAt=started_at, finishedAt=finished_at)
    result = ending(running(status={"containerStatuses": ended}), now=START, profile=SPOT)
    assert result is not None
    assert (name_of(result), result.started_at, result.ended_at) == ("code", None, None)


def test_clocks_of_node_and_run_worker_are_not_compared() -> None:
    ahead = terminated(1, "Error", startedAt="2026-11-24T15:00:00Z", finishedAt="2026-11-24T15:01:00Z")
    result = ending(running(status={"containerStatuses": ahead}), now=START, profile=SPOT)
    assert result is not None
    assert result.ended_at is not None
    assert result.started_at is not None
    assert result.ended_at - result.started_at == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("reason", "message", "is_final"),
    [
        ("InvalidImageName", "", True),
        ("ErrImageNeverPull", "", True),
        ("ErrImagePull", 'failed to resolve reference "trainer:9": trainer:9: not found', True),
        ("ImagePullBackOff", "manifest unknown: manifest unknown", True),
        ("ErrImagePull", "dial tcp: lookup registry: i/o timeout", False),
        ("ImagePullBackOff", 'Back-off pulling image "trainer:9"', False),
    ],
)
def test_an_image_that_does_not_exist_is_not_asked_for_again(reason: str, message: str, is_final: bool) -> None:
    result = ending(pending(status={"containerStatuses": waits(reason, message)}), now=START, profile=SPOT)
    assert result is not None
    assert (name_of(result), result.is_final) == ("image", is_final)


def test_the_last_line_of_the_steps_own_log_is_quoted() -> None:
    result = ending_of(FIXTURES["code_then_deleted"])
    assert result is not None
    assert result.evidence.endswith('reason Error: "RuntimeError: mat1 and mat2 shapes cannot be multiplied"')


def test_an_event_explains_a_wait_that_has_no_message() -> None:
    for name in ("init_container_without_its_secret", "no_accelerator_free"):
        result = ending_of(FIXTURES[name])
        assert result is not None
        assert FIXTURES[name]["events"][0]["message"].rstrip(".") in result.evidence


def test_a_long_message_is_cut() -> None:
    ended = terminated(1, "Error", message="words of one line " * 5_000)
    result = ending(running(status={"containerStatuses": ended}), now=START, profile=SPOT)
    assert result is not None
    assert len(result.evidence) <= 400
    assert "exit code 1" in result.evidence


# -- whatever is missing --


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from paths(value[key], (*path, key))


def damaged(pod: Json, draw: Any, spared: tuple[tuple[Any, ...], ...] = ()) -> Json:
    """Remove some keys of a pod, or give them a value of another kind; never one of those spared or above them."""
    pod = copy.deepcopy(pod)
    free = [path for path in paths(pod) if not any(stored[: len(path)] == path for stored in spared)]
    for path in draw(st.lists(st.sampled_from(free), max_size=6, unique=True)):
        parent: Any = pod
        for key in path[:-1]:
            there = range(len(parent)) if isinstance(parent, list) else parent if isinstance(parent, dict) else ()
            parent = parent[key] if key in there else None
        damage = draw(st.sampled_from(["remove", None, [], {}, "?", 7]))
        if isinstance(parent, dict) and path[-1] in parent:
            if damage == "remove":
                del parent[path[-1]]
            else:
                parent[path[-1]] = damage
    return pod


@given(st.data(), st.sampled_from(sorted(FIXTURES)))
def test_nothing_raises_whatever_is_missing(data: st.DataObject, name: str) -> None:
    fixture = FIXTURES[name]
    result = ending_of(fixture, damaged(pod_of(fixture), data.draw))
    assert result is None or (name_of(result) in (None, *CLASSES) and result.evidence)


@given(st.data(), st.sampled_from(sorted(FIXTURES)))
def test_a_pod_that_is_shown_running_is_never_called_ended(data: st.DataObject, name: str) -> None:
    pod = copy.deepcopy(pod_of(FIXTURES[name]))
    step = {"name": "step", "state": {"running": {"startedAt": "2016-01-01T00:00:00Z"}}, "lastState": {}}
    pod["status"] |= {"phase": "Running", "containerStatuses": [step]}
    if pod["status"].get("reason") == "NodeLost":
        del pod["status"]["reason"]
    pod["metadata"].pop("deletionTimestamp", None)
    spared = (("status", "phase"), ("status", "containerStatuses", 0, "state", "running"))
    spared = (*spared, ("status", "containerStatuses", 0, "name"))
    assert ending(damaged(pod, data.draw, spared), now=START + timedelta(days=900), profile=SPOT) is None
