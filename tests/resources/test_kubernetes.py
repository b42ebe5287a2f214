"""Steps as pods, on the double of a cluster: results, every class of failure, trouble with the API, re-attaching."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from kubernetes.client import Configuration

from platform_assets import libraries, specs
from platform_assets.failures import LOST
from platform_assets.makers.checkpoint import Learning
from platform_assets.profiles import PROFILES, StepProfile, Toleration
from platform_assets.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.settings import REPOSITORY, Settings, SettingsProblem
from platform_assets.steps import instructions
from platform_assets.steps.jobs import Job
from platform_assets.storage.ledgers import Ledgers
from resources.launchers import StepFailure, StepLauncher, Work
from resources.launchers.attempt import LONGEST_LINE, MOST_LINES
from resources.launchers.kubernetes import KubernetesLauncher, _pod_name
from resources.launchers.step_pod import pod_of
from resources.launchers.tries import Unattended
from tests.doubles.cluster.api import Access
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node
from tests.doubles.cluster.objects import ApiProblem

STEP = "tests.doubles.step"
NOWHERE = Configuration()
IMAGE = "trainer@sha256:" + "0" * 64
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
SMALL = StepProfile(
    name="cpu_small", cores=1, memory_gb=2, usd_per_hour=0.08, priced_on="2026-11-01", grace_s=30, schedule_timeout_s=1
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KubernetesLauncher, "longest_pause_s", 0.0)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    nodes = [Node(name="node-1"), Node(name="node-2"), Node(name="spot-1", labels={"driftline/spot": "true"})]
    with Cluster(nodes, images={IMAGE}, cwd=REPOSITORY, start_s=0.0) as cluster:
        yield cluster


def settings(folder: Path, **more: str) -> Settings:
    return Settings.from_environment(
        {
            "DRIFTLINE_STATE": str(folder / "state"),
            "DRIFTLINE_ROOT": str(folder / "store"),
            "DRIFTLINE_NAMESPACE": "default",
            "DRIFTLINE_TRAINER_IMAGE": IMAGE,
            **more,
        }
    )


def run(
    cluster: Cluster,
    folder: Path,
    *ends: str,
    profile: StepProfile = SMALL,
    token: str = "",
    launcher: type[KubernetesLauncher] = KubernetesLauncher,
    patience_s: float = 20.0,
    raise_on_error: bool = True,
    **more: str,
) -> Any:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": list(ends)}
        result = launcher.run(context=context, module=STEP, extras=extras, profile=profile, work=WORK)
        return dg.MaterializeResult(metadata={"value": result["value"]})

    pods = launcher(
        settings(folder, **more),
        configuration=cluster.client_configuration(token),
        poll_s=0.05,
        patience_s=patience_s,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([waits], resources={"launcher": pods}, instance=instance, raise_on_error=raise_on_error)
        result.lines = [event.message for event in instance.all_logs(result.run_id)]
    return result


def records(folder: Path) -> list[dict[str, Any]]:
    messages = Ledgers(str(folder / "store"), WORK.product).of(ATTEMPTS).records()
    return [record.document() for _, record in reversed(unique_attempts(messages))]


def reasons(folder: Path) -> list[str]:
    return [record["reason"] for record in records(folder)]


def when_ready(folder: Path, act: Callable[[], object], *, count: int = 1) -> threading.Thread:
    """Do something once a step stands waiting, `count` times."""

    def wait() -> None:
        for _ in range(count):
            while not (folder / "ready").exists():
                time.sleep(0.01)
            (folder / "ready").unlink()
            act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def only(cluster: Cluster) -> str:
    (pod,) = (item for item in cluster.pods() if item["status"]["phase"] in ("Pending", "Running"))
    return str(pod["metadata"]["name"])


# A try -----------------------------------------------------------------------------------------------------------


def test_a_step_runs_as_a_pod_and_leaves_its_result_lines_and_record(cluster: Cluster, tmp_path: Path) -> None:
    result = run(cluster, tmp_path, "well")
    assert result.asset_materializations_for_node("waits")[0].metadata["value"].value == 1
    message = "\n".join(result.lines)
    assert "epoch 1 of the double" in message
    assert message.count("a line on stdout") == 1
    (record,) = records(tmp_path)
    assert (record["reason"], record["exit_code"], record["launcher"]) == ("finished", 0, "kubernetes")
    assert (record["node"], record["zone"]) == ("node-1", "zone-a")
    assert cluster.wait(lambda: not cluster.pods())


def test_the_log_of_a_loud_step_is_cut_short_in_the_run_and_its_end_is_known(cluster: Cluster, tmp_path: Path) -> None:
    result = run(cluster, tmp_path, "loud")
    message = "\n".join(result.lines)
    assert "line 100\n" in message
    assert "line 2999" not in message
    assert f"wrote more than {MOST_LINES} lines" in message


def test_a_step_that_writes_100_mb_leaves_a_run_that_can_be_read(cluster: Cluster, tmp_path: Path) -> None:
    result = run(cluster, tmp_path, "flood")
    assert result.asset_materializations_for_node("waits")[0].metadata["value"].value == 1
    long = [line for line in result.lines if "xxx" in line]
    assert {len(line) for line in long} == {LONGEST_LINE + len(" ... (truncated)")}
    assert len(long) == 81
    assert reasons(tmp_path) == ["finished"]
    assert cluster.wait(lambda: not cluster.pods())


@pytest.mark.parametrize("skew_s", [-3_600.0, 86_400.0])
def test_a_cluster_whose_clock_is_wrong_is_understood_by_that_clock(
    cluster: Cluster, tmp_path: Path, skew_s: float
) -> None:
    cluster.store.skew_s = skew_s
    when_ready(tmp_path, lambda: cluster.preempt(only(cluster)))
    run(cluster, tmp_path, "hold", "well")
    preempted, finished = records(tmp_path)
    assert [preempted["reason"], finished["reason"]] == ["preempted", "finished"]
    assert 0 <= preempted["wall_s"] < 300
    assert 0 <= finished["wall_s"] < 300
    nowhere = SMALL.replace(accelerators=1, schedule_timeout_s=0.2)
    with pytest.raises(StepFailure, match="no node had room for it"):
        run(cluster, tmp_path, "well", profile=nowhere)
    (tmp_path / "ready").unlink(missing_ok=True)
    with pytest.raises(BaseException):  # noqa: B017, PT011  # Dagster wraps it in its own
        run(cluster, tmp_path, "hold", launcher=InterruptedLater)
    assert reasons(tmp_path)[3] == "cancelled"
    assert all(record["waited_s"] < 300 for record in records(tmp_path))
    assert not cluster.pods()


def test_a_zone_that_is_not_the_datas_is_warned_of_and_recorded(cluster: Cluster, tmp_path: Path) -> None:
    size = StepProfile(
        name="cpu_small", cores=1, memory_gb=2, usd_per_hour=0.08, priced_on="2026-11-01", data_zone="zone-b"
    )
    result = run(cluster, tmp_path, "well", profile=size)
    assert any("runs in zone zone-a but its data is in zone-b" in line for line in result.lines)
    assert records(tmp_path)[0]["zone"] == "zone-a"


# Failures --------------------------------------------------------------------------------------------------------


LOSSES: dict[str, Callable[[Cluster], object]] = {
    "preempted": lambda cluster: cluster.preempt(only(cluster)),
    "evicted": lambda cluster: cluster.evict(only(cluster)),
    "evicted by a condition alone": lambda cluster: cluster.evict(only(cluster), with_reason=False),
    "node_lost": lambda cluster: cluster.lose_node("node-1"),
    "node_lost, vanished": lambda cluster: cluster.vanish(only(cluster)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_pod_is_replaced(cluster: Cluster, tmp_path: Path, loss: str) -> None:
    when_ready(tmp_path, lambda: LOSSES[loss](cluster))
    result = run(cluster, tmp_path, "hold", "well")
    assert result.asset_materializations_for_node("waits")[0].metadata["value"].value == 2
    first, second = records(tmp_path)
    assert first["reason"] == loss.split(",")[0].split(" ")[0]
    assert first["said"]
    assert second["reason"] == "finished"
    assert first["id"] != second["id"]


def test_memory_is_asked_for_once_more(cluster: Cluster, tmp_path: Path) -> None:
    request = []

    def kill() -> None:
        name = only(cluster)
        request.append(cluster.pod(name)["spec"]["containers"][0]["resources"]["limits"]["memory"])
        cluster.out_of_memory(name)

    when_ready(tmp_path, kill, count=2)
    with pytest.raises(StepFailure, match="it ran out of memory") as problem:
        run(cluster, tmp_path, "hold", "hold")
    assert request == ["2000M", "4000M"]
    assert problem.value.kind == "out_of_memory"
    assert [record["exit_code"] for record in records(tmp_path)] == [137, 137]


def test_spot_losses_end_on_demand(cluster: Cluster, tmp_path: Path) -> None:
    when_ready(tmp_path, lambda: cluster.preempt(only(cluster)), count=LOST.tries)
    run(cluster, tmp_path, *["hold"] * LOST.tries, "well", profile=PROFILES["cpu_spot"])
    result = records(tmp_path)
    assert [record["reason"] for record in result] == ["preempted"] * LOST.tries + ["finished"]
    assert [record["profile"] for record in result] == ["cpu_spot"] * LOST.tries + ["cpu_small"]
    assert [record["usd_per_hour"] for record in result] == [0.03] * LOST.tries + [0.08]


def test_an_own_error_fails_at_once_with_the_steps_last_lines(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(StepFailure) as problem:
        run(cluster, tmp_path, "code")
    assert (problem.value.kind, problem.value.exit_code) == ("code", 1)
    assert "ValueError: the double was told to fail" in (problem.value.description or "")
    assert reasons(tmp_path) == ["code"]
    assert cluster.wait(lambda: not cluster.pods())


def test_no_room_is_told_after_the_profiles_time(cluster: Cluster, tmp_path: Path) -> None:
    size = StepProfile(
        name="gpu",
        cores=1,
        memory_gb=2,
        accelerators=1,
        usd_per_hour=20,
        priced_on="2026-11-01",
        schedule_timeout_s=0.2,
        tolerations=(Toleration(key="nvidia.com/gpu"),),
    )
    with pytest.raises(StepFailure, match=r"no node had room for it: .*Insufficient nvidia\.com/gpu") as problem:
        run(cluster, tmp_path, "well", profile=size)
    assert problem.value.kind == "unschedulable"
    (record,) = records(tmp_path)
    assert (record["wall_s"], record["cost_usd"]) == (0, 0)
    assert not cluster.pods()


def test_an_image_that_does_not_exist_is_told_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubelet.images.remove(IMAGE)
    with pytest.raises(StepFailure, match="its image could not be pulled"):
        run(cluster, tmp_path, "well")
    assert set(reasons(tmp_path)) == {"image"}
    assert not cluster.pods()


def test_init_and_admission_are_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    cluster.init_failure()
    run(cluster, tmp_path, "well")
    assert reasons(tmp_path) == ["init", "finished"]
    cluster.refuse_admission()
    cluster.refuse_creation()
    result = run(cluster, tmp_path, "well")
    assert reasons(tmp_path)[2:] == ["admission", "finished"]
    assert any("exceeded quota" in line and "waiting 1 s for the quota at most" in line for line in result.lines)


def test_a_step_that_never_ends_is_ended_by_its_deadline(cluster: Cluster, tmp_path: Path) -> None:
    size = StepProfile(
        name="cpu_small", cores=1, memory_gb=2, usd_per_hour=1, priced_on="2026-11-01", deadline_s=31, grace_s=30
    )
    when_ready(tmp_path, lambda: cluster.end_with(only(cluster), "deadline"))
    with pytest.raises(StepFailure, match="it exceeded its deadline") as problem:
        run(cluster, tmp_path, "hold", profile=size)
    assert problem.value.kind == "deadline"


# The API in trouble ------------------------------------------------------------------------------------------------


def test_trouble_that_passes_costs_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    cluster.fail_requests(500, verb="create", is_done=True)
    cluster.fail_requests(429, verb="get")
    cluster.cut_log(30)
    when_ready(tmp_path, lambda: (cluster.silence(0.6, refuses=True), (tmp_path / "go").touch()))
    result = run(cluster, tmp_path, "hold")
    assert reasons(tmp_path) == ["finished"]
    assert "\n".join(result.lines).count("a line on stdout") == 1
    assert any("retrying in" in line for line in result.lines)
    assert (tmp_path / "starts").read_text(encoding="utf-8").count("\n") == 1


def test_an_api_that_says_nothing_for_a_minute_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    when_ready(tmp_path, lambda: (cluster.silence(60), (tmp_path / "go").touch()))
    result = run(cluster, tmp_path, "hold", patience_s=300)
    assert reasons(tmp_path) == ["finished"]
    assert any("the Kubernetes API did not answer" in line and "retrying in" in line for line in result.lines)
    assert (tmp_path / "starts").read_text(encoding="utf-8").count("\n") == 1
    assert cluster.wait(lambda: not cluster.pods())


def test_a_forbidden_namespace_is_admission_and_final(tmp_path: Path) -> None:
    tokens = {"guest": Access(namespaces=("elsewhere",))}
    with Cluster(namespaces=("default", "elsewhere"), tokens=tokens) as cluster:
        with pytest.raises(StepFailure, match="403 Forbidden: pods is forbidden") as problem:
            run(cluster, tmp_path, "well", token="guest")
        assert problem.value.kind == "admission"
        assert reasons(tmp_path) == ["admission"]


def test_an_expired_token_leaves_the_pod_to_whoever_comes_next(cluster: Cluster, tmp_path: Path) -> None:
    cluster.tokens["short"] = Access()
    when_ready(tmp_path, lambda: cluster.tokens.pop("short"))
    with pytest.raises(Unattended, match=r"401 Unauthorized.* may be at work and is left alone"):
        run(cluster, tmp_path, "hold", "well", token="short")
    assert reasons(tmp_path) == ["under_way"]
    (tmp_path / "go").touch()
    run(cluster, tmp_path, "hold", "well")
    assert reasons(tmp_path) == ["finished"]
    assert (tmp_path / "starts").read_text(encoding="utf-8").count("\n") == 1


CONFLICT = ApiProblem(
    409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "team"', {"kind": "resourcequotas"}
)


def test_a_quota_that_is_being_changed_costs_one_attempt_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    cluster.api.failures.append([3, "create", CONFLICT, False])
    run(cluster, tmp_path, "well")
    assert reasons(tmp_path) == ["finished"]


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("code", [500, 504, 0])
def test_a_creation_that_nobody_answers_is_not_final_and_its_pod_is_found_again(
    cluster: Cluster, tmp_path: Path, code: int, is_done: bool
) -> None:
    cluster.fail_requests(code, count=1, verb="create", is_done=is_done)
    cluster.fail_requests(code, count=1000, verb="create")
    with pytest.raises(Unattended, match=r"Pod driftline-tiny-train-.* may be at work and is left alone"):
        run(cluster, tmp_path, "hold", "well", patience_s=1.0)
    assert reasons(tmp_path) == ["under_way"]
    cluster.api.failures.clear()
    if is_done:
        (tmp_path / "go").touch()
        run(cluster, tmp_path, "hold", "well")
        assert reasons(tmp_path) == ["finished"]
        assert len(cluster.journal.entries()) == 1
    else:
        run(cluster, tmp_path, "well")
        assert reasons(tmp_path) == ["node_lost", "finished"]
        assert records(tmp_path)[0]["wall_s"] == 0
    assert cluster.wait(lambda: not cluster.pods())


def test_conflicts_beyond_patience_are_a_refusal_that_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    cluster.api.failures.append([2, "create", CONFLICT, False])
    run(cluster, tmp_path, "well", patience_s=0.1)
    assert reasons(tmp_path) == ["admission", "admission", "finished"]


def test_a_pod_of_that_name_that_is_not_ours_is_named_and_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    class Squatted(KubernetesLauncher):
        def attempt(self, this: Any) -> Any:
            messages = this.session.get_bootstrap_env_vars()
            other = pod_of(self.settings, _pod_name(this.launch), this.module, this.plan, this.launch, messages)
            other["metadata"]["labels"]["driftline/attempt"] = "b2"
            cluster.api.create_pod("default", other)
            return super().attempt(this)

    with pytest.raises(StepFailure, match="belongs to attempt b2, not to attempt") as problem:
        run(cluster, tmp_path, "well", launcher=Squatted)
    assert problem.value.kind == "admission"
    assert reasons(tmp_path) == ["admission"]
    assert len(cluster.pods()) == 1


def test_no_step_begins_while_nobody_says_whether_one_is_at_work(cluster: Cluster, tmp_path: Path) -> None:
    cluster.fail_requests(503, count=1000, verb="list")
    with pytest.raises(Unattended, match="No pod was started"):
        run(cluster, tmp_path, "well", patience_s=0.5)
    assert records(tmp_path) == []
    assert not cluster.pods()


def test_a_run_that_is_cancelled_while_it_creates_leaves_no_pod(cluster: Cluster, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt(line)

    class CancelledLater(KubernetesLauncher):
        def _create(self, *asked: Any) -> Any:
            self.api.log = interrupt
            return super()._create(*asked)

    cluster.fail_requests(500, verb="create", is_done=True)
    with pytest.raises(BaseException):  # noqa: B017, PT011  # Dagster wraps it in its own
        run(cluster, tmp_path, "hold", launcher=CancelledLater)
    assert reasons(tmp_path) == ["cancelled"]
    assert not cluster.pods()


# Runs that end before their pod --------------------------------------------------------------------------------------


class InterruptedLater(KubernetesLauncher):
    """Is interrupted once its step stands waiting and was looked at."""

    def _note_node(self, *arguments: Any) -> None:
        if (Path(self.settings.root).parent / "ready").exists():
            raise KeyboardInterrupt


class Interrupted(KubernetesLauncher):
    """Is interrupted once its step stands waiting."""

    def _watch(self, name: str, *rest: Any) -> Any:
        folder = Path(self.settings.root).parent
        while not (folder / "ready").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt


def test_a_cancelled_run_ends_its_pod_after_a_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(BaseException) as problem:  # noqa: PT011  # Dagster wraps it in its own
        run(cluster, tmp_path, "hold", launcher=Interrupted)
    assert "KeyboardInterrupt" in repr(problem.value) or isinstance(problem.value, KeyboardInterrupt)
    assert (tmp_path / "saved").exists()
    assert not cluster.pods()
    (record,) = records(tmp_path)
    assert record["reason"] == "cancelled"


DRIVER = """
import sys
from pathlib import Path
from kubernetes import client
from tests.resources.test_kubernetes import run
class Known:
    def client_configuration(self, token):
        configuration = client.Configuration(host=sys.argv[2])
        configuration.api_key = {"BearerToken": "Bearer " + sys.argv[3]}
        return configuration
