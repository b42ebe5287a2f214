"""Every class of failure is classified from what the API shows, and a pod that runs never counts as ended.

The statuses are tests/doubles/pod_statuses: `address` is the public thread or file whose fields and values they are;
containers are renamed `step`, and ids are left out. `constructed`: a field that decides the class is ours.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base import failures
from platform_assets.base.failures import FAILURES
from platform_assets.kubernetes import pods
from platform_assets.kubernetes.pod_status import read_event, read_node, read_pod
from platform_assets.launch.endings import Ending
from platform_assets.launch.profiles import PROFILES, StepProfile
from tests.launch.test_corpus import STATUSES, fixtures, times

FIXTURES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(STATUSES.glob("*.json"))}
FIELDS = {
    *("failure", "address", "constructed", "what", "metadata", "status"),
    *("events", "node", "exit_code", "gone", "profile"),
}
CLASSES = [failure.name for failure in FAILURES]
START = datetime(2026, 11, 24, 10, tzinfo=UTC)
SPOT, ON_DEMAND = PROFILES["gpu_spot"], PROFILES["gpu"]
Json = dict[str, Any]


def name_of(ending: Ending) -> str | None:
    return None if ending.failure is None else ending.failure.name


def pod_of(fixture: Json) -> Json:
    created = {"creationTimestamp": f"{min(times(fixture), default=START):%Y-%m-%dT%H:%M:%SZ}"}
    metadata = {"name": "pod", "namespace": "ml", **created, **fixture.get("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": fixture["status"]}


def ending(
    pod: Any, *, events: Sequence[Any] = (), node: Json | None = None, last_seen: Any = None, **facts: Any
) -> Ending | None:
    """Ask with JSON as the API answers it; a node that is an empty mapping is gone."""
    return pods.ending(
        None if pod is None else read_pod(pod),
        events=[read_event(event) for event in events],
        node=None if node is None else read_node(node),
        last_seen=read_pod(last_seen) if last_seen else None,
        **facts,
    )


def judged(pod: Any, *, now: datetime = START, profile: StepProfile = SPOT, **facts: Any) -> Ending:
    """Ask as `ending` does, where the pod is over."""
    result = ending(pod, now=now, profile=profile, **facts)
    assert result is not None
    return result


def ending_of(fixture: Json, pod: Json | None = None) -> Ending | None:
    """Ask a minute after the newest time in the fixture; where the pod waits, again after each timeout of a profile."""
    pod = pod or pod_of(fixture)
    profile = PROFILES[fixture.get("profile", "gpu_spot")]
    for waits_s in (61, profile.schedule_timeout_s, profile.start_timeout_s):
        result = ending(
            None if fixture.get("gone") else pod,
            now=max(times([fixture, pod]), default=START) + timedelta(seconds=waits_s),
            profile=profile,
            events=fixture.get("events", ()),
            node=fixture.get("node"),
            last_seen=pod if fixture.get("gone") else None,
        )
        if result is not None:
            return result
    return None


@pytest.mark.parametrize("name", FIXTURES)
def test_a_status_is_classified_with_its_exit_code_and_quoted_in_one_sentence(name: str) -> None:
    fixture = FIXTURES[name]
    result = ending_of(fixture)
    assert result is not None
    assert (name_of(result), result.exit_code) == (fixture["failure"], fixture["exit_code"]), result.evidence
    assert result.evidence == result.evidence.strip().rstrip(".")
    assert "\n" not in result.evidence
    assert len(result.evidence) <= 400
    step = (fixture["status"].get("containerStatuses") or [{}])[0].get("state", {})
    reasons = [fixture["status"].get("reason"), step.get("terminated", {}).get("reason")]
    if any(reasons):
        assert any(reason in result.evidence for reason in reasons if reason)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_says_where_it_comes_from(name: str) -> None:
    fixture = FIXTURES[name]
    assert fixture.keys() <= FIELDS
    assert fixture["failure"] in (None, *CLASSES)
    assert fixture["what"].endswith(".")
    assert fixture["constructed"] or fixture["address"].startswith("https://")


def test_every_class_has_a_public_status() -> None:
    public = Counter(fixture["failure"] for fixture in FIXTURES.values() if not fixture["constructed"])
    public |= Counter(fixture["failure"] for fixture in fixtures("learn").values())
    of_gangs = {failures.INCOMPLETE.name, failures.HUNG.name, failures.PEERS_LOST.name}  # no pod alone shows them
    assert set(public) == {None, *CLASSES} - of_gangs


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
    lost = judged(pod, now=until)
    assert name_of(lost) == "node_lost"
    assert "2026-11-24T11:00:00Z" in lost.evidence


def test_a_pod_without_a_node_is_unschedulable_exactly_when_its_timeout_is_over() -> None:
    no_room = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")
    pod = pending(status={"conditions": [no_room]})
    over = START + timedelta(seconds=SPOT.schedule_timeout_s)
    assert ending(pod, now=over - timedelta(seconds=1), profile=SPOT) is None
    result = judged(pod, now=over)
    assert name_of(result) == "unschedulable"
    assert "3 Insufficient cpu" in result.evidence


def test_a_pod_that_no_scheduler_has_looked_at_does_not_lack_room() -> None:
    over = START + timedelta(seconds=SPOT.schedule_timeout_s)
    assert ending(pending(), now=over - timedelta(seconds=1), profile=SPOT) is None
    assert failure(pending(), now=over) == "admission"
    looked = [{"reason": "FailedScheduling", "message": "0/3 nodes are available: 3 Insufficient cpu."}]
    assert failure(pending(), now=over, events=looked) == "unschedulable"


def test_a_gated_pod_waits_for_its_queue_and_not_for_ever() -> None:
    pod = pending(status={"conditions": [condition("PodScheduled", "False", "SchedulingGated")]})
    over = START + timedelta(seconds=SPOT.queue_timeout_s)
    assert ending(pod, now=over - timedelta(seconds=1), profile=SPOT) is None
    result = judged(pod, now=over)
    assert (name_of(result), result.is_final) == ("admission", True)
    assert "SchedulingGated" in result.evidence


def test_a_pod_whose_creation_is_not_shown_is_not_a_reason_to_give_it_up() -> None:
    pod = {"metadata": {}, "spec": {}, "status": {"phase": "Pending"}}
    late = START + timedelta(days=1)
    assert ending(pod, now=late, profile=SPOT) is None
    assert ending(pod, now=late, profile=SPOT, last_seen=pending()) is not None


# -- which evidence wins --


def failure(pod: Json | None, **more: Any) -> str | None:
    return name_of(judged(pod, **{"now": START + timedelta(minutes=5), **more}))


def told(reason: str, message: str) -> Json:
    """Return what is known beyond the pod: an event."""
    return {"events": [{"reason": reason, "message": message}]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "killed"),
        ({"profile": ON_DEMAND}, "killed"),
        (told("OOMKilling", "Memory cgroup out of memory"), "out_of_memory"),
        (told("SpotInterruption", "Spot ITN received"), "preempted"),
        (told("TaintManagerEviction", "Cancelling deletion of Pod"), "killed"),
        (told("Killing", "Stopping container step"), "preempted"),
        (told("NvidiaXID", "NVRM: Xid (PCI:0000:a1:00): 79, GPU has fallen off"), "hardware"),
        ({"node": {"spec": {"taints": [{"key": "aws-node-termination-handler/spot-itn"}]}}}, "preempted"),
        ({"node": {"status": {"conditions": [condition("GracefulNodeShutdownInProgress", "True")]}}}, "preempted"),
        ({"node": {"status": {"conditions": [condition("AcceleratedHardwareReady", "False")]}}}, "hardware"),
        ({"node": {"status": {"conditions": [condition("AcceleratedHardwareReady", "True")]}}}, "killed"),
        ({"node": SILENT}, "node_lost"),
        ({"node": {}}, "node_lost"),
    ],
)
def test_a_kill_that_the_pod_does_not_explain_is_classified_by_its_node_and_events(more: Json, expected: str) -> None:
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
def test_a_disruption_is_classified_by_its_reason(reason: str, message: str, exit_code: int, node: Json, expected: str):
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


@pytest.mark.parametrize(
    ("exit_code", "metadata", "expected"),
    [
        (143, {}, "preempted"),
        (143, DELETED, "preempted"),
        (135, {}, "out_of_shm"),
        (137, {}, "out_of_memory"),
        (1, {}, "out_of_memory"),
        (137, DELETED, "preempted"),  # killed at the end of its grace
    ],
)
def test_out_of_memory_is_read_with_the_exit_code(exit_code: int, metadata: Json, expected: str) -> None:
    """The runtime counts over the container's whole life: a child that was killed earlier marks every later end."""
    ended = terminated(exit_code, "OOMKilled", finishedAt="2026-11-24T11:00:00Z")
    pod = running(metadata=metadata, status={"phase": "Failed", "containerStatuses": ended})
    assert failure(pod, now=START + timedelta(hours=1)) == expected


