"""Row R6 counts the seconds until each victim's own sign, and a pod that is as it was when it was hit is not back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kubernetes import client

from tests.chaos.r6_recovery import Recoveries, Sign, are_ready, came_back, deployment_of, measures, signature

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that is set by hand, and what can be seen."""

    seconds: float = 0.0
    seen: set[str] = field(default_factory=set)

    def now(self) -> datetime:
        return AT + timedelta(seconds=self.seconds)

    def sign(self, name: str) -> Sign:
        return Sign(f"{name} is there", lambda: name in self.seen)


def pod(
    name: str = "driftline-code-5d9c-abcde",
    *,
    owner: str = "ReplicaSet",
    container: str = "containerd://1",
    is_ready: bool = True,
    since: datetime = AT,
    uid: str = "1",
) -> client.V1Pod:
    """Return a pod with one container."""
    image = {"image": "i", "image_id": "i", "name": "code", "ready": is_ready, "restart_count": 0}
    condition = client.V1PodCondition(type="Ready", status=str(is_ready), last_transition_time=since)
    owners = [client.V1OwnerReference(api_version="v1", kind=owner, name="o", uid="o")]
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, uid=uid, owner_references=owners),
        status=client.V1PodStatus(
            conditions=[condition], container_statuses=[client.V1ContainerStatus(**image, container_id=container)]
        ),
    )


def test_each_victim_is_back_when_its_own_sign_is_seen_first() -> None:
    clock = Clock()
    recoveries = Recoveries(now=clock.now)
    recoveries.add(1, "daemon", AT, clock.sign("daemon"))
    recoveries.add(2, "run", AT + timedelta(seconds=5), clock.sign("run"))
    recoveries.look()
    assert len(recoveries.pending) == 2
    for clock.seconds, name in ((8.0, "daemon"), (20.0, "run"), (30.0, "daemon")):
        clock.seen.add(name)
        recoveries.look()
    assert [one.seconds for one in recoveries.all] == [8.0, 15.0]
    assert [str(one) for one in recoveries.all] == [
        "back after 8.0 s: daemon is there",
        "back after 15.0 s: run is there",
    ]


def test_a_look_that_fails_counts_as_nothing_seen() -> None:
    clock, recoveries = Clock(seconds=3.0), Recoveries(now=Clock(seconds=3.0).now)

    def is_seen() -> bool:
        if not clock.seen:
            raise ConnectionRefusedError
        return True

    recoveries.add(1, "API server", AT, Sign("it lists pods", is_seen))
    recoveries.look()
    assert str(recoveries.all[0]) == "back not seen before the end: it lists pods"
    clock.seen.add("anything")
    recoveries.look()
    assert recoveries.all[0].seconds == 3.0


def test_a_thread_finds_the_sign_of_a_recovery() -> None:
    recoveries, clock = Recoveries(), Clock(seen={"daemon"})
    recoveries.add(1, "daemon", datetime.now(UTC), clock.sign("daemon"))
    deadline = time.monotonic() + 60
    with recoveries.watching():
        while recoveries.pending:
            assert time.monotonic() < deadline
    assert recoveries.all[0].seconds is not None


def test_the_page_has_a_line_per_kind_with_its_slowest_kill_and_counts_who_never_came_back() -> None:
    clock = Clock()
    recoveries = Recoveries(now=clock.now)
    for number, victim in ((1, "run"), (2, "daemon"), (3, "run")):
        recoveries.add(number, victim, AT, clock.sign(f"{victim} {number}"))
    for clock.seconds, name in ((4.0, "run 3"), (9.0, "run 1")):
        clock.seen.add(name)
        recoveries.look()
    run, daemon, missing = measures(recoveries.all)
    assert (run.measure, run.ours, run.peers) == ("s until back: run", 9.0, {"kill 1": 9.0, "kill 3": 4.0})
    assert (daemon.measure, daemon.ours, daemon.peers) == ("s until back: daemon", None, {})
    assert (missing.ours, missing.is_met) == (1, False)


def test_a_pod_that_is_as_it_was_when_it_was_hit_is_not_back() -> None:
    hit, expected = pod(), {"driftline-code": 1}
    before = {signature(hit)}
    assert not are_ready([hit], expected, before)
    assert not are_ready([], expected, before)
    assert not are_ready([pod(container="containerd://2", is_ready=False)], expected, before)
    assert are_ready([pod(container="containerd://2")], expected, before), "its container was started again"
    assert are_ready([pod(uid="2", name="driftline-code-5d9c-fghij")], expected, before), "it was replaced"
    assert are_ready([pod(since=AT + timedelta(seconds=60))], expected, before), "its node was away, and is back"


def test_a_node_is_back_when_it_has_become_ready_since_its_cable_was_cut() -> None:
    """A pod that stayed on it looks as it did before: only the node shows that it was away."""

    def node(status: str, since: datetime) -> client.V1Node:
        ready = client.V1NodeCondition(type="Ready", status=status, last_transition_time=since)
        return client.V1Node(status=client.V1NodeStatus(conditions=[ready]))

    assert not came_back(node("True", AT - timedelta(days=1)), AT), "it was not given up yet"
    assert not came_back(node("Unknown", AT + timedelta(seconds=10)), AT)
    assert came_back(node("True", AT + timedelta(seconds=50)), AT)


def test_replicas_that_were_not_hit_count_and_pods_that_are_asked_to_end_do_not() -> None:
    hit, other = pod(uid="1"), pod(uid="2", name="driftline-code-5d9c-fghij")
    before, expected = {signature(hit)}, {"driftline-code": 2}
    assert not are_ready([hit, other], expected, before)
    replacement = pod(uid="3")
    assert are_ready([other, replacement], expected, before)
    replacement.metadata.deletion_timestamp = AT
    assert not are_ready([other, replacement], expected, before)


def test_runs_and_steps_have_no_deployment() -> None:
    assert deployment_of(pod()) == "driftline-code"
    assert deployment_of(pod("dagster-run-0123-abcde", owner="Job")) is None