run(Known(), Path(sys.argv[1]), "hold")
"""


def test_a_replaced_run_goes_on_watching_the_pod(cluster: Cluster, tmp_path: Path) -> None:
    token = next(iter(cluster.tokens))
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address, token], cwd=REPOSITORY)
    cluster.wait(lambda: (tmp_path / "ready").exists())
    driver.kill()
    driver.wait()
    name = only(cluster)
    threading.Timer(0.5, (tmp_path / "go").touch).start()
    result = run(cluster, tmp_path, "hold")
    assert result.asset_materializations_for_node("waits")[0].metadata["value"].value == 1
    assert any(f"pod {name} of run" in line and "watching it from now on" in line for line in result.lines)
    assert reasons(tmp_path) == ["finished"]
    assert [entry["name"] for entry in cluster.journal.entries()] == [name]


class LateLauncher(KubernetesLauncher):
    """Looks at its pod for the second time when that is gone."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{**more, "poll_s": 3.0})


def test_a_step_that_had_reported_its_result_has_finished_though_its_pod_is_gone(
    cluster: Cluster, tmp_path: Path
) -> None:
    def finish() -> None:
        name = only(cluster)
        time.sleep(0.2)
        (tmp_path / "go").touch()
        cluster.wait_for_phase(name, "Succeeded")
        cluster.vanish(name)

    when_ready(tmp_path, finish)
    result = run(cluster, tmp_path, "hold", launcher=LateLauncher)
    assert result.asset_materializations_for_node("waits")[0].metadata["value"].value == 1
    (record,) = records(tmp_path)
    assert record["reason"] == "finished"
    assert "ended with exit code 0" in record["said"], "the watch saw it"