@pytest.mark.parametrize("name", FIXTURES)
def test_143_is_never_out_of_memory_whatever_else_is_shown(name: str) -> None:
    fixture = copy.deepcopy(FIXTURES[name])
    fixture["status"]["containerStatuses"] = terminated(143, "OOMKilled", finishedAt="2026-11-24T10:04:00Z")
    events = [*fixture.get("events", ()), {"reason": "OOMKilling", "message": "Memory cgroup out of memory"}]
    for is_gone in (False, True):
        pod = pod_of(fixture)
        result = judged(None if is_gone else pod, events=events, last_seen=pod, now=START + timedelta(hours=1))
        assert name_of(result) != "out_of_memory"


def test_what_a_step_said_of_its_memory_does_not_explain_a_request_to_stop() -> None:
    said = "OSError: a child\nThe kernel killed for memory, in this container: 1 processes."
    ended = terminated(143, "Error", message=said)
    assert failure(running(status={"phase": "Failed", "containerStatuses": ended})) == "preempted"


def test_an_init_container_that_was_killed_for_memory_has_failed_whatever_its_exit_code() -> None:
    """Its kubelet counts it as failed, and never starts the step."""
    oom = {
        "initContainerStatuses": [{"name": "proxy", "state": {"terminated": {"exitCode": 0, "reason": "OOMKilled"}}}]
    }
    waits_on = {"containerStatuses": waits("PodInitializing")}
    assert failure(pending(status={**oom, **waits_on}), now=START) == "init"
    assert failure(pending(status={**oom, **waits_on, "phase": "Failed"}), now=START) == "init"


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


