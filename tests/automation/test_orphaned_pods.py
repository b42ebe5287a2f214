"""A pod whose run is over is ended after a while and recorded; foreign pods and those of living runs never are.

The API's answers are recorded ones; `tests/cluster/test_orphans.py` ends real pods.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest
from platform_assets.kubernetes.orphans import ADOPTED_WITHIN_S, plan
from platform_assets.launch import records
from platform_assets.launch.attempt import begin, prepare
from platform_assets.launch.endings import first_try
from platform_assets.launch.profiles import profile
from platform_assets.sensors import orphaned_pods
from platform_assets.store.ledgers import Ledgers
from tests.doubles import recorded
from tests.doubles.played_api import LOST, Play, PlayedApi, Trouble, ended, running, shown, stamp

pytestmark = pytest.mark.slow

PRODUCT = recorded.SPEC.name
STARTED, FAILURE, SUCCESS = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
ASSETS = {
    "job_name": "__ASSET_JOB",
    "asset_selection": frozenset([dg.AssetKey(naming.asset_key(PRODUCT, "checkpoint"))]),
}
TAGGED = {"job_name": "by_hand", "tags": {naming.TAG_PRODUCT: PRODUCT}}
SENSOR = orphaned_pods.watch.build([recorded.SPEC])


@pytest.mark.parametrize(
    ("status", "over_for_s", "action"),
    [
        (None, None, "end"),
        (STARTED, None, "leave"),
        (dg.DagsterRunStatus.QUEUED, None, "leave"),
        (dg.DagsterRunStatus.CANCELING, None, "leave"),
        (FAILURE, ADOPTED_WITHIN_S - 1, "leave"),
        (FAILURE, ADOPTED_WITHIN_S + 1, "end"),
        (dg.DagsterRunStatus.CANCELED, ADOPTED_WITHIN_S + 1, "end"),
        (SUCCESS, ADOPTED_WITHIN_S - 1, "leave"),
        (SUCCESS, None, "end"),
    ],
)
def test_a_pod_is_ended_or_left_by_the_state_of_its_run(status: Any, over_for_s: float | None, action: str) -> None:
    assert plan(status and status.value, over_for_s=over_for_s, other="r2").action == "leave", (
        "r2 may have taken it over"
    )
    result = plan(status and status.value, over_for_s=over_for_s, other=None)
    assert result.action == action
    assert result.reason


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedApi]:
    monkeypatch.setenv("DRIFTLINE_ROOT", str(tmp_path / "store"))
    monkeypatch.setenv("DRIFTLINE_LAUNCHER", "kubernetes")
    monkeypatch.setenv("DRIFTLINE_NAMESPACE", "default")
    monkeypatch.setenv("DRIFTLINE_TRAINER_IMAGE", f"trainer@sha256:{0:064}")
    with PlayedApi(Play([running()])) as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig(), encoding="utf-8")
        # The client reads KUBECONFIG when it is imported, and that happened in an earlier test.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield api


def add_pod(api: PlayedApi, run_id: str, *, product: str = PRODUCT) -> str:
    """Add the pod of an attempt, as the launcher does, and let it begin."""
    work = Work(product=product, step="train", cutoff="0009", fingerprint="f" * 64)
    size = profile("cpu_small")
    facts = replace(begin(work, first_try(size), run_id=run_id, launcher="kubernetes"), id="a1")
    settings = Settings.from_environment()
    pod = manifest.pod(settings, "none", first_try(size), prepare(settings.root, facts), {})
    name = str(api.create({**pod})["metadata"]["name"])
    api.look(name)
    return name


def add_run(instance: dg.DagsterInstance, *, over_for_s: float | None) -> str:
    """Add a run that failed some time ago, or is under way."""
    run = dg.DagsterRun(job_name=f"retrain__{PRODUCT}", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    if over_for_s is not None:
        failed = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name=run.job_name)
        at_s = time.time() - over_for_s
        instance.handle_new_event(
            dg.EventLogEntry(
                error_info=None,
                level=40,
                user_message="",
                run_id=run.run_id,
                timestamp=at_s,
                job_name=run.job_name,
                dagster_event=failed,
            )
        )
    return run.run_id


def evaluate(instance: dg.DagsterInstance) -> str:
    result = SENSOR(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def attempts(folder: Path) -> list[dict[str, Any]]:
    return [record for _, record in Ledgers(str(folder / "store"), PRODUCT).records(naming.ATTEMPTS)]


def test_a_pod_of_a_run_that_is_long_over_is_ended_and_recorded_once(
    api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    name = add_pod(api, add_run(instance, over_for_s=ADOPTED_WITHIN_S + 60))
    assert evaluate(instance) == f"pod {name}: its run is over (FAILURE), ended"
    assert not api.pods
    (record,) = attempts(tmp_path)
    assert (record["reason"], record["by"], record["id"], record["host"]) == ("cancelled", "launcher", "a1", name)
    assert "its run is over" in record["said"]
    assert evaluate(instance) == "there are no pods of steps"


def test_a_pod_that_is_being_ended_is_not_recorded_again(
    api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    name = add_pod(api, "unknown")
    api.pods[name]["metadata"] |= {"deletionTimestamp": stamp(api.now()), "deletionGracePeriodSeconds": 60}
    assert evaluate(instance) == f"pod {name}: is already being deleted"
    assert attempts(tmp_path) == []


@pytest.mark.parametrize("asked", [{"job_name": f"retrain__{PRODUCT}"}, ASSETS, TAGGED], ids=["job", "assets", "tag"])
def test_a_pod_is_left_to_the_run_that_took_it_over_behind_any_number_of_newer_ones(
    api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance, crowd: Any, asked: dict[str, Any]
) -> None:
    name = add_pod(api, add_run(instance, over_for_s=ADOPTED_WITHIN_S + 60))
    other = dg.DagsterRun(**asked, status=STARTED)
    instance.add_run(other)
    crowd(instance, 51)
    crowd(instance, 51, job=f"advance__{PRODUCT}")
    assert evaluate(instance) == f"pod {name}: run {other.run_id} is under way and may have taken it over"
    assert api.pods[name]["status"]["phase"] == "Running"
    assert attempts(tmp_path) == []


def test_a_pod_that_ended_unwatched_is_recorded_with_its_class(
    api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    name = add_pod(api, add_run(instance, over_for_s=ADOPTED_WITHIN_S + 60))
    api.pods[name]["status"] = shown(ended(137, "OOMKilled"), api)
    assert "ended" in evaluate(instance)
    (record,) = attempts(tmp_path)
    assert (record["reason"], record["exit_code"]) == ("out_of_memory", 137)
    assert not api.pods


def announce(tmp_path: Path, run_id: str, attempt: str) -> None:
    """Announce an attempt at a work of its own, as a launcher does that is killed then."""
    work = Work(product=PRODUCT, step="train", cutoff="0009", fingerprint=attempt * 32)
    plan = first_try(profile("cpu_small"))
    facts = replace(begin(work, plan, run_id=run_id, launcher="kubernetes"), id=attempt)
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path), "DRIFTLINE_ROOT": str(tmp_path / "store")})
    records.announce(prepare(settings.root, facts))


def test_an_attempt_whose_pod_is_gone_is_settled_once_and_only_when_no_run_may_do_it(
    api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    long_over, just_over = (add_run(instance, over_for_s=ADOPTED_WITHIN_S + seconds) for seconds in (60, -60))
    announce(tmp_path, long_over, "a1")
    announce(tmp_path, long_over, "b2")
    announce(tmp_path, just_over, "c3")
    context = dg.build_sensor_context(instance=instance)
    add_pod(api, just_over)
    result = SENSOR(context)
    assert "attempt b2 has no pod: its run is over (FAILURE), settled" in str(result.skip_reason)
    assert str(result.skip_reason).count("settled") == 1, "a1 has a pod, and the next run may settle c3"
    context.update_cursor(result.cursor)
    assert "settled" not in str(SENSOR(context).skip_reason)
    ended = [(attempt["id"], attempt["reason"]) for attempt in attempts(tmp_path) if attempt["reason"] != "under_way"]
    assert ended == [("b2", "node_lost")]


def test_foreign_pods_are_left_alone(api: PlayedApi, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    add_pod(api, "unknown", product="another")
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "command": ["sleep", "60"]}]}
    api.create({"metadata": {"name": "foreign"}, "spec": spec})
    assert evaluate(instance) == "there are no pods of steps"
    assert len(api.pods) == 2
    assert attempts(tmp_path) == []


def test_an_unreachable_or_forbidding_api_is_reported_in_one_sentence(
    api: PlayedApi, instance: dg.DagsterInstance
) -> None:
    api.troubles = [Trouble("list", LOST), Trouble("list", 403, "Forbidden", "pods is forbidden")]
    assert "could not look at the pods: the Kubernetes API did not answer" in evaluate(instance)
    assert "could not look at the pods: 403 Forbidden" in evaluate(instance)
    add_pod(api, "unknown")
    api.troubles = [Trouble("delete", 403, "Forbidden", "pods is forbidden")]
    assert "could not look at the pods: 403 Forbidden" in evaluate(instance)
    assert len(api.pods) == 1


def test_the_sensor_ignores_steps_that_are_not_pods(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_LAUNCHER", "subprocess")
    assert evaluate(instance) == "steps run on the launcher subprocess, not as pods"
