"""The launcher's decisions on recorded answers of the API, where no cluster gives them on demand.

What a cluster does to a step is in `tests/cluster`.
"""

# Annotations are not postponed: Dagster compares that of `context` as an object.

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest
from kubernetes.client import Configuration

from platform_assets.base.settings import SettingsProblem
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest, watching
from platform_assets.kubernetes.api import INDEX
from platform_assets.kubernetes.launcher import AtWork, KubernetesLauncher
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.launch.attempt import Launched, Prepared, StepRequest, begin, prepare
from platform_assets.launch.endings import first_try
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.launch.tries import Unattended
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, Launch, unique_attempts
from platform_assets.training import libraries
from platform_assets.training.steps.attempt import Attempt as StepAttempt
from tests.doubles.played_api import GONE, IMAGE, LOST, Play, PlayedApi, Trouble, ended, running, settings_of, well

pytestmark = pytest.mark.slow

NOWHERE = Configuration()
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
SMALL = StepProfile(
    name="cpu_small", cores=1, memory_gb=2, usd_per_hour=0.08, priced_on="2026-11-01", grace_s=30, schedule_timeout_s=1
)
PENDING = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KubernetesLauncher, "longest_pause_s", 0.0)


@pytest.fixture
def api() -> Iterator[PlayedApi]:
    """An API whose pods finish after two looks."""
    with PlayedApi(well()) as api:
        yield api


def run(
    api: PlayedApi,
    folder: Path,
    *,
    profile: StepProfile = SMALL,
    launcher: type[KubernetesLauncher] = KubernetesLauncher,
    patience_s: float = 20.0,
    instance: dg.DagsterInstance | None = None,
    **variables: str,
) -> list[str]:
    """Run a step to its end and return the run's messages."""

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        result = launcher.run(context=context, module="played", profile=profile, work=WORK)
        return dg.MaterializeResult(metadata={"value": result["value"]})

    pods = launcher(
        settings_of(folder, **variables), configuration=api.configuration(), poll_s=0.05, patience_s=patience_s
    )
    with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as its_own:
        result = dg.materialize([waits], resources={"launcher": pods}, instance=its_own)
        return [event.message for event in its_own.all_logs(result.run_id)]


def records(folder: Path) -> list[dict[str, Any]]:
    entries = Ledgers(str(folder / "store"), WORK.product).of(ATTEMPTS).records()
    return [record.document() for _, record in reversed(unique_attempts(entries))]


def reasons(folder: Path) -> list[str]:
    return [record["reason"] for record in records(folder)]


# The API in trouble ------------------------------------------------------------------------------------------------


def test_trouble_that_passes_costs_nothing_but_time(api: PlayedApi, tmp_path: Path) -> None:
    api.troubles = [
        Trouble("create", 500, is_done=True),
        Trouble("get", 429, reason="TooManyRequests", count=2),
        Trouble("get", LOST, count=3),
    ]
    lines = run(api, tmp_path)
    assert reasons(tmp_path) == ["finished"]
    (retried,) = [line for line in lines if "retrying in" in line and "did not answer" in line]
    assert re.match(
        r"the Kubernetes API did not answer: the connection was cut \(https?://[^)]+\); retrying in", retried
    )
    assert len(api.created) == 1
    assert not api.pods


def test_an_expired_token_leaves_the_pod_to_the_next_run(tmp_path: Path) -> None:
    with PlayedApi(well(looks=3)) as api:
        api.troubles = [Trouble("get", LOST), Trouble("get", 401, reason="Unauthorized", count=3)]
        with pytest.raises(Unattended, match=r"401 Unauthorized.* may be at work and is left alone"):
            run(api, tmp_path)
        assert reasons(tmp_path) == ["under_way"]
        run(api, tmp_path)
        assert reasons(tmp_path) == ["finished"]
        assert len(api.created) == 1


def leave_at_work(api: PlayedApi, folder: Path, profile: StepProfile) -> dict[str, Any]:
    """Return a pod that a run has left at work."""
    api.troubles = [Trouble("get", 401, reason="Unauthorized", count=3)]
    with pytest.raises(Unattended):
        run(api, folder, profile=profile)
    (pod,) = api.pods.values()
    return pod


