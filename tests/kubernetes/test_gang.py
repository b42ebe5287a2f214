"""What a step on several nodes is made of, and which of its pods' endings is the cause."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base import failures
from platform_assets.base.failures import FAILURES, Failure
from platform_assets.base.settings import REPOSITORY
from platform_assets.kubernetes.gang import manifests
from platform_assets.kubernetes.gang.objects import read_gang
from platform_assets.kubernetes.gang.verdict import CLOCKS_S, MemberEnding, first_cause, kind
from platform_assets.kubernetes.pod_status import read_pod
from platform_assets.launch.endings import Ending
from platform_assets.launch.profiles import PROFILES
from platform_assets.training.steps.process import EXIT_PEER_LOST
from tests.kubernetes.test_manifest import VERSIONS, pod

SIZE = PROFILES["cpu_small"].replace(nodes=3, processes=2, labels=(("kueue.x-k8s.io/queue-name", "training"),))
NETWORKS = REPOSITORY / "deploy/kubernetes/base/networks.yaml"
BEGAN = datetime(2026, 12, 1, 10, tzinfo=UTC)


def made() -> Any:
    return manifests.job(pod(profile=SIZE), SIZE)


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_of_a_gang_is_strictly_valid(version: str) -> None:
    job = made()
    for document in (job, manifests.service(job, "u-1"), manifests.network_policy(job, "u-1", ["Ingress", "Egress"])):
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_a_job_never_tries_again_and_its_pods_know_their_place() -> None:
    job = made()
    spec, name = job["spec"], job["metadata"]["name"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (
        "Indexed",
        3,
        3,
        0,
    )
    (container,) = spec["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
    assert environment["PET_NNODES"] == "3"
    assert environment["PET_NPROC_PER_NODE"] == "2"
    assert float(environment["PET_JOIN_S"]) > SIZE.start_timeout_s
    assert environment["PET_MASTER_ADDR"] == f"{name}-0.{name}.{job['metadata']['namespace']}.svc"
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert environment["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": path}}
    assert spec["template"]["spec"]["subdomain"] == name == manifests.service(job, "u")["metadata"]["name"]


def test_a_queue_is_named_on_the_job_alone() -> None:
    job = made()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]


def test_a_gang_has_a_policy_for_itself_where_others_isolate_its_pods() -> None:
    job = made()
    base = [
        item for item in yaml.safe_load_all(NETWORKS.read_text(encoding="utf-8")) if item["metadata"]["name"] != "deny"
    ]
    deny = {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
    others = {"spec": {"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress", "Egress"]}}
    assert manifests.isolated(job, [others]) == []
    assert manifests.isolated(job, [others, deny]) == ["Ingress"]
    assert manifests.isolated(job, base) == ["Egress"]
    assert manifests.isolated(job, [*base, deny]) == ["Ingress", "Egress"]
    policy = manifests.network_policy(job, "u", ["Ingress", "Egress"])["spec"]
    own = {"matchLabels": {"driftline/attempt": job["metadata"]["labels"]["driftline/attempt"]}}
    assert policy["podSelector"] == own
    assert policy["ingress"] == [{"from": [{"podSelector": own}]}]
    assert policy["egress"] == [{"to": [{"podSelector": own}]}]


def test_a_job_is_read_with_what_its_pods_have_in_common() -> None:
    job = made()
    job["metadata"] = {**job["metadata"], "uid": "u-1", "creationTimestamp": "2026-12-01T10:00:00Z"}
    given_ = {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}
    job["status"] = {"startTime": "2026-12-01T10:00:05Z", "conditions": [given_]}
    gang = read_gang(job)
    assert (gang.uid, gang.is_suspended, gang.failed.reason) == ("u-1", False, "BackoffLimitExceeded")
    assert gang.began_at == BEGAN + timedelta(seconds=5)
    assert gang.environment["PET_NNODES"] == "3"
    assert gang.annotations == job["metadata"]["annotations"]
    assert read_gang({**job, "spec": {**job["spec"], "suspend": True}}).is_suspended


# -- the first cause --

DISRUPTED = {
    "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}
}


def ended(failure: Failure | None, after_s: float = 60, *, code: int | None = None, pod: Any = None) -> MemberEnding:
    ending = Ending(
        failure=failure,
        evidence=failure.sentence if failure else "it finished",
        exit_code=code,
        started_at=BEGAN,
        ended_at=BEGAN + timedelta(seconds=after_s),
        node=f"n{after_s:g}",
    )
    return MemberEnding(ending=ending, pod=read_pod(pod) if pod else None)


DRAINED = ended(failures.PREEMPTED, 40, code=143, pod=DISRUPTED)
BY_SOMEBODY = ended(failures.PREEMPTED, 41, code=143, pod={"metadata": {}})
BY_THE_JOB = replace(BY_SOMEBODY, is_by_job=True)
BY_FORCE = MemberEnding(ending=replace(BY_THE_JOB.ending, exit_code=137), pod=BY_THE_JOB.pod, is_by_job=True)
PEER = ended(failures.CODE, 39, code=EXIT_PEER_LOST)


@pytest.mark.parametrize(
    ("members", "causes", "failure"),
    [
        ((ended(None), ended(None)), [0], None),
        ((PEER, ended(failures.NODE_LOST, 90)), [1], failures.NODE_LOST),
        ((BY_THE_JOB, DRAINED, PEER), [1], failures.PREEMPTED),
        ((BY_THE_JOB, ended(failures.CODE, 41, code=1), PEER), [1], failures.CODE),
        ((ended(failures.HUNG, 10), ended(failures.OUT_OF_MEMORY, 50, code=137)), [1], failures.OUT_OF_MEMORY),
        ((ended(failures.HUNG, 10), BY_THE_JOB), [0], failures.HUNG),
        ((BY_SOMEBODY, PEER), [0], failures.PREEMPTED),
        ((BY_SOMEBODY, BY_THE_JOB), [0], failures.PREEMPTED),
        ((BY_THE_JOB, PEER), [1], failures.PEERS_LOST),
        ((BY_FORCE, PEER), [1], failures.HUNG),
        ((PEER, PEER), [0, 1], failures.PEERS_LOST),
        ((ended(failures.CODE, 10, code=1), ended(failures.CODE, 10 + CLOCKS_S, code=1)), [0, 1], failures.CODE),
        ((ended(failures.CODE, 20, code=1), ended(failures.CODE, 10, code=1)), [1], failures.CODE),
        ((ended(failures.EVICTED, 5, code=137), DRAINED, BY_THE_JOB), [0], failures.EVICTED),
    ],
)
def test_the_first_cause_is_found_by_kind_and_then_by_time(
    members: tuple[MemberEnding, ...], causes: list[int], failure: Failure | None
) -> None:
    found, ending = first_cause(dict(enumerate(members)), len(members))
    assert (found, ending.failure) == (causes, failure)
    for number in causes if failure else []:
        assert f"{number} on " in ending.evidence


def test_of_a_gang_that_stood_still_those_that_said_nothing_are_named() -> None:
    _, ending = first_cause({0: ended(failures.HUNG, 10), 1: BY_THE_JOB}, 2)
    assert ending.evidence.endswith("; pod 1 on n41 said nothing, and had to be ended")
    _, ending = first_cause({0: PEER, 1: BY_FORCE, 2: BY_THE_JOB}, 3)
    assert ending.evidence.endswith("; pod 1 on n41 said nothing, and had to be ended")


def test_hours_are_those_of_all_pods() -> None:
    unseen = MemberEnding(ending=Ending(failure=failures.UNSCHEDULABLE, evidence="no node"), pod=None)
    _, ending = first_cause({0: ended(None, 100), 1: ended(None, 40), 2: unseen}, 4)
    assert ending.node_s == (100 + 40) / 4
    assert ending.started_at == BEGAN
    assert ending.ended_at == BEGAN + timedelta(seconds=100)


ENDINGS = st.builds(
    ended,
    st.sampled_from([None, *FAILURES]),
    st.floats(0, 1000).map(round),
    code=st.sampled_from([None, 0, 1, 137, 143, EXIT_PEER_LOST]),
    pod=st.sampled_from([None, DISRUPTED]),
)


@given(st.lists(ENDINGS, min_size=1, max_size=4))
def test_the_order_of_pods_decides_nothing(members: list[MemberEnding]) -> None:
    """Whichever number a pod has, the same ones are the cause, and none of another kind is."""
    results = set()
    for order in itertools.permutations(range(len(members))):
        named = {number: replace(members[place], pod=members[place].pod) for number, place in enumerate(order)}
        causes, ending = first_cause(named, len(members))
        kinds = {kind(named[number]) for number in causes}
        assert kinds == {min(map(kind, members))}
        results.add((ending.started_at, ending.ended_at, ending.node_s))
    assert len(results) == 1
