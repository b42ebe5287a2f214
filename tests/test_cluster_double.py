"""The double of a Kubernetes cluster, asked by the unmodified Python client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from kubernetes import client, config, watch

from tests.doubles.cluster.api import Access
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node

NS = "default"


def python(code: str) -> list[str]:
    """Return a container's command that runs a few lines of Python."""
    return ["python", "-u", "-c", code]


SLEEP = python("import time; print('begun'); time.sleep(60)")
SAVE = python(
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(0)))\n"
    "print('begun'); time.sleep(60)"
)
GPU = {"nvidia.com/gpu": "1"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=[Node(name="node-1"), Node(name="node-2")], start_s=0.02) as cluster:
        yield cluster


@pytest.fixture
def core(cluster: Cluster) -> Any:
    return core_of(cluster)


def core_of(cluster: Cluster, token: str = "") -> Any:
    configuration = cluster.client_configuration(token)
    configuration.retries = False
    return client.CoreV1Api(client.ApiClient(configuration))


def pod(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    container = {"name": "step", "image": "trainer:1", "command": command}
    container |= {key: spec.pop(key) for key in ("resources", "env", "envFrom") if key in spec}
    labels = {"driftline/step": "train", "number": name[-1]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 5} | spec,
    }


def create(core: Any, name: str, command: list[str], **spec: Any) -> Any:
    return core.create_namespaced_pod(NS, pod(name, command, **spec))


def begun(cluster: Cluster, core: Any, name: str, command: list[str] = SLEEP, **spec: Any) -> None:
    """Create a pod and wait until its process has written its first line."""
    create(core, name, command, **spec)
    cluster.wait_for_phase(name, "Running")
    cluster.wait(lambda: b"begun" in log(core, name))


def log(core: Any, name: str, **options: Any) -> bytes:
    answer: bytes = core.read_namespaced_pod_log(name, NS, _preload_content=False, **options).data
    return answer


def refused(act: Any, *args: Any, **options: Any) -> dict[str, Any]:
    """Return the Status with which the API refuses something."""
    with pytest.raises(client.ApiException) as caught:
        act(*args, **options)
    status: dict[str, Any] = json.loads(caught.value.body)
    assert status["kind"] == "Status" and status["code"] == caught.value.status
    return status


def gone(cluster: Cluster, name: str) -> bool:
    return cluster.store.find("pods", NS, name) is None


def terminated(cluster: Cluster, name: str) -> dict[str, Any]:
    ended: dict[str, Any] = cluster.pod(name)["status"]["containerStatuses"][0]["state"]["terminated"]
    return ended


def disruption(cluster: Cluster, name: str) -> str:
    conditions = {each["type"]: each for each in cluster.pod(name)["status"]["conditions"]}
    return str(conditions.get("DisruptionTarget", {}).get("reason"))


def causes(cluster: Cluster) -> list[tuple[str, str, int | None]]:
    return [(entry["name"], entry["cause"], entry["exit_code"]) for entry in cluster.journal.entries()]


def test_a_pod_runs_its_command_and_a_watch_tells_its_whole_life(cluster: Cluster, core: Any) -> None:
    version = core.list_namespaced_pod(NS).metadata.resource_version
    made = create(core, "pod-1", python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert made.status.phase == "Pending" and made.metadata.uid
    phases = []
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, NS, resource_version=version, timeout_seconds=60):
        phases.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Failed":
            watcher.stop()
    assert phases[0] == ("ADDED", "Pending")
    assert [phase for _, phase in phases if phase != "Pending"] == ["Running", "Failed"]
    shown = core.read_namespaced_pod_status("pod-1", NS)
    ended = shown.status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason, ended.started_at.microsecond) == (3, "Error", 0)
    assert shown.spec.node_name == "node-1" and shown.status.pod_ip and shown.status.host_ip and shown.status.start_time
    assert log(core, "pod-1") == b"out\nerr\n"
    assert core.read_namespaced_pod_log("pod-1", NS) == "b'out\\nerr\\n'"
    (entry,) = cluster.journal.entries()
    assert (entry["cause"], entry["exit_code"], entry["node"]) == ("natural", 3, "node-1")
    assert entry["container"] == "step"
    assert entry["labels"] == {"driftline/step": "train", "number": "1"}
    assert datetime.fromisoformat(entry["started_at"]).microsecond