def test_the_events_of_a_pod_that_nobody_watched_show_when_it_began_and_why_it_ended() -> None:
    def event(reason: str, container: str, second: int) -> Json:
        at, field = f"2026-11-24T10:00:{second:02}Z", {"fieldPath": f"spec.containers{{{container}}}"}
        return {"reason": reason, "message": "x", "involvedObject": field, "firstTimestamp": at, "lastTimestamp": at}

    began = [event("Started", "mesh", 3), event("Started", "step", 7)]
    gone = judged(None, now=START + timedelta(hours=1), events=began)
    assert (name_of(gone), gone.started_at, gone.ended_at) == ("node_lost", START + timedelta(seconds=7), None)
    stopped = judged(None, events=[*began, event("Killing", "step", 20)])
    assert (name_of(stopped), stopped.started_at) == ("preempted", START + timedelta(seconds=7))
    shown = judged(None, events=began, last_seen=running())
    assert shown.started_at == START + timedelta(seconds=5), "a status says it first"


@pytest.mark.parametrize(
    ("last_seen", "more", "expected"),
    [
        (None, {}, "node_lost"),
        (running(), {"node": {}}, "node_lost"),
        (running(), {"node": SILENT}, "node_lost"),
        (running(), {}, "node_lost"),
        (running(), {"node": {"spec": {"taints": [{"key": "karpenter.sh/disrupted"}]}}}, "preempted"),
        (running(), told("Evicted", "The node was low on resource: memory."), "evicted"),
        (running(), told("Disrupted", "Deleting the pod to accommodate the terminationTime"), "preempted"),
        (running(), told("ScaleDown", "deleting pod for node scale down"), "consolidated"),
        (running(metadata=DELETED), {}, "preempted"),
        (running(status={"conditions": [DISRUPTED]}), {"profile": ON_DEMAND}, "evicted"),
        (running(status={"containerStatuses": terminated(137, "OOMKilled")}), {"node": {}}, "out_of_memory"),
        (running(status={"containerStatuses": terminated(0, "Completed")}), {"node": {}}, None),
        (pending(status={"containerStatuses": waits("InvalidImageName")}), {}, "image"),
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
    result = judged(None, now=START + timedelta(hours=1), last_seen=running())
    assert (result.started_at, result.ended_at) == (START + timedelta(seconds=5), None)
    failed = running(status={"phase": "Failed", "reason": "Evicted", "containerStatuses": None})
    result = judged(failed, now=START + timedelta(hours=1), last_seen=running())
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
    result = judged(running(status={"containerStatuses": ended}))
    assert (name_of(result), result.started_at, result.ended_at) == ("code", None, None)


def test_clocks_of_node_and_run_worker_are_not_compared() -> None:
    ahead = terminated(1, "Error", startedAt="2026-11-24T15:00:00Z", finishedAt="2026-11-24T15:01:00Z")
    result = judged(running(status={"containerStatuses": ahead}))
    assert result.ended_at is not None
    assert result.started_at is not None
    assert result.ended_at - result.started_at == timedelta(minutes=1)


# -- what a pod waits for --


def pulls(message: str, *, tries: int, first: str = "2026-11-24T10:00:03Z") -> list[Json]:
    text = f'Failed to pull image "trainer:9": {message}'
    return [{"reason": "Failed", "message": text, "count": tries, "firstTimestamp": first}]


def bound(reason: str, message: str = "") -> Json:
    scheduled = condition("PodScheduled", "True")
    return pending(status={"conditions": [scheduled], "containerStatuses": waits(reason, message)})


UNKNOWN_TAG = 'failed to resolve reference "trainer:9": trainer:9: not found'
UNAVAILABLE = "unexpected status from HEAD request to https://r.io/v2/trainer/manifests/9: 503 Service Unavailable"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", UNKNOWN_TAG),
        ("ImagePullBackOff", "manifest unknown: manifest unknown"),
        ("ErrImagePull", "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized"),
        ("ErrImagePull", "unexpected status from HEAD request to https://r.io/v2/trainer/manifests/9: 403 Forbidden"),
        ("ErrImagePull", "trainer@sha256:00: not found"),
    ],
)
def test_an_image_that_is_refused_or_unknown_ends_after_two_tries_of_the_kubelet(reason: str, message: str) -> None:
    pod, soon = bound(reason, message), START + timedelta(seconds=5)
    assert ending(pod, now=soon, profile=SPOT, events=pulls(message, tries=1)) is None
    result = judged(pod, now=soon, events=pulls(message, tries=2))
    assert (name_of(result), result.is_final) == ("image", True)
    assert message in result.evidence
    # Where events may not be read, by the time of the second try.
    assert ending(pod, now=soon, profile=SPOT) is None
    assert ending(pod, now=START + timedelta(seconds=31), profile=SPOT) is not None


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_no_registry_is_asked_for_ends_at_once(reason: str) -> None:
    result = judged(bound(reason))
    assert (name_of(result), result.is_final) == ("image", True)


