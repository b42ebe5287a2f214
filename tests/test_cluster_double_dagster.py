"""The double of a Kubernetes cluster, used by dagster_k8s as it is.

Dagster reads the annotations of ops and assets, so they are not postponed here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.doubles.cluster.cluster import Cluster

REPOSITORY = Path(__file__).resolve().parents[1]
META = {"labels": {"driftline/step": "train"}}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    paths = {"PYTHONPATH": str(REPOSITORY), "DRIFTLINE_ROOT": "/nowhere"}
    with Cluster(environment=paths, cwd=REPOSITORY, start_s=0.02) as cluster:
        yield cluster


def run_by_pipes(cluster: Cluster, folder: Path, ends: list[str]) -> Any:
    """Run the double of a step by PipesK8sClient and return its custom messages."""
    from dagster_k8s import PipesK8sClient

    pipes = PipesK8sClient(kubeconfig_file=str(cluster.kubeconfig(folder / "kubeconfig")), poll_interval=0.1)
    messages: list[Any] = []

    @dg.asset
    def stepped(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        done = pipes.run(
            context=context.op_execution_context,
            image="trainer:1",
            namespace="default",
            command=["python", "-m", "tests.doubles.step"],
            extras={"folder": str(folder), "ends": ends},
            base_pod_meta=META,
        )
        messages.extend(done.get_custom_messages())
        return done.get_materialize_result()

    assert dg.materialize([stepped], raise_on_error=True).success
    return messages


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_pipes_runs_a_step_to_its_end_and_reads_its_messages_from_the_log(cluster: Cluster, tmp_path: Path) -> None:
    messages = run_by_pipes(cluster, tmp_path, ["result"])
    assert messages[-1] == {"kind": "result", "value": 1, "root": "/nowhere"}
    (entry,) = cluster.journal.entries()
    assert (entry["cause"], entry["exit_code"], entry["labels"]["driftline/step"]) == ("natural", 0, "train")
    cluster.wait(lambda: not cluster.pods())


def test_pipes_sees_a_step_fail(cluster: Cluster, tmp_path: Path) -> None:
    from dagster_k8s.client import DagsterK8sError

    with pytest.raises(DagsterK8sError, match="the double was told to fail"):
        run_by_pipes(cluster, tmp_path, ["code"])
    assert [entry["exit_code"] for entry in cluster.journal.entries()] == [1]


@dg.op
def shout() -> None:
    dg.get_dagster_logger().info("run in a pod")


@dg.job(executor_def=dg.in_process_executor)
def shouting() -> None:
    shout()


def instance_of(cluster: Cluster, folder: Path) -> dg.DagsterInstance:
    """Return an instance whose runs are jobs of the cluster."""
    home = folder / "home"
    home.mkdir()
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": str(home),
        "job_image": "dagster:1",
        "load_incluster_config": False,
        "kubeconfig_file": str(cluster.kubeconfig(folder / "kubeconfig")),
        "job_namespace": "default",
    }
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}
    import yaml

    (home / "dagster.yaml").write_text(
        yaml.safe_dump({"run_launcher": launcher, "telemetry": {"enabled": False}}), encoding="utf-8"
    )
    return dg.DagsterInstance.from_config(str(home))


def launch(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Launch a run of `shouting`, as the daemon does."""
    from dagster._core.definitions.reconstruct import ReconstructableJob
    from dagster._core.launcher import LaunchRunContext

    origin = ReconstructableJob.for_file(__file__, "shouting").get_python_origin()
    run = instance.create_run_for_job(shouting, job_code_origin=origin)
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run


def test_the_run_launcher_runs_a_run_in_a_job(cluster: Cluster, tmp_path: Path) -> None:
    with instance_of(cluster, tmp_path) as instance:
        run = launch(instance)
        launcher: Any = instance.run_launcher
        cluster.wait(lambda: launcher.check_run_worker_health(run).status.value == "SUCCESS", timeout_s=60)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    (pod,) = cluster.pods(f"dagster/run-id={run.run_id}")
    assert pod["metadata"]["labels"]["job-name"] == f"dagster-run-{run.run_id}"
    assert pod["status"]["phase"] == "Succeeded"


def test_the_run_launcher_sees_a_lost_worker_and_terminates_another(cluster: Cluster, tmp_path: Path) -> None:
    with instance_of(cluster, tmp_path) as instance:
        launcher: Any = instance.run_launcher
        lost, ended = launch(instance), launch(instance)
        (pod,) = cluster.wait(lambda: cluster.pods(f"dagster/run-id={lost.run_id}", "status.phase=Running"))
        cluster.kill(pod["metadata"]["name"])
        cluster.wait(lambda: launcher.check_run_worker_health(lost).status.value == "FAILED")
        assert "container 'dagster'" in launcher.get_run_worker_debug_info(lost)
        assert launcher.terminate(ended.run_id)
        cluster.wait(lambda: not cluster.pods(f"dagster/run-id={ended.run_id}"))
