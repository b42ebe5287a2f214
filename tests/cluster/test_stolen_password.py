"""What the password of Dagster's database leads to: rows in the queue of a real daemon, and no pod with our secrets.

The rows are inserted as they are, past every webserver and the coordinator.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import CustomPointer, ModuleCodePointer
from dagster._core.storage.dagster_run import RunRecord
from kubernetes import client

from platform_assets.base import accounts, naming
from tests.cluster import loop, names, platform_images
from tests.cluster.cluster import Cluster
from tests.cluster.platform import NAMESPACE, Images, Platform
from tests.cluster.waiting import wait_until
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import live_parts
from tests.doubles.rows import row
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

ENDED_S = 300.0
RETRAIN, VERIFY = (naming.job(verb, live_parts.SPEC.name) for verb in ("retrain", "verify"))
SIGNING = {
    "container_config": {"env_from": [{"secret_ref": {"name": "driftline-signing"}}]},
    "pod_spec_config": {"service_account_name": "driftline-retrain"},
}
SHELL = ["sh", "-c", "env; sleep 600; exit $#", "sh"]
"""An entry point, after which Dagster's own words are arguments."""


@pytest.fixture(scope="module")
def images(cluster: Cluster, repository: Path) -> Images:
    return platform_images.pushed_platform(cluster, repository, live_parts)


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, images: Images, s3: S3Server, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """The platform at work, with a signing key."""
    folder = tmp_path_factory.mktemp("platform")
    with cluster.network():
        names.serve_names(cluster, folder)
        with loop.at_work(cluster, images, s3, postgres, folder) as platform:
            for name in ("driftline-signing", accounts.OTHER_RUNS):
                data = {"DRIFTLINE_SIGNING_KEY": "planted"} if name == "driftline-signing" else {}
                cluster.core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": name}, "stringData": data})
            yield platform


@pytest.fixture
def stolen(
    platform: Platform, postgres: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Dagster's database, opened by whoever has the password."""
    for name, value in postgres.environment().items():
        monkeypatch.setenv(name, value)
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    content = {"storage": yaml.safe_load(file.read_text(encoding="utf-8"))["storage"], "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with platform.cluster.network(), dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    def look() -> dg.DagsterRunStatus | None:
        record = instance.get_run_record_by_id(run.run_id)
        assert isinstance(record, RunRecord)
        return record.dagster_run.status if record.dagster_run.is_finished else None

    wait_until(lambda: look() is not None, ENDED_S, f"{run.job_name} has ended", lambda: said(instance, run)[-2000:])
    status = look()
    assert status is not None
    return status


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return what the run's page shows."""
    return "\n".join(f"{entry.message} {entry.dagster_event}" for entry in instance.all_logs(run.run_id))


def pods_of(platform: Platform, run: dg.DagsterRun) -> list[Any]:
    selector = f"dagster/run-id={run.run_id}"
    return list(platform.cluster.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items)


def own(job: str, **claims: Any) -> dg.DagsterRun:
    """Return a row as our code server writes it, but for its claims; the executable is that of the image."""
    return row(job, **{"executable_path": "/opt/venv/bin/python", **claims})


CLAIMS: dict[str, Callable[[], dg.DagsterRun]] = {
    "account and secret in tags": lambda: own(RETRAIN, tags={"dagster-k8s/config": json.dumps(SIGNING)}),
    "command": lambda: own(RETRAIN, entry_point=SHELL),
    "code": lambda: own("__ASSET_JOB", code_pointer=CustomPointer(ModuleCodePointer("os", "system"), ("env",), ())),
    "image": lambda: own(RETRAIN, image="evil.example/tool@sha256:" + "0" * 64),
    "context": lambda: own(RETRAIN, container_context={"k8s": {"env_secrets": ["driftline-signing"]}}),
    "the key as a config's value": lambda: own(
        naming.job("release", live_parts.SPEC.name),
        run_config={"ops": {"release": {"config": {"override": {"env": "DRIFTLINE_SIGNING_KEY"}}}}},
    ),
    "another job with the key": lambda: row(
        "theirs", location="theirs", entry_point=SHELL, tags={"dagster-k8s/config": json.dumps(SIGNING)}
    ),
}


@pytest.mark.parametrize("claim", list(CLAIMS))
def test_a_row_that_says_what_its_pod_may_do_starts_none(
    platform: Platform, stolen: dg.DagsterInstance, claim: str
) -> None:
    run = CLAIMS[claim]()
    stolen.add_run(run)
    assert ended(stolen, run) is dg.DagsterRunStatus.FAILURE
    text = said(stolen, run)
    assert "RunRefused" in text and f"run {run.run_id} of {run.job_name}" in text, text[:4000]
    assert pods_of(platform, run) == []
    jobs = client.BatchV1Api(platform.cluster.api).list_namespaced_job(NAMESPACE).items
    assert run.run_id not in " ".join(job.metadata.name for job in jobs)


def test_another_jobs_row_gets_a_pod_without_anything_of_ours(
    platform: Platform, images: Images, stolen: dg.DagsterInstance
) -> None:
    account = {"pod_spec_config": {"service_account_name": "driftline-retrain"}}
    tags = {"dagster-k8s/config": json.dumps(account)}
    run = row("theirs", location="theirs", image=images.platform, entry_point=SHELL, tags=tags)
    stolen.add_run(run)
    wait_until(lambda: [pod.status.phase for pod in pods_of(platform, run)] == ["Running"], ENDED_S, "it runs")
    (pod,) = pods_of(platform, run)
    assert pod.spec.service_account_name == accounts.OTHER_RUNS
    core = platform.cluster.core
    wait_until(lambda: "HOME=" in core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE), 60, "it prints")
    variables = core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE)
    assert [name for name in ("SIGNING_KEY", "SECRET_ACCESS_KEY", "PG_PASSWORD") if name in variables] == []
    assert not any(volume.projected for volume in pod.spec.volumes), "no token"
    client.BatchV1Api(platform.cluster.api).delete_namespaced_job(
        f"dagster-run-{run.run_id}", NAMESPACE, propagation_policy="Background"
    )


