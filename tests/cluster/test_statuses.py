"""What a real API shows of a pod is classified, and accepts the pod of a profile that states everything."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes import client

from platform_assets.base.settings import Settings
from platform_assets.kubernetes import manifest as pod_manifest
from platform_assets.kubernetes import pods as rules
from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.pod_status import read_pod
from platform_assets.launch.endings import Ending, first_try
from platform_assets.launch.profiles import PROFILES, StepProfile
from tests.cluster.pods import Manifest, Pods, manifest
from tests.cluster.step_runs import pod_of
from tests.cluster.waiting import wait_until

SIZE = PROFILES["cpu_small"]
PATIENCE_S = 120.0


def step(image: str, script: str, **spec: Any) -> Manifest:
    """Return a pod whose container is the step's."""
    pod = manifest("step", image, script, **spec)
    pod["spec"]["containers"][0] |= {
        "name": pod_manifest.CONTAINER,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return pod


def classify(pods: Pods, profile: StepProfile = SIZE) -> Ending | None:
    """Ask the rules about what the API shows now."""
    client = pods.api.api_client
    pod = read_pod(client.sanitize_for_serialization(pods.read("step")))
    events = Api(pods.namespace, client.configuration).events("step", pod.node)
    return rules.ending(pod, now=datetime.now(UTC), profile=profile, events=events)


def end_of(pods: Pods) -> Ending:
    endings: list[Ending] = []

    def has_ended() -> bool:
        ending = classify(pods)
        endings.extend([ending] if ending else [])
        return bool(endings)

    wait_until(has_ended, PATIENCE_S, "the pod ended")
    return endings[0]


def name_of(ending: Ending) -> str:
    return ending.failure.name if ending.failure else "finished"


def test_a_pod_over_its_ephemeral_storage_is_out_of_disk_with_its_limit(pods: Pods, shell: str) -> None:
    pod = step(shell, "dd if=/dev/zero of=/tmp/full bs=1M count=64; sleep 300", memory="256Mi")
    resources = pod["spec"]["containers"][0]["resources"]
    for kind in resources.values():
        kind["ephemeral-storage"] = "10M"
    pods.create(pod)
    ending = end_of(pods)
    assert (name_of(ending), ending.limit_gb) == ("out_of_disk", 0.01), ending.evidence
    assert ending.node


def test_a_full_shared_memory_names_the_profiles_field(pods: Pods, shell: str) -> None:
    pod = step(shell, "dd if=/dev/zero of=/dev/shm/full bs=1M count=8")
    pod["spec"]["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1M"}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
    pods.create(pod)
    ending = end_of(pods)
    assert name_of(ending) == "out_of_shm", ending.evidence
    assert ending.failure is not None
    assert "shm_gb" in ending.failure.sentence


@pytest.mark.parametrize("code", [137, 1, 7])
def test_a_child_that_the_kernel_kills_for_memory_is_out_of_memory(code: int, pods: Pods, shell: str) -> None:
    end = "$status" if code == 137 else str(code)
    # containerd tells the kubelet of the kill by an event, which is lost if the container ends in the same moment.
    pods.create(step(shell, f"sh -c 'tail /dev/zero'; status=$?; sleep 2; exit {end}", memory="64Mi"))
    ending = end_of(pods)
    assert (name_of(ending), ending.exit_code) == ("out_of_memory", code), ending.evidence


def test_a_kill_is_explained_by_an_event_of_the_node(pods: Pods, shell: str) -> None:
    pods.create(step(shell, "sleep 5; sh -c 'kill -9 $$$$'; exit $?"))
    node, now = pods.wait_until_running("step").spec.node_name, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    event = {
        "metadata": {"generateName": "played-"},
        "involvedObject": {"kind": "Node", "name": node},
        "reason": "PreemptScheduled",
        "message": "Preempt Scheduled: now",
        "firstTimestamp": now,
        "lastTimestamp": now,
    }
    name = pods.api.create_namespaced_event("default", event).metadata.name
    try:
        ending = end_of(pods)
    finally:
        pods.api.delete_namespaced_event(name, "default")
    assert (name_of(ending), ending.exit_code) == ("preempted", 137), ending.evidence
    assert "event PreemptScheduled" in ending.evidence


def test_a_native_sidecar_that_dies_at_its_start_is_init(pods: Pods, shell: str) -> None:
    pod = step(shell, "sleep 300")
    probe = {"exec": {"command": ["false"]}, "failureThreshold": 1, "periodSeconds": 1}
    sidecar = {**pod["spec"]["containers"][0], "name": "proxy", "args": ["exit 3"], "startupProbe": probe}
    pod["spec"]["initContainers"] = [{**sidecar, "restartPolicy": "Always"}]
    pods.create(pod)
    ending = end_of(pods)
    assert name_of(ending) == "init", ending.evidence
    assert "exit code 3" in ending.evidence


def settings_of(namespace: str) -> Settings:
    image = f"trainer@sha256:{'0' * 64}"
    return Settings.from_environment({"DRIFTLINE_TRAINER_IMAGE": image, "DRIFTLINE_NAMESPACE": namespace})


def test_a_forbidden_node_is_never_taken(pods: Pods, shell: str) -> None:
    nodes = sorted(node.metadata.name for node in pods.api.list_node().items)
    for count in range(1, len(nodes) + 1):
        plan = replace(first_try(SIZE), forbidden_nodes=tuple(nodes[:count]))
        name = pods.create(
            manifest(f"step-{count}", shell, "exit 0", affinity=pod_of(settings_of("n"), plan)["spec"]["affinity"])
        )
        if count < len(nodes):
            pods.wait_for_end(name)
            assert pods.read(name).spec.node_name in nodes[count:]
        else:
            assert pods.wait_for_condition(name, "PodScheduled", "False").reason == "Unschedulable"


def test_the_pod_of_a_profile_that_states_everything_is_accepted(pods: Pods, core: client.CoreV1Api) -> None:
    size = SIZE.replace(
        labels=(("kueue.x-k8s.io/queue-name", "trainings"),),
        annotations=(("karpenter.sh/do-not-disrupt", "true"),),
        storage_gb=2.5,
        cpu_limit=2.5,
        data_zone="zone-a",
        cloud="gke",
    )
    plan = replace(first_try(size), forbidden_nodes=("a", "b"), avoided_nodes=("c", "d"))
    accepted = core.create_namespaced_pod(pods.namespace, pod_of(settings_of(pods.namespace), plan), dry_run="All")
    assert accepted.metadata.labels["kueue.x-k8s.io/queue-name"] == "trainings"
    assert accepted.spec.containers[0].resources.limits["ephemeral-storage"] == "2500M"
    assert accepted.spec.containers[0].resources.limits["cpu"] == "2500m"
