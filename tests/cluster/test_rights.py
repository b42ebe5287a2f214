"""The rights of a run are those it uses, and a step has none."""

import pytest
from kubernetes import client

from platform_assets.launch.tries import NotReady
from tests.cluster import accounts
from tests.cluster.cluster import Cluster
from tests.cluster.requirements import KUBECONFIG
from tests.cluster.rights import OF_GANGS, OF_QUEUES, OPTIONAL, REASONS, RUN, Right, granted, used
from tests.cluster.step_runs import StepRuns


def test_a_run_uses_every_right_for_steps_on_one_node_and_a_step_none(runs: StepRuns, reachable: Cluster) -> None:
    if reachable.control is None:
        pytest.skip(f"the audit log of the cluster in {KUBECONFIG} is not ours to read")
    runs.when_ready(lambda name: runs.pods.api.delete_namespaced_pod(name, runs.pods.namespace))
    runs.run("stay", "well")
    assert runs.reasons() == ["preempted", "finished"]
    log = reachable.control.folder / "audit.log"
    assert {right for right, _ in used(log, [runs.pods.namespace])} == {
        item for item in granted() - OF_GANGS - OF_QUEUES if item.account == RUN
    }


@pytest.mark.parametrize(
    "right",
    sorted(right for right in REASONS.keys() - OF_GANGS - OF_QUEUES if right.account == RUN),
    ids=lambda right: f"{right.verb} {right.resource} in {right.place}",
)
def test_without_a_right_the_run_names_it_and_creates_no_pod_that_it_could_not_watch(
    right: Right, runs: StepRuns, reachable: Cluster
) -> None:
    accounts.revoke(reachable, runs.pods.namespace, right)
    if right in OPTIONAL:
        # Nodes and events are read only after a failure.
        runs.when_ready(lambda name: runs.pods.api.delete_namespaced_pod(name, runs.pods.namespace))
        lines = runs.run("stay", "well").lines
        assert runs.reasons() == ["preempted", "finished"]
        named = [line for line in lines if right.resource.removesuffix("s") in line.lower()]
        assert any("missing from the evidence" in line or "is not known" in line for line in named), lines
        return
    with pytest.raises(NotReady, match=f"may not {right.verb} {right.resource} in namespace"):
        runs.run("well")
    assert runs.records() == []
    assert runs.pods.api.list_namespaced_pod(runs.pods.namespace).items == []


def test_a_step_has_no_token_and_its_account_may_do_nothing(runs: StepRuns, reachable: Cluster) -> None:
    pods_seen = []
    runs.when_ready(lambda name: (pods_seen.append(runs.pods.read(name)), runs.marks.touch("go")))
    runs.run("stay")
    (pod,) = pods_seen
    assert pod.spec.service_account_name == accounts.STEP
    mounted = [mount.mount_path for mount in pod.spec.containers[0].volume_mounts]
    assert mounted == ["/tmp", "/scratch", "/dev/shm"]
    configuration = accounts.configuration_of(reachable, accounts.STEP, runs.pods.namespace)
    with pytest.raises(client.ApiException, match="cannot list resource") as refusal:
        client.CoreV1Api(client.ApiClient(configuration)).list_namespaced_pod(runs.pods.namespace)
    assert refusal.value.status == 403