@pytest.mark.parametrize(
    "message",
    [
        UNAVAILABLE,
        f"{UNAVAILABLE.removesuffix('503 Service Unavailable')}429 Too Many Requests",
        'Get "https://r.io/v2/": dial tcp: lookup r.io: no such host',
        'failed to authorize: failed to fetch anonymous token: Get "https://r.io/": dial tcp 10.0.0.1:443: i/o timeout',
        "failed to extract layer: no space left on device",
    ],
)
def test_a_registry_that_is_busy_or_silent_is_waited_for(message: str) -> None:
    pod, first = bound("ImagePullBackOff", message), START + timedelta(minutes=8)
    events = pulls(message, tries=3, first=f"{first:%Y-%m-%dT%H:%M:%SZ}")
    assert ending(pod, now=first + timedelta(seconds=179), profile=SPOT, events=events) is None
    result = judged(pod, now=first + timedelta(seconds=180), events=events)
    assert (name_of(result), result.is_final) == ("image", False)


def test_a_back_off_without_its_cause_is_explained_by_the_event() -> None:
    pod = bound("ImagePullBackOff", 'Back-off pulling image "trainer:9"')
    result = judged(pod, now=START + timedelta(seconds=40), events=pulls(UNKNOWN_TAG, tries=2))
    assert result.is_final
    assert "trainer:9: not found" in result.evidence


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], "not_started"),
        (
            [{"reason": "FailedCreatePodSandBox", "message": "failed to assign an IP address to container"}],
            "not_started",
        ),
        (
            [{"reason": "FailedPrepareDynamicResources", "message": "driver gpu.nvidia.com is not registered"}],
            "not_started",
        ),
        ([{"reason": "FailedPrepareDynamicResources", "message": "nvml: GPU is lost"}], "hardware"),
        ([{"reason": "FailedMount", "message": 'configmap "ca" not found'}], "init"),
    ],
)
def test_a_pod_with_a_node_starts_in_time_or_ends_whatever_the_reason(events: list[Json], expected: str) -> None:
    pod, over = bound("ContainerCreating"), START + timedelta(seconds=1 + SPOT.start_timeout_s)
    assert ending(pod, now=over - timedelta(seconds=1), profile=SPOT, events=events) is None
    result = judged(pod, now=over, events=events)
    assert name_of(result) == expected
    assert not events or events[0]["message"] in result.evidence
    silent = pending(status={"conditions": [condition("PodScheduled", "True")]})
    assert failure(silent, now=over) == "not_started"