def test_a_row_as_our_code_server_writes_it_is_executed(platform: Platform, stolen: dg.DagsterInstance) -> None:
    run = own(VERIFY)
    stolen.add_run(run)
    wait_until(
        lambda: [pod.status.phase for pod in pods_of(platform, run)] in (["Succeeded"], ["Failed"]),
        ENDED_S,
        "its pod has ended",
        platform.described,
    )
    (pod,) = pods_of(platform, run)
    log = platform.kubectl("logs", pod.metadata.name)
    assert ended(stolen, run) is dg.DagsterRunStatus.SUCCESS, log[-3000:]


def test_the_read_only_webserver_reads_with_a_user_that_cannot_write(
    platform: Platform, stolen: dg.DagsterInstance
) -> None:
    deployment = platform.start_read_only()
    run = row(VERIFY, location="nowhere", status=dg.DagsterRunStatus.SUCCESS)
    stolen.add_run(run)
    asking = """
import json, os, socket, urllib.request
from platform_assets.instance.run_launcher import SERVICE_TOKEN_FILENAME
body = json.dumps({"query": "{ runsOrError { ... on Runs { results { runId } } }"
  " repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name } } } } }"}).encode()
request = urllib.request.Request("http://127.0.0.1:3000/graphql", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request).read().decode())
print("token", os.path.exists(SERVICE_TOKEN_FILENAME))
try:
    socket.create_connection(("driftline-code", 4000), 5).close()
    print("the code server answers")
except OSError as problem:
    print("code server:", type(problem).__name__)
import dagster as dg
with dg.DagsterInstance.get() as instance:
    try:
        instance.add_run(dg.DagsterRun("evil"))
    except Exception as problem:
        print("refused", type(problem.__cause__ or problem).__name__, problem)
"""
    text = platform.kubectl("exec", f"deployment/{deployment}", "--", "python", "-c", asking)
    assert run.run_id in text
    assert "token False" in text
    assert "code server: TimeoutError" in text, "it would start runs, and open databases with its own password"
    assert VERIFY in text, "the products' jobs are shown"
    assert "refused" in text and ("permission denied" in text or "read-only transaction" in text)
    assert not stolen.get_runs(dg.RunsFilter(job_name="evil"))