def test_an_attempt_on_other_nodes_is_neither_taken_over_nor_recorded_as_lost(tmp_path: Path) -> None:
    with PlayedApi(Play([running()]), well()) as api:
        leave_at_work(api, tmp_path, SMALL)["metadata"]["labels"][INDEX] = "0"
        lines = run(api, tmp_path)
        assert len(api.pods) == 1
    assert any(
        "is at this step on another number of nodes. This attempt waits until that one has" in line for line in lines
    )
    assert sorted(reasons(tmp_path)) == ["finished", "under_way"]


@pytest.mark.parametrize(("left", "processes"), [("cpu_small", 1), ("of_before", 1), ("of_before", 2)])
def test_what_follows_an_attempt_that_was_taken_over_has_as_many_processes_as_the_run_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, processes: int
) -> None:
    before = SMALL.replace(name=left, processes=2, memory_gb=3)
    monkeypatch.setitem(PROFILES, left, before)
    with PlayedApi(Play([running(), ended(137)]), well()) as api:
        leave_at_work(api, tmp_path, before)
        run(api, tmp_path, profile=SMALL.replace(processes=processes))
        assert len(api.created) == 2
    first, second = records(tmp_path)
    assert (first["profile"], second["profile"]) == (left, left if processes == 2 else "cpu_small")
    assert [first["reason"], second["reason"]] == ["killed", "finished"]