def test_a_native_sidecar_that_keeps_dying_before_the_step_begins_is_init() -> None:
    def looping(restarts: int) -> Json:
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container=proxy"}
        ended = {"exitCode": 1, "reason": "Error"}
        proxy = {"name": "proxy", "state": {"waiting": waiting}, "lastState": {"terminated": ended}}
        status = {
            "initContainerStatuses": [{**proxy, "restartCount": restarts}],
            "containerStatuses": waits("PodInitializing"),
        }
        return pending(spec={"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}, status=status)

    assert ending(looping(1), now=START, profile=SPOT) is None
    assert failure(looping(2)) == "init"
    begun = merged(
        running(spec=looping(9)["spec"]),
        {"status": {"initContainerStatuses": looping(9)["status"]["initContainerStatuses"]}},
    )
    assert ending(begun, now=START, profile=SPOT) is None


# -- a silent node --


def test_a_silent_node_has_a_part_of_the_toleration_to_come_back() -> None:
    since = START + timedelta(seconds=1)  # of the conditions below
    over = since + timedelta(seconds=30)
    marked = running(status={"conditions": [condition("Ready", "False"), condition("ContainersReady", "True")]})
    for pod, node in ((running(), SILENT), (marked, None)):
        assert ending(pod, now=over - timedelta(seconds=1), profile=SPOT, node=node) is None
        result = judged(pod, now=over, node=node)
        assert name_of(result) == "node_lost"
    assert ending(running(), now=since, profile=SPOT, node={}) is not None


def test_a_pod_that_the_taint_manager_deletes_from_a_silent_node_is_lost_at_once() -> None:
    by_taint = condition("DisruptionTarget", "True", "DeletionByTaintManager")
    marks = [condition("Ready", "False"), condition("ContainersReady", "True")]
    deleted = {**DELETED, "deletionTimestamp": "2026-11-24T10:02:02Z"}
    lost = running(metadata=deleted, status={"conditions": [by_taint, *marks]})
    assert failure(lost, now=START + timedelta(seconds=2)) == "node_lost"
    live = running(metadata=deleted, status={"conditions": [by_taint]})
    assert ending(live, now=START + timedelta(seconds=2), profile=SPOT) is None


def test_readiness_of_the_pods_own_is_not_a_silent_node() -> None:
    gates = condition("Ready", "False", "ReadinessGatesNotReady")
    pod = running(status={"conditions": [gates, condition("ContainersReady", "True")]})
    assert ending(pod, now=START + timedelta(days=1), profile=SPOT) is None


# -- whose limit --


@pytest.mark.parametrize(
    ("message", "conditions", "expected"),
    [
        ('Container step exceeded its local ephemeral storage limit "2Gi". ', [], "out_of_disk"),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "10Gi". ', [], "out_of_disk"),
        ('Usage of EmptyDir volume "shm" exceeds the limit "1G". ', [], "out_of_shm"),
        ('Usage of EmptyDir volume "shm-cache" exceeds the limit "1G". ', [], "out_of_disk"),
        ("Pod was rejected: The node had condition: [MemoryPressure]. ", [], "evicted"),
        (
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 7Ki. ",
            [condition("DisruptionTarget", "True", "TerminationByKubelet")],
            "evicted",
        ),
        (
            'Container step exceeded its local ephemeral storage limit "2Gi". ',
            [condition("DisruptionTarget", "True", "TerminationByKubelet")],
            "evicted",
        ),
    ],
)
def test_an_eviction_is_the_pods_doing_only_for_its_own_limit(message: str, conditions: list[Json], expected: str):
    status = {"phase": "Failed", "reason": "Evicted", "message": message, "conditions": conditions}
    assert failure(running(status={**status, "containerStatuses": terminated(137, "Error")})) == expected


def test_no_try_of_ours_raises_the_limit_of_a_volume() -> None:
    def final(message: str) -> bool:
        result = judged(running(status={"phase": "Failed", "reason": "Evicted", "message": message}), now=START)
        return result.is_final

    assert final('Usage of EmptyDir volume "cache" exceeds the limit "1G". ')
    assert not final('Container step exceeded its local ephemeral storage limit "2Gi". ')


EVICTED = [
    {"type": "Warning", "reason": "SystemOOM", "message": "victim process: other"},
    {"reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "},
]


@pytest.mark.parametrize(
    ("exit_code", "reason", "phase"),
    [
        (0, "Completed", "Succeeded"),
        (0, "Completed", "Running"),
        (143, "Error", "Failed"),
        (5, "Error", "Failed"),
        (137, "Error", "Failed"),
        (137, "ContainerStatusUnknown", "Failed"),
    ],
)
def test_an_eviction_that_only_an_event_tells_counts_whatever_the_exit_code(exit_code: int, reason: str, phase: str):
    pod = running(status={"phase": phase, "containerStatuses": terminated(exit_code, reason)})
    assert failure(pod, events=EVICTED) == "out_of_disk"
    ended = terminated(exit_code, reason, finishedAt="2026-11-24T10:30:00Z")
    pod = running(status={"phase": phase, "containerStatuses": ended})
    long_before = [{**event, "lastTimestamp": "2026-11-24T10:01:00Z"} for event in EVICTED]
    assert failure(pod, events=long_before) == failure(pod)


def test_the_limit_that_was_exceeded_is_read() -> None:
    message = "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "
    status = {"phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": None}
    result = judged(running(status=status))
    assert (name_of(result), result.limit_gb, result.node) == ("out_of_disk", 2 * 1024**3 / 1e9, "n1")


@pytest.mark.parametrize(
    ("exit_code", "message", "expected"),
    [
        (135, "", "out_of_shm"),
        (1, "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "out_of_shm"),
        (1, "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'", "out_of_shm"),
        (1, "OSError: [Errno 28] No space left on device: '/tmp/x'", "code"),
        (1, "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", "hardware"),
        (1, "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found", "code"),
        (1, "NVRM: Xid (PCI:0000:a1:00): 79, pid=7, GPU has fallen off the bus.", "hardware"),
        (1, "NVRM: Xid (PCI:0000:a1:00): 13, pid=7, Graphics Exception", "code"),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "code"),
        (1, "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "hardware"),
        (1, "RuntimeError: all CUDA-capable devices are busy or unavailable", "hardware"),
        (255, "exec /usr/bin/python: exec format error", "init"),
        (1, "OSError: [Errno 8] Exec format error: './tool'", "code"),
        (1, "OSError: a child\nThe kernel killed for memory, in this container: 1 processes.", "out_of_memory"),
        (77, "no step has ended for 31 s (median 0.2 s): rank 1 was computing in step 412, in add.", "hung"),
    ],
)
def test_the_last_line_separates_hardware_and_shared_memory_failures_from_code_errors(
    exit_code: int, message: str, expected: str
) -> None:
    ended = terminated(exit_code, "Error", message=message)
    assert failure(running(status={"phase": "Failed", "containerStatuses": ended})) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"node": {"status": {"conditions": [condition("VMEventScheduled", "True")]}}}, "preempted"),
        (told("PreemptScheduled", "Preempt Scheduled: now"), "preempted"),
        (told("Shutdown", "Shutdown manager detected shutdown event"), "preempted"),
        ({"events": [{"reason": "PreemptScheduled", "message": "", "lastTimestamp": "2026-11-24T09:00:00Z"}]}, "code"),
        (told("SystemOOM", "victim process: other"), "code"),
        (told("Killing", "Stopping container step"), "code"),
    ],
)
def test_an_exit_code_is_read_with_what_happened_to_its_node(more: Json, expected: str) -> None:
    ended = terminated(1, "Error", finishedAt="2026-11-24T10:04:00Z")
    assert failure(running(status={"phase": "Failed", "containerStatuses": ended}), **more) == expected