def test_lists_select_by_labels_and_fields(cluster: Cluster, core: Any) -> None:
    for number in (1, 2, 3):
        create(core, f"pod-{number}", python("pass"))
    cluster.wait_for_phase("pod-3", "Succeeded")

    def names(**selectors: str) -> list[str]:
        return [each.metadata.name for each in core.list_namespaced_pod(NS, **selectors).items]

    assert names(label_selector="number=2,driftline/step") == ["pod-2"]
    assert names(label_selector="number in (1, 3)") == ["pod-1", "pod-3"]
    assert names(label_selector="number!=2,!other") == ["pod-1", "pod-3"]
    assert names(field_selector="metadata.name=pod-3,status.phase=Succeeded") == ["pod-3"]
    assert names(field_selector="metadata.name!=pod-3") == ["pod-1", "pod-2"]
    assert names(label_selector="number=9") == []
    assert len(core.list_pod_for_all_namespaces().items) == 3
    events = core.list_namespaced_event(NS, field_selector="involvedObject.name=pod-2").items
    assert {event.involved_object.name for event in events} == {"pod-2"}
    assert [node.metadata.name for node in core.list_node().items] == ["node-1", "node-2"]
    assert core.read_node("node-1").metadata.labels["topology.kubernetes.io/zone"] == "zone-a"
    assert core.read_namespace(NS).status.phase == "Active"


def test_a_watch_by_field_says_deleted_when_a_pod_stops_matching(cluster: Cluster, core: Any) -> None:
    create(core, "pod-1", python("pass"))
    kinds = []
    watcher = watch.Watch()
    stream = watcher.stream(core.list_namespaced_pod, NS, field_selector="status.phase=Pending", timeout_seconds=10)
    for event in stream:
        kinds.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert kinds[0] == "ADDED" and not gone(cluster, "pod-1")


def test_a_watch_from_a_forgotten_version_is_answered_with_410(cluster: Cluster, core: Any) -> None:
    version = core.list_namespaced_pod(NS).metadata.resource_version
    cluster.store.forget()
    stream = watch.Watch().stream(core.list_namespaced_pod, NS, resource_version=version, timeout_seconds=5)
    with pytest.raises(client.ApiException, match="too old resource version") as caught:
        list(stream)
    assert caught.value.status == 410


def test_a_watch_ends_after_its_timeout(cluster: Cluster, core: Any) -> None:
    assert list(watch.Watch().stream(core.list_namespaced_pod, NS, timeout_seconds=1)) == []