def test_a_second_launch_does_not_record_the_end_of_one_that_has_no_pod_yet(api: PlayedApi, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        class Slower(KubernetesLauncher):
            def _create(self, *asked: Any) -> Any:
                run(api, tmp_path, instance=instance)
                assert sorted(reasons(tmp_path)) == ["finished", "under_way"]
                return super()._create(*asked)

        run(api, tmp_path, instance=instance, launcher=Slower)
    written = Ledgers(str(tmp_path / "store"), WORK.product).of(ATTEMPTS).records()
    assert sorted(record.reason for _, record in written) == ["finished", "finished", "under_way", "under_way"]
    assert len(api.created) == 2


class LateForThePod(KubernetesLauncher):
    """Finds a pod at work, which is gone at its first look at it."""

    played: ClassVar[PlayedApi]

    def _at_work(self, request: StepRequest, fresh: Prepared) -> AtWork | None:
        found = super()._at_work(request, fresh)
        self.played.pods.clear()
        return found


def test_what_was_seen_of_a_pod_that_is_taken_over_is_paid_for_when_it_is_gone(tmp_path: Path) -> None:
    with PlayedApi(Play([running()]), well()) as api:
        LateForThePod.played = api
        leave_at_work(api, tmp_path, SMALL)
        started = api.look(api.created[0])["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        time.sleep(1.5)
        run(api, tmp_path, launcher=LateForThePod)
    lost, finished = records(tmp_path)
    assert [lost["reason"], finished["reason"]] == ["node_lost", "finished"]
    assert datetime.fromisoformat(lost["started_at_utc"]) == datetime.fromisoformat(started)
    assert lost["wall_s"] >= 1.0
    assert lost["cost_usd"] > 0


def waits(message: str) -> dict[str, Any]:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [scheduled]}


def test_why_a_step_waits_is_in_the_runs_log_once_per_reason(tmp_path: Path) -> None:
    slice_is_taken = "0/2 nodes are available: 2 Insufficient nvidia.com/mig-1g.10gb."
    full = waits("0/2 nodes are available: 2 Insufficient memory.")
    with PlayedApi(Play([waits(slice_is_taken), waits(slice_is_taken), full, running(), ended(0)], result=1)) as api:
        lines = run(api, tmp_path, profile=SMALL.replace(schedule_timeout_s=60))
    assert [line for line in lines if "waits for a node" in line] == [
        "the step waits for a node (cpu_small): 0/2 nodes are available: 2 Insufficient nvidia.com/mig-1g.10gb",
        "the step waits for a node (cpu_small): 0/2 nodes are available: 2 Insufficient memory",
    ]
    assert reasons(tmp_path) == ["finished"]


def test_conflicts_beyond_patience_are_a_refusal_that_is_tried_again(api: PlayedApi, tmp_path: Path) -> None:
    message = 'Operation cannot be fulfilled on resourcequotas "team"'
    api.troubles = [Trouble("create", 409, "Conflict", message, {"kind": "resourcequotas"}, 2)]
    run(api, tmp_path, patience_s=0.1)
    assert reasons(tmp_path) == ["admission", "admission", "finished"]


def test_a_full_quota_is_waited_for_and_one_that_stays_full_ends_the_step_once(
    api: PlayedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_assets.kubernetes.launcher.QUOTA_POLL_S", 0.01)
    full = "pods is forbidden: exceeded quota: team"
    api.troubles = [Trouble("create", 403, "Forbidden", full, count=3)]
    assert any("exceeded quota: team; waiting at most 1 s for the quota" in line for line in run(api, tmp_path))
    api.troubles = [Trouble("create", 403, "Forbidden", full, count=10_000)]
    with pytest.raises(StepFailure, match="did not create it for 1 s: 403 Forbidden: pods is forbidden: exceeded"):
        run(api, tmp_path)
    assert reasons(tmp_path) == ["finished", "admission"], "another try would be refused as well"
    assert records(tmp_path)[-1]["cost_usd"] == 0


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("code", [500, 504, LOST])
def test_a_creation_that_nobody_answers_is_not_final_and_its_pod_is_found_again(
    api: PlayedApi, tmp_path: Path, code: int, is_done: bool
) -> None:
    api.troubles = [Trouble("create", code, is_done=is_done), Trouble("create", code, count=1000)]
    with pytest.raises(Unattended, match=r"Pod driftline-tiny-train-.* may be at work and is left alone"):
        run(api, tmp_path, patience_s=1.0)
    assert reasons(tmp_path) == ["under_way"]
    api.troubles = []
    run(api, tmp_path)
    if is_done:
        assert reasons(tmp_path) == ["finished"]
    else:
        assert reasons(tmp_path) == ["node_lost", "finished"]
        assert records(tmp_path)[0]["wall_s"] == 0
    assert len(api.created) == 1
    assert not api.pods


def test_no_step_begins_while_the_api_cannot_say_whether_one_is_at_work(api: PlayedApi, tmp_path: Path) -> None:
    api.troubles = [Trouble("list", 503, count=1000)]
    with pytest.raises(Unattended, match="No pod was started"):
        run(api, tmp_path, patience_s=0.5)
    assert records(tmp_path) == []
    assert not api.created


def test_a_run_that_is_cancelled_while_it_creates_leaves_no_pod(api: PlayedApi, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt(line)

    class CancelledLater(KubernetesLauncher):
        def _create(self, *asked: Any) -> Any:
            self.api.log = interrupt
            return super()._create(*asked)

    api.troubles = [Trouble("create", 500, is_done=True)]
    with pytest.raises(BaseException):  # noqa: B017, PT011  # Dagster wraps it in its own
        run(api, tmp_path, launcher=CancelledLater)
    assert reasons(tmp_path) == ["cancelled"]
    assert records(tmp_path)[0]["said"] == "the run was interrupted"
    assert not api.pods


class Drained(KubernetesLauncher):
    """Its run gets SIGTERM at the second look at a step at work, as when its node is drained."""

    def _create(self, new: Manifest, launched: Launched) -> Any:
        read, looks = self.api.node, itertools.count(1)

        def node(name: str) -> Any:
            if next(looks) > 1:
                self.cancel(launched)
                raise dg.DagsterExecutionInterruptedError
            return read(name)

        self.api.node = node  # type: ignore[method-assign]
        return super()._create(new, launched)

    def cancel(self, launched: Launched) -> None:
        """Do what Dagster does before it ends the pod of a run that somebody cancelled."""


class Cancelled(Drained):
    def cancel(self, launched: Launched) -> None:
        context = launched.request.context
        run = context.instance.get_run_by_id(context.run.run_id)
        assert run is not None
        context.instance.report_run_canceling(run)


def test_a_drained_run_leaves_its_pod_at_work_and_the_next_run_watches_it(tmp_path: Path) -> None:
    with PlayedApi(Play([*[running()] * 4, ended(0)], result=1)) as api:
        with pytest.raises(Unattended, match=r"nobody cancelled it.* Pod driftline-tiny-train-\S+ goes on; the"):
            run(api, tmp_path, launcher=Drained, DRIFTLINE_ENV="cluster")
        assert (reasons(tmp_path), len(api.pods)) == (["under_way"], 1)
        lines = run(api, tmp_path, DRIFTLINE_ENV="cluster")
        assert any("watching it from now on" in line for line in lines)
        assert (reasons(tmp_path), len(api.created)) == (["finished"], 1)


@pytest.mark.parametrize(("launcher", "environment"), [(Cancelled, "cluster"), (Drained, "local")])
def test_a_cancelled_run_and_one_outside_of_the_cluster_stop_their_pod(
    tmp_path: Path, launcher: type[KubernetesLauncher], environment: str
) -> None:
    with (
        PlayedApi(Play([running()])) as api,
        pytest.raises(BaseException),  # noqa: B017, PT011  # Dagster wraps it in its own
    ):
        run(api, tmp_path, launcher=launcher, DRIFTLINE_ENV=environment)
    assert reasons(tmp_path) == ["cancelled"]
    assert not api.pods


# An eviction that an event alone tells of ---------------------------------------------------------------------------

EVICTED = {
    "reason": "Evicted",
    "message": "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ",
}


def test_an_eviction_undoes_no_result_and_explains_a_success_without_one(tmp_path: Path) -> None:
    with PlayedApi(Play([running(), ended(0)]), well()) as api:
        api.events = [EVICTED]
        run(api, tmp_path)
    evicted, finished = records(tmp_path)
    assert [evicted["reason"], evicted["exit_code"], finished["reason"]] == ["out_of_disk", 0, "finished"]
    assert "Pod ephemeral local storage usage exceeds" in evicted["said"]


# A step that outlives the cluster's contact to it --------------------------------------------------------------------

SILENT = {**running(), "phase": "Unknown"}
BEAT_S = 0.2


class Outliving(KubernetesLauncher):
    """A step that beats in the store, whatever the cluster shows of its pod, and ends or falls silent after some time.

    Attributes:
        reason: that it records at its end; empty for none.
    """

    reason: ClassVar[str] = "finished"
    lives_s: ClassVar[float] = 2.5
    steps: ClassVar[list[threading.Thread]] = []

    def _create(self, new: Manifest, launched: Launched) -> Any:
        if not self.steps:
            self.steps.append(threading.Thread(target=self.work, args=(launched.prepared.launch,)))
            self.steps[0].start()
        return super()._create(new, launched)

    def work(self, launch: Launch) -> None:
        members = {"fingerprint": WORK.fingerprint, "cutoff": WORK.cutoff, "profile_name": "cpu_small"}
        step = StepAttempt(self.settings, Ledgers(self.settings.root, WORK.product), launch=launch, **members)
        step.acquire(wait=lambda: False)
        until_s = time.monotonic() + self.lives_s
        while time.monotonic() < until_s:
            step.beat(is_due=True)
            time.sleep(BEAT_S)
        if self.reason:
            step.note(reason=self.reason)
            step.beat(is_due=True)


@pytest.fixture
def outliving(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Outliving]]:
    monkeypatch.setattr(watching, "PROOF_S", 1.0)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 2.0)
    monkeypatch.setattr(Outliving, "steps", [])
    yield Outliving
    for step in Outliving.steps:
        step.join()


@pytest.mark.parametrize("status", [SILENT, None])
def test_a_step_that_outlives_its_kubelet_is_waited_for_and_paid_by_its_own_record(
    tmp_path: Path, outliving: type[Outliving], status: dict[str, Any] | None
) -> None:
    with PlayedApi(Play([running(), status or GONE], result=1), well()) as api:
        run(api, tmp_path, launcher=outliving)
        assert len(api.created) == 1
    (record,) = records(tmp_path)
    assert record["reason"] == "finished"
    assert "the step had reported its result" in record["said"]
    assert Outliving.lives_s <= record["wall_s"] < Outliving.lives_s + 1.5


def test_a_step_whose_heartbeats_end_is_paid_until_the_last_of_them(
    tmp_path: Path, outliving: type[Outliving], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outliving, "reason", "")
    with PlayedApi(Play([running(), SILENT]), well()) as api:
        run(api, tmp_path, launcher=outliving)
    lost, finished = records(tmp_path)
    assert [lost["reason"], finished["reason"]] == ["node_lost", "finished"]
    assert Outliving.lives_s - 0.5 <= lost["wall_s"] < Outliving.lives_s + 1.0


def test_heartbeats_do_not_extend_a_step_beyond_its_deadline(tmp_path: Path, outliving: type[Outliving]) -> None:
    began = {"name": "step", "state": {"running": {"startedAt": "2020-01-01T00:00:00Z"}}}
    with PlayedApi(Play([{"phase": "Unknown", "containerStatuses": [began]}]), well()) as api:
        run(api, tmp_path, launcher=outliving)
    assert reasons(tmp_path) == ["node_lost", "finished"]


# A clock that is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_s", [-3_600.0, 86_400.0])
def test_a_cluster_whose_clock_is_wrong_is_understood_by_that_clock(tmp_path: Path, shift_s: float) -> None:
    preempted = {**ended(143), "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "Preemption"}]}
    with PlayedApi(Play([running(), preempted]), well(), clock_shift_s=shift_s) as api:
        run(api, tmp_path)
    first, second = records(tmp_path)
    assert [first["reason"], second["reason"]] == ["preempted", "finished"]
    assert 0 <= first["wall_s"] < 300
    assert 0 <= second["wall_s"] < 300
    with (
        PlayedApi(Play([PENDING]), clock_shift_s=shift_s) as api,
        pytest.raises(StepFailure, match="no node had room for it"),
    ):
        run(api, tmp_path, profile=SMALL.replace(schedule_timeout_s=0.2))
    with (
        PlayedApi(Play([running()]), clock_shift_s=shift_s) as api,
        pytest.raises(BaseException),  # noqa: B017, PT011  # Dagster wraps it in its own
    ):
        run(api, tmp_path, launcher=Drained)
    assert reasons(tmp_path)[-1] == "cancelled"
    assert all(record["waited_s"] < 300 for record in records(tmp_path))
    assert not api.pods


# The libraries of a training's fingerprint ------------------------------------------------------------------------


def test_the_fingerprint_names_the_versions_that_the_setting_says_or_else_the_image(tmp_path: Path) -> None:
    here = libraries.as_text(libraries.installed())
    named = KubernetesLauncher(settings_of(tmp_path, DRIFTLINE_TRAINER_LIBRARIES=here), configuration=NOWHERE)
    assert named.libraries(SMALL) == libraries.installed()
    assert KubernetesLauncher(settings_of(tmp_path), configuration=NOWHERE).libraries(SMALL) == {libraries.IMAGE: IMAGE}


def test_a_profile_with_an_image_runs_in_it_and_the_fingerprint_names_it_or_its_versions(tmp_path: Path) -> None:
    own = SMALL.replace(image="own@sha256:" + "1" * 64)
    launcher = KubernetesLauncher(
        settings_of(tmp_path, DRIFTLINE_TRAINER_LIBRARIES="torch=2.13"), configuration=NOWHERE
    )
    assert launcher.libraries(own) == {libraries.IMAGE: own.image}
    stated = own.replace(libraries="torch=2.13 xgboost=3.1")
    assert launcher.libraries(stated) == {"torch": "2.13", "xgboost": "3.1"}
    with pytest.raises(
        SettingsProblem, match=r"StepProfile\('cpu_small'\).libraries is 'torch'; expected NAME=VERSION"
    ):
        launcher.libraries(own.replace(libraries="torch"))
    images = []
    for size in (SMALL, stated):
        launch = begin(WORK, first_try(size), run_id="r", launcher="kubernetes")
        pod = manifest.pod(settings_of(tmp_path), "step", first_try(size), prepare("store", launch), {})
        images.append([container["image"] for container in pod["spec"]["containers"]])
    assert images == [[IMAGE], [own.image]]


@pytest.mark.parametrize("stated", ["torch", "torch=2.13 numpy", "image=trainer@sha256:1", "torch=2.13 ruff=1.0"])
def test_a_setting_that_is_not_a_label_is_refused_before_anything_starts(tmp_path: Path, stated: str) -> None:
    with pytest.raises(SettingsProblem, match=rf"DRIFTLINE_TRAINER_LIBRARIES is '{stated}'; expected NAME=VERSION"):
        KubernetesLauncher(settings_of(tmp_path, DRIFTLINE_TRAINER_LIBRARIES=stated), configuration=NOWHERE)