def test_an_event_from_before_the_pod_explains_nothing() -> None:
    def event(at: str, reason: str = "NodeNotReady") -> list[Json]:
        return [{"reason": reason, "message": "Node is not ready", "lastTimestamp": at}]

    killed = running(status={"containerStatuses": terminated(137, "Error")})
    assert failure(killed, events=event("2026-11-24T09:59:59Z")) == "killed"
    assert failure(killed, events=event("2026-11-24T10:00:59Z")) == "node_lost"
    started = "2026-11-24T10:00:05Z"
    killed = running(status={"containerStatuses": terminated(137, "Error", startedAt=started)})
    for failed in (killed, running(status={"containerStatuses": terminated(1, "Error", startedAt=started)})):
        assert failure(failed, events=event("2026-11-24T10:00:04Z")) != "node_lost", "its node was there when it began"
        assert failure(failed, events=event("2026-11-24T10:00:05Z")) == "node_lost"
    assert failure(killed, events=event("2026-11-24T10:00:04Z", "SpotInterruption")) == "preempted"
    assert failure(None, last_seen=running(), events=event("2026-11-24T09:59:59Z"), node={}) == "node_lost"


# -- words --


def test_the_last_line_of_the_steps_own_log_is_quoted() -> None:
    result = ending_of(FIXTURES["code_then_deleted"])
    assert result is not None
    assert result.evidence.endswith('reason Error: "RuntimeError: mat1 and mat2 shapes cannot be multiplied"')