def test_a_log_is_followed_to_its_end_and_read_by_its_tail(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1", python("import time\nprint('begun')\nfor n in range(4): print(n); time.sleep(0.05)"))
    followed = core.read_namespaced_pod_log("pod-1", NS, follow=True, timestamps=True, _preload_content=False)
    lines = b"".join(followed.stream()).splitlines()
    assert [line.split(b" ")[1] for line in lines] == [b"begun", b"0", b"1", b"2", b"3"]
    assert lines == sorted(lines)
    assert log(core, "pod-1", tail_lines=2) == b"2\n3\n"
    assert log(core, "pod-1", tail_lines=0) == b""
    assert log(core, "pod-1", follow=True, tail_lines=1) == b"3\n"
    assert log(core, "pod-1", since_seconds=3600).count(b"\n") == 5
    assert log(core, "pod-1", container="step").count(b"\n") == 5
    assert list(watch.Watch().stream(core.read_namespaced_pod_log, "pod-1", NS))[-1] == "3"
    assert "not valid for pod" in refused(log, core, "pod-1", container="other")["message"]
    assert refused(log, core, "pod-2")["code"] == 404


def test_a_log_of_many_megabytes_is_whole(cluster: Cluster, core: Any) -> None:
    create(core, "pod-1", python("for n in range(100_000): print(f'{n:099d}')"))
    cluster.wait_for_phase("pod-1", "Running", "Succeeded")
    followed = core.read_namespaced_pod_log("pod-1", NS, follow=True, _preload_content=False)
    assert sum(len(block) for block in followed.stream(1 << 16)) == 100_000 * 100


def test_delete_lets_a_pod_save_within_its_grace(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1", SAVE)
    answer = core.delete_namespaced_pod("pod-1", NS)
    assert answer.metadata.deletion_timestamp and answer.metadata.deletion_grace_period_seconds == 5
    cluster.wait(lambda: gone(cluster, "pod-1"))
    assert causes(cluster) == [("pod-1", "deleted", 0)]
    assert refused(core.read_namespaced_pod, "pod-1", NS)["message"] == 'pods "pod-1" not found'


def test_delete_kills_a_pod_that_ignores_sigterm(cluster: Cluster, core: Any) -> None:
    deaf = python("import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('begun')\n" + WAIT)
    begun(cluster, core, "pod-1", deaf)
    core.delete_namespaced_pod("pod-1", NS, grace_period_seconds=1)
    cluster.wait(lambda: gone(cluster, "pod-1"))
    assert causes(cluster) == [("pod-1", "deleted", 137)]


WAIT = "while True: time.sleep(0.1)"


def test_delete_without_grace(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    core.delete_namespaced_pod("pod-1", NS, grace_period_seconds=0)
    assert gone(cluster, "pod-1")
    cluster.wait(lambda: causes(cluster) == [("pod-1", "deleted", 137)])


def test_a_container_gets_its_variables_and_secrets_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_TESTS", "1")
    shown = python("import json, os; print(json.dumps(dict(os.environ)))")
    env = [
        {"name": "PLAIN", "value": "p"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "SECRET"}}},
    ]
    source = [{"secretRef": {"name": "s3"}}, {"configMapRef": {"name": "none", "optional": True}}]
    with Cluster(secrets={"s3": {"SECRET": "x"}}, environment={"EXTRA": "e"}) as cluster:
        core = core_of(cluster)
        create(core, "pod-1", shown, env=env, envFrom=source)
        cluster.wait_for_phase("pod-1", "Succeeded")
        seen = json.loads(log(core, "pod-1"))
        wanted = {"PLAIN": "p", "KEY": "x", "SECRET": "x", "EXTRA": "e", "HOSTNAME": "pod-1"}
        assert wanted.items() <= seen.items() and "OF_THE_TESTS" not in seen
        create(core, "pod-2", shown, envFrom=[{"secretRef": {"name": "other"}}])
        waiting = cluster.wait(lambda: waits_for(cluster, "pod-2", "CreateContainerConfigError"))
        assert waiting["message"] == 'secret "other" not found'


def waits_for(cluster: Cluster, name: str, reason: str) -> dict[str, Any] | None:
    statuses = cluster.pod(name)["status"].get("containerStatuses") or [{"state": {}}]
    waiting: dict[str, Any] = statuses[0]["state"].get("waiting", {})
    return waiting if waiting.get("reason") == reason else None


def test_init_containers_run_before_and_their_failure_ends_the_pod(cluster: Cluster, core: Any) -> None:
    first = {"name": "first", "image": "trainer:1", "command": python("import time; time.sleep(1); print('first')")}
    create(core, "pod-1", python("print('then')"), initContainers=[first])
    cluster.wait(lambda: "initContainerStatuses" in cluster.pod("pod-1")["status"])
    assert "PodInitializing" in refused(log, core, "pod-1")["message"]
    cluster.wait_for_phase("pod-1", "Succeeded")
    assert log(core, "pod-1", container="first") == b"first\n"
    cluster.init_failure(7)
    create(core, "pod-2", python("print('then')"))
    status = cluster.wait_for_phase("pod-2", "Failed")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_what_fits_nowhere_waits_says_why_and_starts_when_there_is_room() -> None:
    nodes = [
        Node(name="cpu", cpu=2),
        Node(name="gpu", cpu=16, extended={"nvidia.com/gpu": 1}, taints=(TAINT,), zone="zone-b", is_spot=True),
    ]
    toleration = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    with Cluster(nodes, start_s=0.02) as cluster:
        core = core_of(cluster)
        gpu = {"requests": {"cpu": "4", "memory": "1Gi"} | GPU, "limits": GPU}
        create(core, "pod-1", SLEEP, resources=gpu, tolerations=toleration)
        assert cluster.wait_for_phase("pod-1", "Running")["spec"]["nodeName"] == "gpu"
        create(core, "pod-2", SLEEP, resources=gpu, tolerations=toleration)
        said = cluster.wait(lambda: unscheduled(cluster, "pod-2"))
        assert said.startswith("0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu. preemption")
        create(core, "pod-3", SLEEP, resources=gpu)
        assert "1 node(s) had untolerated taint {nvidia.com/gpu: present}" in cluster.wait(
            lambda: unscheduled(cluster, "pod-3")
        )
        create(core, "pod-4", SLEEP, nodeSelector={"topology.kubernetes.io/zone": "zone-c"})
        assert "2 node(s) didn't match Pod's node affinity/selector" in cluster.wait(
            lambda: unscheduled(cluster, "pod-4")
        )
        events = core.list_namespaced_event(NS, field_selector="involvedObject.name=pod-2").items
        assert [(event.reason, event.type) for event in events] == [("FailedScheduling", "Warning")]
        core.delete_namespaced_pod("pod-4", NS)
        assert gone(cluster, "pod-4") and ("pod-4", "unschedulable", None) in causes(cluster)
        core.delete_namespaced_pod("pod-1", NS, grace_period_seconds=0)
        cluster.wait_for_phase("pod-2", "Running")


def unscheduled(cluster: Cluster, name: str) -> str:
    conditions = cluster.pod(name)["status"].get("conditions", [])
    return next((each["message"] for each in conditions if each.get("reason") == "Unschedulable"), "")


def test_refusals_are_the_apis_own(cluster: Cluster, core: Any) -> None:
    create(core, "pod-1", SLEEP)
    assert refused(create, core, "pod-1", SLEEP) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'pods "pod-1" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "pod-1", "kind": "pods"},
        "code": 409,
    }
    assert (
        refused(core.create_namespaced_pod, "other", pod("pod-2", SLEEP))["message"] == 'namespaces "other" not found'
    )
    bare = pod("pod-2", SLEEP) | {"spec": {"restartPolicy": "Never", "containers": []}}
    assert refused(core.create_namespaced_pod, NS, bare)["message"] == (
        'Pod "pod-2" is invalid: spec.containers: Required value'
    )
    long = pod("pod-2", SLEEP)
    long["metadata"]["labels"]["fingerprint"] = "f" * 64
    assert refused(core.create_namespaced_pod, NS, long)["code"] == 422
    assert refused(create, core, "Pod_2", SLEEP)["reason"] == "Invalid"
    batch = client.BatchV1Api(core.api_client)
    assert refused(batch.read_namespaced_job, "job", NS)["message"] == 'jobs.batch "job" not found'
    assert (
        refused(core.read_namespaced_secret, "x", NS)["message"] == "the server could not find the requested resource"
    )