def test_an_attempt_that_nobody_saw_end_is_settled_by_the_next_run(cluster: Cluster, tmp_path: Path) -> None:
    token = next(iter(cluster.tokens))
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address, token], cwd=REPOSITORY)
    cluster.wait(lambda: (tmp_path / "ready").exists())
    driver.kill()
    driver.wait()
    assert reasons(tmp_path) == ["under_way"]
    cluster.vanish(only(cluster))
    run(cluster, tmp_path, "hold", "well")
    assert reasons(tmp_path) == ["node_lost", "finished"]
    assert "nobody watched it" in records(tmp_path)[0]["said"]


# The libraries of a training's fingerprint ------------------------------------------------------------------------


def test_the_fingerprint_names_the_versions_that_the_setting_says_or_else_the_image(tmp_path: Path) -> None:
    here = libraries.as_text(libraries.installed())
    named = KubernetesLauncher(settings(tmp_path, DRIFTLINE_TRAINER_LIBRARIES=here), configuration=NOWHERE)
    assert named.libraries() == libraries.installed()
    assert KubernetesLauncher(settings(tmp_path), configuration=NOWHERE).libraries() == {libraries.IMAGE: IMAGE}


@pytest.mark.parametrize("told", ["torch", "torch=2.13 numpy", "image=trainer@sha256:1", "torch=2.13 ruff=1.0"])
def test_a_setting_that_is_no_label_is_refused_before_anything_starts(tmp_path: Path, told: str) -> None:
    with pytest.raises(SettingsProblem, match=rf"DRIFTLINE_TRAINER_LIBRARIES is '{told}'; expected NAME=VERSION"):
        KubernetesLauncher(settings(tmp_path, DRIFTLINE_TRAINER_LIBRARIES=told), configuration=NOWHERE)


def test_a_step_refuses_a_setting_that_is_not_true_before_it_works(cluster: Cluster, tmp_path: Path) -> None:
    messages = settings(tmp_path, DRIFTLINE_TRAINER_LIBRARIES="torch=1.0")
    pods = KubernetesLauncher(messages, configuration=cluster.client_configuration(), poll_s=0.05)
    spec = specs.load("flight_delays")
    how = {"device": "cpu", "precision": "float32", "training_keys": [], "holdout_keys": []}
    data = {"features": dict[str, str](), "outcomes": dict[str, str]()}
    job = Job(product=spec.name, cutoff="2013-07-01", fingerprint="f" * 64, **how, **data)

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> None:
        extras = instructions.to_extras(job, Learning.of(spec), launcher.libraries())
        launcher.run(context=context, module="platform_assets.steps.train", extras=extras, profile=SMALL)

    sentence = r"libraries of this step differ from those .* torch \S+ \(expected 1\.0\)"
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(StepFailure, match=sentence):
        dg.materialize([waits], resources={"launcher": pods}, instance=instance)
    assert not (tmp_path / "store" / "ledgers").exists(), "no lease was taken"