def test_an_event_explains_a_wait_that_has_no_message() -> None:
    for name in ("init_container_without_its_secret", "no_accelerator_free"):
        result = ending_of(FIXTURES[name])
        assert result is not None
        assert FIXTURES[name]["events"][0]["message"].rstrip(".") in result.evidence


def test_a_long_message_keeps_both_ends() -> None:
    ended = terminated(1, "Error", message=f"{'words of one line ' * 5_000} and the cause")
    result = judged(running(status={"containerStatuses": ended}))
    assert len(result.evidence) <= 400
    assert "exit code 1" in result.evidence
    assert result.evidence.endswith('and the cause"')


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            'Traceback (most recent call last):\n  File "f.py", line 1, in f\nValueError: cannot read {\n  "a": 1\n}\n',
            'ValueError: cannot read { "a": 1 }',
        ),
        ('started\nerror: {\n  "code": 5\n}\n', 'error: { "code": 5 }'),
        (
            "RuntimeError: CUDA error\nFor debugging see the docs.\n",
            "RuntimeError: CUDA error For debugging see the docs",
        ),
        ("one\ntwo\n\n", "two"),
        ("}", "}"),
    ],
)
def test_an_error_of_several_lines_shows_its_cause(log: str, cause: str) -> None:
    ended = terminated(1, "Error", message=log)
    result = judged(running(status={"containerStatuses": ended}))
    assert result.evidence.endswith(f'reason Error: "{cause}"')


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
    # Set by the node controller alone, it says that the node is silent; a kubelet sets it with ContainersReady.
    conditions = pod["status"].get("conditions") or []
    pod["status"]["conditions"] = [item for item in conditions if item["type"] != "Ready"]
    pod["metadata"].pop("deletionTimestamp", None)
    conditions = pod["status"].get("conditions") or []  # a pod that is not ready while its containers are is cut off
    pod["status"]["conditions"] = [item for item in conditions if item["type"] != "Ready"]
    spared = (("status", "phase"), ("status", "containerStatuses", 0, "state", "running"))
    spared = (*spared, ("status", "containerStatuses", 0, "name"))
    assert ending(damaged(pod, data.draw, spared), now=START + timedelta(days=900), profile=SPOT) is None