def test_tokens_open_their_namespaces_and_no_others() -> None:
    tokens = {"all": Access(), "one": Access(user="system:serviceaccount:a:b", namespaces=["a"], may_read_nodes=False)}
    with Cluster(namespaces=["a", "b"], tokens=tokens) as cluster:
        assert refused(core_of(cluster, "unknown").list_namespaced_pod, "a")["reason"] == "Unauthorized"
        one = core_of(cluster, "one")
        assert one.list_namespaced_pod("a").items == []
        assert refused(one.list_namespaced_pod, "b")["message"] == (
            'pods is forbidden: User "system:serviceaccount:a:b" cannot list resource "pods" in API group "" '
            'in the namespace "b"'
        )
        assert "at the cluster scope" in refused(one.read_node, "node-1")["message"]
        del cluster.tokens["one"]
        assert refused(one.list_namespaced_pod, "a")["code"] == 401


def test_a_kubeconfig_file_opens_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig")
    api = config.new_client_from_config(str(path))
    assert client.CoreV1Api(api).list_namespaced_pod(NS).items == []


def test_a_shut_down_spot_node_lets_save_and_leaves_a_failed_pod(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1", SAVE)
    assert cluster.preempt("pod-1")
    status = cluster.wait_for_phase("pod-1", "Failed")["status"]
    assert (status["reason"], terminated(cluster, "pod-1")["exitCode"]) == ("Terminated", 0)
    assert disruption(cluster, "pod-1") == "TerminationByKubelet"
    assert log(core, "pod-1") == b"begun\nsaved\n"
    assert not cluster.preempt("pod-1", gone_s=0)
    cluster.wait(lambda: gone(cluster, "pod-1"))
    assert causes(cluster) == [("pod-1", "preempted", 0)]


@pytest.mark.parametrize("by", ["scheduler", "drain"])
def test_a_preempted_pod_is_marked_and_deleted(cluster: Cluster, core: Any, by: Any) -> None:
    begun(cluster, core, "pod-1")
    seen = watch_in_background(core, "pod-1")
    assert cluster.preempt("pod-1", by=by, grace_s=1)
    cluster.wait(lambda: gone(cluster, "pod-1"))
    assert causes(cluster) == [("pod-1", "preempted", 143)]
    last = list(seen)[-1]
    assert last["type"] == "DELETED"
    assert "DisruptionTarget" in {each["type"] for each in last["raw_object"]["status"]["conditions"]}


def watch_in_background(core: Any, name: str) -> Iterator[dict[str, Any]]:
    version = core.list_namespaced_pod(NS).metadata.resource_version
    return watch.Watch().stream(
        core.list_namespaced_pod,
        NS,
        field_selector=f"metadata.name={name}",
        resource_version=version,
        timeout_seconds=1,
    )


def test_evictions_with_and_without_a_reason(cluster: Cluster, core: Any) -> None:
    for name, with_reason in (("pod-1", True), ("pod-2", False)):
        begun(cluster, core, name)
        assert cluster.evict(name, with_reason=with_reason)
        cluster.wait_for_phase(name, "Failed")
    first, second = (cluster.pod(name)["status"] for name in ("pod-1", "pod-2"))
    assert first["reason"] == "Evicted" and "low on resource: memory" in first["message"]
    assert "reason" not in second and disruption(cluster, "pod-2") == "TerminationByKubelet"
    assert {cause for _, cause, _ in causes(cluster)} == {"evicted"}


def test_out_of_memory_and_an_unexplained_kill(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    begun(cluster, core, "pod-2")
    assert cluster.out_of_memory("pod-1") and cluster.kill("pod-2")
    for name, reason in (("pod-1", "OOMKilled"), ("pod-2", "Error")):
        cluster.wait_for_phase(name, "Failed")
        assert (terminated(cluster, name)["exitCode"], terminated(cluster, name)["reason"]) == (137, reason)
    assert sorted(causes(cluster)) == [("pod-1", "out_of_memory", 137), ("pod-2", "killed", 137)]


def test_a_lost_node_shows_its_pods_running_until_they_are_gone(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    cluster.lose_node("node-1", evict_s=1)
    assert cluster.pod("pod-1")["status"]["phase"] == "Running"
    ready = {each.type: each for each in core.read_node("node-1").status.conditions}["Ready"]
    assert (ready.status, ready.reason) == ("Unknown", "NodeStatusUnknown")
    assert "no route to host" in refused(log, core, "pod-1")["message"]
    cluster.wait(lambda: gone(cluster, "pod-1"))
    _, _, kind, last, _ = cluster.store.changes("pods", 1000)[-1]
    assert (kind, last["status"]["phase"]) == ("DELETED", "Running")
    assert "DeletionByTaintManager" in [each.get("reason") for each in last["status"]["conditions"]]
    assert causes(cluster) == [("pod-1", "node_lost", 137)]
    create(core, "pod-2", python("pass"))
    assert cluster.wait_for_phase("pod-2", "Succeeded")["spec"]["nodeName"] == "node-2"


def test_a_partitioned_node_goes_on_unseen(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    cluster.lose_node("node-1", is_partition=True, evict_s=0, gone_s=0)
    cluster.wait(lambda: gone(cluster, "pod-1"))
    assert causes(cluster) == [] and len(cluster.kubelet.workers) == 1


def test_a_pod_of_a_lost_node_stays_until_it_is_deleted_by_force(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    cluster.lose_node("node-1", evict_s=60)
    core.delete_namespaced_pod("pod-1", NS)
    assert core.read_namespaced_pod("pod-1", NS).metadata.deletion_timestamp
    core.delete_namespaced_pod("pod-1", NS, grace_period_seconds=0)
    assert gone(cluster, "pod-1")


def test_a_pod_vanishes_without_a_status(cluster: Cluster, core: Any) -> None:
    begun(cluster, core, "pod-1")
    assert cluster.vanish("pod-1")
    assert refused(core.read_namespaced_pod, "pod-1", NS)["code"] == 404
    cluster.wait(lambda: causes(cluster) == [("pod-1", "vanished", 137)])


def test_an_image_that_is_not_there_backs_off_until_it_is() -> None:
    with Cluster(images={"trainer:1"}, start_s=0.02) as cluster:
        core = core_of(cluster)
        cluster.kubelet.images.remove("trainer:1")
        create(core, "pod-1", python("pass"))
        assert "not found" in cluster.wait(lambda: waits_for(cluster, "pod-1", "ErrImagePull"))["message"]
        cluster.wait(lambda: waits_for(cluster, "pod-1", "ImagePullBackOff"))
        assert "waiting to start" in refused(log, core, "pod-1")["message"]
        create(core, "pod-2", python("pass"))
        cluster.wait(lambda: waits_for(cluster, "pod-2", "ErrImagePull"))
        core.delete_namespaced_pod("pod-2", NS)
        cluster.wait(lambda: gone(cluster, "pod-2"))
        assert causes(cluster) == [("pod-2", "image", None)]
        cluster.kubelet.images.add("trainer:1")
        cluster.wait_for_phase("pod-1", "Succeeded")


def test_admission_and_quota_refuse(cluster: Cluster, core: Any) -> None:
    cluster.refuse_admission()
    create(core, "pod-1", SLEEP)
    status = cluster.wait_for_phase("pod-1", "Failed")["status"]
    assert status["reason"] == "UnexpectedAdmissionError" and "containerStatuses" not in status
    cluster.refuse_creation()
    assert "exceeded quota" in refused(create, core, "pod-2", SLEEP)["message"]
    assert causes(cluster) == [("pod-1", "admission", None), ("pod-2", "quota", None)]


def test_an_active_deadline_ends_a_pod(cluster: Cluster, core: Any) -> None:
    create(core, "pod-1", SLEEP, activeDeadlineSeconds=1)
    status = cluster.wait_for_phase("pod-1", "Failed")["status"]
    assert status["reason"] == "DeadlineExceeded" and terminated(cluster, "pod-1")["exitCode"] == 143
    assert causes(cluster) == [("pod-1", "deadline", 143)]


def test_the_server_fails_loses_answers_and_asks_to_wait(cluster: Cluster, core: Any) -> None:
    cluster.fail_requests(500, count=2, verb="list")
    assert core.list_node is not None
    assert refused(core.list_namespaced_pod, NS)["reason"] == "InternalError"
    assert refused(core.list_namespaced_pod, NS)["code"] == 500
    assert core.list_namespaced_pod(NS).items == []
    cluster.fail_requests(429)
    with pytest.raises(client.ApiException) as caught:
        core.list_namespaced_pod(NS)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    cluster.fail_requests(504, verb="create", is_done=True)
    assert refused(create, core, "pod-1", SLEEP)["code"] == 504
    assert refused(create, core, "pod-1", SLEEP)["reason"] == "AlreadyExists"
    cluster.fail_requests(0, verb="delete")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        core.delete_namespaced_pod("pod-1", NS)
    assert not gone(cluster, "pod-1")


@pytest.mark.parametrize("refuses", [True, False])
def test_the_server_is_silent_for_a_while(cluster: Cluster, core: Any, refuses: bool) -> None:
    core.list_namespaced_pod(NS)
    cluster.silence(60, refuses=refuses)
    problem = urllib3.exceptions.ProtocolError if refuses else urllib3.exceptions.ReadTimeoutError
    with pytest.raises(problem):
        core.list_namespaced_pod(NS, _request_timeout=0.2)
    cluster.silence(0)
    assert core.list_namespaced_pod(NS).items == []


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_log_stream_is_cut_in_its_middle(cluster: Cluster, core: Any, is_clean: bool) -> None:
    begun(cluster, core, "pod-1", python("import time; print('begun'); print('x' * 10); time.sleep(60)"))
    cluster.wait(lambda: len(log(core, "pod-1")) == 17)
    cluster.cut_log(9, is_clean=is_clean)
    stream = core.read_namespaced_pod_log("pod-1", NS, follow=True, _preload_content=False).stream()
    got = [next(stream)]
    if is_clean:
        got.extend(stream)
    else:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            got.extend(stream)
    assert b"".join(got) == b"begun\nxxx"


def test_a_skewed_clock_shows_in_every_time_but_the_journals(cluster: Cluster, core: Any) -> None:
    cluster.store.skew_s = 86_400.0
    create(core, "pod-1", python("print(1)"))
    shown = cluster.wait_for_phase("pod-1", "Succeeded")
    _, _, headers = core.list_namespaced_pod_with_http_info(NS)
    tomorrow = str((datetime.now(UTC).date().toordinal()) + 1)
    times = [shown["metadata"]["creationTimestamp"], terminated(cluster, "pod-1")["finishedAt"]]
    times.append(log(core, "pod-1", timestamps=True).decode().split(".")[0] + "Z")
    assert {str(datetime.fromisoformat(time).toordinal()) for time in times} == {tomorrow}
    assert str(datetime.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S %Z").toordinal()) == tomorrow  # noqa: DTZ007  # a day is enough
    (entry,) = cluster.journal.entries()
    assert str(datetime.fromisoformat(entry["ended_at"]).toordinal()) != tomorrow


FIXTURE: dict[str, Any] = {
    "failure": "node_lost",
    "address": None,
    "constructed": True,
    "what": "a node that stopped posting its status",
    "metadata": {"labels": {"extra": "1"}},
    "status": {
        "phase": "Failed",
        "reason": "NodeLost",
        "startTime": "2024-01-01T00:00:00Z",
        "containerStatuses": [
            {
                "name": "other",
                "image": "x",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "lastState": {},
                "state": {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "Error",
                        "startedAt": "2024-01-01T00:00:00Z",
                        "finishedAt": "2024-01-01T00:01:00Z",
                    }
                },
            }
        ],
    },
    "events": [{"type": "Warning", "reason": "NodeNotReady", "message": "Node is not ready"}],
    "node": {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
    "exit_code": None,
    "gone": True,
}


def test_a_fixture_is_shown_as_it_is_stored(cluster: Cluster, core: Any, tmp_path: Path) -> None:
    cluster.fixtures = tmp_path
    (tmp_path / "lost.json").write_text(json.dumps(FIXTURE), encoding="utf-8")
    begun(cluster, core, "pod-1")
    assert cluster.end_with("pod-1", "lost")
    cluster.wait(lambda: gone(cluster, "pod-1"))
    shown = cluster.store.changes("pods", 1000)[-1][3]
    assert shown["status"]["containerStatuses"][0]["state"] == FIXTURE["status"]["containerStatuses"][0]["state"]
    assert shown["status"]["containerStatuses"][0]["name"] == "step" and shown["metadata"]["labels"]["extra"] == "1"
    assert core.read_node("node-1").status.conditions[0].status == "Unknown"
    events = core.list_namespaced_event(NS, field_selector="involvedObject.name=pod-1,type=Warning").items
    assert [event.reason for event in events] == ["NodeNotReady"]
    assert causes(cluster) == [("pod-1", "node_lost", 137)]


def test_a_fixture_is_shown_instead_of_running(cluster: Cluster, core: Any, tmp_path: Path) -> None:
    cluster.fixtures = tmp_path
    stored = FIXTURE | {"gone": False, "node": None}
    (tmp_path / "lost.json").write_text(json.dumps(stored), encoding="utf-8")
    cluster.end_next_with("lost")
    create(core, "pod-1", SLEEP)
    assert cluster.wait_for_phase("pod-1", "Failed")["status"]["reason"] == "NodeLost"
    assert causes(cluster) == [("pod-1", "node_lost", None)]
    core.delete_namespaced_pod("pod-1", NS)
    assert gone(cluster, "pod-1")


def job(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x-1", command)["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template} | spec}


def test_jobs_make_pods_and_count_their_ends(cluster: Cluster, core: Any) -> None:
    batch = client.BatchV1Api(core.api_client)
    batch.create_namespaced_job(NS, job("good", python("pass"), backoffLimit=0))
    batch.create_namespaced_job(NS, job("bad", python("raise SystemExit(1)"), backoffLimit=1))
    for event in watch.Watch().stream(batch.list_namespaced_job, NS, timeout_seconds=20):
        if event["object"].metadata.name == "bad" and event["object"].status.conditions:
            break
    bad = batch.read_namespaced_job_status("bad", NS).status
    assert (bad.failed, bad.active, bad.conditions[0].reason) == (2, None, "BackoffLimitExceeded")
    assert len(core.list_namespaced_pod(NS, label_selector="job-name=bad,a=b").items) == 2
    good = cluster.wait(lambda: cluster.store.get("jobs", NS, "good")["status"].get("conditions"))
    assert good[0]["type"] == "Complete"
    assert len(cluster.pods("job-name=good", "status.phase=Succeeded")) == 1
    batch.delete_namespaced_job("bad", NS)
    assert len(cluster.pods("job-name=bad")) == 2


def test_a_job_whose_pod_is_deleted_fails_and_takes_its_pods_along(cluster: Cluster, core: Any) -> None:
    batch = client.BatchV1Api(core.api_client)
    batch.create_namespaced_job(NS, job("job", SLEEP, backoffLimit=0))
    (first,) = cluster.wait(lambda: cluster.pods("job-name=job", "status.phase=Running"))
    core.delete_namespaced_pod(first["metadata"]["name"], NS, grace_period_seconds=0)
    shown = cluster.wait(lambda: cluster.store.get("jobs", NS, "job")["status"].get("failed"))
    assert shown == 1
    batch.create_namespaced_job(NS, job("other", SLEEP, backoffLimit=0))
    cluster.wait(lambda: cluster.pods("job-name=other", "status.phase=Running"))
    batch.delete_namespaced_job("other", NS, propagation_policy="Background")
    cluster.wait(lambda: not cluster.pods("job-name=other"))


def test_closing_ends_every_process() -> None:
    spawner = python(
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('begun', os.getpid(), child.pid); time.sleep(60)"
    )
    with Cluster() as cluster:
        core = core_of(cluster)
        begun(cluster, core, "pod-1", spawner)
        pids = [int(word) for word in log(core, "pod-1").split()[1:]]
        assert all(psutil.pid_exists(pid) for pid in pids)
    cluster.wait(lambda: not any(_lives(pid) for pid in pids))  # the kernel ends a killed process when it comes to it


SERVED = """
import pathlib, signal, sys
from tests.doubles.cluster.cluster import Cluster
with Cluster() as cluster:
    cluster.kubeconfig(pathlib.Path(sys.argv[1]))
    print(cluster.address, flush=True)
    signal.pause()
"""


def test_the_double_takes_its_processes_along_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    command = [sys.executable, "-c", SERVED, str(path)]
    repository, environment = Path(__file__).resolve().parents[1], os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository, env=environment) as double:
        assert double.stdout is not None and double.stdout.readline().startswith("http://127.0.0.1:")
        core = client.CoreV1Api(config.new_client_from_config(str(path)))
        create(core, "pod-1", python("import os, time; print('begun', os.getpid()); time.sleep(60)"))
        while core.read_namespaced_pod("pod-1", NS).status.phase == "Pending":
            time.sleep(0.02)
        while b"begun" not in (text := log(core, "pod-1")):
            time.sleep(0.02)
        os.kill(double.pid, signal.SIGKILL)
        double.wait()
    pid = int(text.split()[1])
    until = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_double_is_under_1500_lines() -> None:
    doubles = Path(__file__).parent / "doubles"
    files = [*(doubles / "cluster").glob("*.py"), doubles / "podman_pods.py"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 1500, "shorten the double"
