"""The sensor orphaned_pods ends pods whose run is over, with time to save, and records each of them once."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.naming import ATTEMPTS
from platform_assets.engine.outside import Work
from platform_assets.launch import records
from platform_assets.launch.attempt import begin, prepare
from platform_assets.launch.endings import first_try
from platform_assets.sensors import orphaned_pods
from platform_assets.store.ledgers import Ledgers
from tests.cluster import accounts, gangs
from tests.cluster.cluster import Cluster
from tests.cluster.gangs import Gang
from tests.cluster.rights import CODE, NAMESPACE, Right
from tests.cluster.step_runs import SMALL, StepRuns, pod_of
from tests.cluster.waiting import wait_until
from tests.doubles import recorded

WORK = Work(product=recorded.SPEC.name, step="train", cutoff="0009", fingerprint="f" * 64)
SAVES = "touch /tmp/ready; trap 'sleep 2; exit 143' TERM; while :; do sleep .1; done"


@pytest.fixture
def sensing(runs: StepRuns, reachable: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which sensors find the store, with the account of the code server."""
    for name, value in runs.process_environment().items():
        if name.startswith("DRIFTLINE_"):
            monkeypatch.setenv(name, value)
    # The client reads KUBECONFIG when it is imported, and that happened in an earlier test.
    kubeconfig = tmp_path / "code"
    accounts.write_kubeconfig(kubeconfig, accounts.configuration_of(reachable, accounts.CODE, runs.pods.namespace))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))


def _pod(runs: StepRuns, shell: str, attempt: str) -> Any:
    pod = pod_of(runs.settings, first_try(SMALL), WORK, attempt)
    pod["spec"]["containers"][0] |= {"image": shell, "command": ["sh", "-c", SAVES]}
    return pod


@pytest.fixture
def orphan(runs: StepRuns, sensing: None, shell: str) -> str:
    """The running pod of an attempt whose run nobody knows."""
    name = runs.pods.create(_pod(runs, shell, "a1"))
    runs.pods.wait_until_running(name)
    return name


def evaluate() -> str:
    sensor = orphaned_pods.watch.build([recorded.SPEC])
    with dg.DagsterInstance.ephemeral() as instance:
        result = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def test_an_orphan_has_time_to_save_and_is_recorded_once(runs: StepRuns, orphan: str) -> None:
    assert evaluate() == f"pod {orphan}: its run does not exist, ended"
    assert evaluate() == f"pod {orphan}: is already being deleted"
    assert [end.exit_code for end in runs.pods.ends_until_deleted(orphan)] == [143]
    (record,) = (record for _, record in Ledgers(runs.settings.root, WORK.product).records(ATTEMPTS))
    assert (record["reason"], record["by"], record["id"], record["host"]) == ("cancelled", "launcher", "a1", orphan)
    wait_until(lambda: evaluate() == "there are no pods of steps", 60, "the pod is gone")


@pytest.fixture
def orphan_gang(runs: StepRuns, sensing: None, shell: str) -> Gang:
    """The running pods of an attempt on two nodes, whose run nobody knows."""
    gang = gangs.gang(runs.pods.api.api_client, _pod(runs, shell, "a2"))
    gang.create()
    gang.wait_for_pods()
    for member in gang.pods():
        runs.pods.wait_until_running(member.metadata.name)
    return gang


def test_an_orphan_on_several_nodes_is_ended_whole_and_recorded_once(runs: StepRuns, orphan_gang: Gang) -> None:
    assert evaluate().endswith(f"{orphan_gang.name}: its run does not exist, ended")
    assert evaluate().endswith(f"{orphan_gang.name}: is already being deleted")
    (record,) = (record for _, record in Ledgers(runs.settings.root, WORK.product).records(ATTEMPTS))
    assert (record["reason"], record["by"], record["id"]) == ("cancelled", "launcher", "a2")
    wait_until(lambda: evaluate() == "there are no pods of steps", 60, "the gang is gone")
    assert orphan_gang.pods() == []


def test_an_attempt_whose_pod_nobody_saw_is_settled(runs: StepRuns, sensing: None) -> None:
    facts = begin(WORK, first_try(SMALL), run_id="unknown", launcher="kubernetes")
    records.announce(prepare(runs.settings.root, facts))
    assert evaluate() == f"attempt {facts.id} has no pod: its run does not exist, settled"
    (record,) = runs.records(WORK)
    assert (record["id"], record["by"]) == (facts.id, "launcher")
    assert evaluate() == "there are no pods of steps"


def test_without_the_right_to_events_the_sensor_settles_and_names_the_missing_evidence(
    runs: StepRuns, sensing: None, reachable: Cluster
) -> None:
    accounts.revoke(reachable, runs.pods.namespace, Right(CODE, NAMESPACE, "events", "list"))
    facts = begin(WORK, first_try(SMALL), run_id="unknown", launcher="kubernetes")
    records.announce(prepare(runs.settings.root, facts))
    text = evaluate()
    assert text.startswith(f"attempt {facts.id} has no pod: its run does not exist, settled; ")
    assert 'cannot list resource "events"' in text
    assert text.endswith(f"Events in namespace {runs.pods.namespace} are missing from the evidence.")
    (record,) = runs.records(WORK)
    assert (record["id"], record["by"]) == (facts.id, "launcher")