# -- who took the pod away --

UNDERUTILIZED = {"reason": "Evicted", "message": "Evicted pod: Underutilized"}
STOPPED = {"reason": "Stopped", "message": "Preempted to accommodate a workload in the ClusterQueue"}


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        ({"conditions": [DISRUPTED]}, {"events": [UNDERUTILIZED]}, "consolidated"),
        ({"conditions": [DISRUPTED]}, {"events": [UNDERUTILIZED], "profile": ON_DEMAND}, "consolidated"),
        ({"conditions": [DISRUPTED]}, told("Evicted", "Evicted pod: Drifted"), "preempted"),
        ({"conditions": [DISRUPTED]}, told("SpotInterrupted", "warned"), "preempted"),
        ({}, {"node": {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}}}, "consolidated"),
        ({}, {"node": {"spec": {"taints": [{"key": "karpenter.sh/disrupted"}]}}}, "preempted"),
        ({}, {"events": [STOPPED]}, "preempted_by_queue"),
        ({}, {"events": [{**STOPPED, "message": "Exceeded the PodsReady timeout"}]}, "preempted"),
        # The kubelet's and the scheduler's own verdicts name their cause.
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            {"events": [UNDERUTILIZED], "profile": ON_DEMAND},
            "evicted",
        ),
        (
            {"conditions": [condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempting")]},
            {"events": [UNDERUTILIZED]},
            "preempted",
        ),
        ({"conditions": [condition("TerminationTarget", "True", "WorkloadInactive", "by a person")]}, {}, "preempted"),
    ],
)
def test_eviction_consolidation_and_preemption_by_a_queue_are_apart(status: Json, more: Json, expected: str) -> None:
    ended = {"phase": "Failed", "containerStatuses": terminated(143, "Error")}
    assert failure(running(status={**ended, **status}, metadata=DELETED), **more) == expected
