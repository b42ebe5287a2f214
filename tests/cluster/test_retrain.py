"""A whole retrain on the cluster environment: files land on S3, and Dagster's daemon does the rest.

S3 server, PostgreSQL, daemon with every sensor, `deploy/kubernetes/base/dagster.yaml` but for its run launcher, nodes,
pods of steps and the Bento are real. Daemon and runs are processes outside of the nodes; `test_loop.py` runs them
as pods. While the training is at work its pod is deleted twice and killed for memory once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from logging import ERROR
from pathlib import Path
from typing import Any

import dagster as dg
import obstore
import pytest

from platform_assets.base import naming
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.store.tables import TableStore
from tests.cluster.cluster import Cluster
from tests.cluster.killing import Killer, set_slow
from tests.cluster.node import Node
from tests.cluster.step_runs import StepRuns
from tests.doubles import cluster_environment as environment
from tests.doubles import documents
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

LOGS = "driftline-logs"
KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
CUTOFF = SPEC.grain.shift(KEYS[-1], 1)
ADVANCE, RETRAIN = naming.job("advance", SPEC.name), naming.job("retrain", SPEC.name)
WAYS = ("deleted", "deleted", "out of memory")


@dataclass(frozen=True)
class Watched:
    """A daemon at work, and its instance."""

    instance: dg.DagsterInstance
    runs: StepRuns
    daemon: environment.Daemon

    def until(self, look: Callable[[], Any]) -> None:
        """Wait until `look` finds something; give up at once when a run or the daemon has failed."""
        until = time.monotonic() + environment.PATIENCE_S
        while not look():
            failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
            logs = [event for run in failed for event in self.instance.all_logs(run.run_id)]
            assert not failed, "\n".join(event.to_json() for event in logs if event.level >= ERROR)[:8000]
            assert self.daemon.is_alive, self.described()
            assert time.monotonic() < until, self.described()
            time.sleep(0.3)

    def described(self) -> str:
        """Return how far everything has come, and where the daemon and its code servers stand; that ends them."""
        runs = [f"{run.job_name} {run.run_id} is {run.status.value}" for run in self.instance.get_runs()]
        pods = self.runs.pods.api.list_namespaced_pod(self.runs.pods.namespace).items
        texts = [self.runs.pods.describe(pod.metadata.name) for pod in pods]
        return "\n".join(["", *(runs or ["no run"]), *(texts or ["no pod"]), self.daemon.last_words()])

    def is_training(self) -> bool:
        """Tell whether there is a pod of a training."""
        api, namespace = self.runs.pods.api, self.runs.pods.namespace
        return bool(api.list_namespaced_pod(namespace, label_selector="driftline/step=train").items)

    def is_over(self) -> bool:
        """Tell whether the retrain has ended."""
        (run,) = self.instance.get_runs(dg.RunsFilter(job_name=RETRAIN))
        return bool(run.is_finished)


@pytest.fixture
def variables(
    runs: StepRuns,
    s3: S3Server,
    postgres: PostgresServer,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, str]]:
    """The environment of daemon and runs, in force in this process too, with Dagster's home made."""
    s3.make_bucket(LOGS)
    environment.home(repository, tmp_path / "home")
    result = {
        **{name: value for name, value in runs.process_environment().items() if name.startswith("DRIFTLINE_")},
        **s3.environment(),
        **postgres.environment(),
        "KUBECONFIG": runs.process_environment()["KUBECONFIG"],
        "DRIFTLINE_ENV": "cluster",
        "DRIFTLINE_IDENTITY_HEADER": "X-Forwarded-User",
        "DRIFTLINE_LOGS_BUCKET": LOGS,
        "DAGSTER_HOME": str(tmp_path / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    for name, value in result.items():
        monkeypatch.setenv(name, value)
    yield result
    s3.remove_bucket(LOGS)


def test_the_daemon_retrains_through_three_ends_of_its_pod_and_releases_the_model_of_a_laptop(
    runs: StepRuns,
    reachable: Cluster,
    machines: list[Node],
    labelled: None,
    variables: dict[str, str],
    repository: Path,
    tmp_path: Path,
) -> None:
    checkout = environment.checkout(repository, tmp_path / "checkout", slow_batches)
    killer = Killer(runs, reachable, {node.name: node for node in machines}, "")
    root, local_root = runs.settings.root, str(tmp_path / "laptop" / "store")
    for place in (root, local_root):
        environment.land(place, slow_batches.files())
    set_slow(runs, "/")
    with dg.DagsterInstance.get() as instance:
        with environment.daemon(checkout, tmp_path / "daemon.log") as daemon:
            watched = Watched(instance, runs, daemon)
            watched.until(watched.is_training)
            with environment.training_on_a_laptop(checkout, tmp_path, SPEC.name, KEYS[0], KEYS[-1], CUTOFF):
                killer.end_all(WAYS)
            watched.until(watched.is_over)
        done = list(reversed(instance.get_runs()))
    _check_runs(done, root)
    _check_attempts(root, killer.hit)
    _check_release(root, local_root)
    _check_logs(done)
    runs.wait_until_empty()
    assert environment.processes_of(checkout) == []


def _check_runs(done: Sequence[dg.DagsterRun], root: str) -> None:
    """The daemon closed the keys and retrained by decision."""
    assert [(run.job_name, run.status.value) for run in done] == [(ADVANCE, "SUCCESS"), (RETRAIN, "SUCCESS")]
    assert [run.tags["dagster/sensor_name"] for run in done] == ["landings", "retrain"]
    decision = Ledgers(root, SPEC.name).read(naming.DECISIONS, KEYS[-1])
    assert decision is not None
    assert (decision["action"], decision["cutoff"]) == ("retrain", CUTOFF)


def _check_attempts(root: str, hit: Sequence[Mapping[str, Any]]) -> None:
    """The ledger has the reason of every attempt, and each went on from what was saved."""
    tries, exports = _attempts(root, "train"), _attempts(root, "export")
    assert [item["reason"] for item in tries] == ["preempted", "preempted", "out_of_memory", "finished"]
    assert {(item["by"], item["launcher"], item["profile"]) for item in tries} == {
        ("launcher", "kubernetes", "cpu_spot")
    }
    assert [item["exit_code"] for item in tries] == [143, 143, 137, 0]
    assert [item["reason"] for item in exports] == ["finished"]
    assert [item["memory_gb"] for item in tries] == [4, 4, 4, 8], "after out of memory more was asked for"
    assert tries[0]["resumed_from_step"] == 0
    for before, after in pairwise(tries):
        assert after["resumed_from_step"] == before["steps_saved"] > 0
    for progress, item in zip(hit, tries, strict=False):
        assert item["id"] == progress["id"]
        assert item["steps_done"] >= progress["steps_done"] > item["resumed_from_step"]
    assert [item["steps_lost"] == 0 for item in tries] == [True, True, False, True]
    assert tries[-1]["steps_done"] == SPEC.training.epochs * 4


def _check_release(root: str, local_root: str) -> None:
    """The model was judged, served and released, and is that of a laptop."""
    ledgers = Ledgers(root, SPEC.name)
    number, release = ledgers.latest(naming.RELEASES) or (0, {})
    assert (number, release["cutoff"], release["outcome"], release["by"]) == (1, CUTOFF, "released", "retrain")
    verdict = ledgers.read(naming.VERDICTS, documents.live_digest(release))
    assert verdict is not None and verdict["passed"], verdict
    digest = _bundle(root)
    assert documents.live_digest(release) == digest == _bundle(local_root)
    ArtifactStore(root).bundle(digest)


def _check_logs(done: Sequence[dg.DagsterRun]) -> None:
    """What the sensors and each run print is on S3."""
    paths = [item["path"] for batch in obstore.list(open_store(f"s3://{LOGS}")) for item in batch]
    assert {path.split("/storage/")[1].split("/")[0] for path in paths} == {
        "__repository__",
        *(run.run_id for run in done),
    }
    assert all(path.startswith("compute_logs/") for path in paths)


def _attempts(root: str, step: str) -> list[Mapping[str, Any]]:
    """Return each attempt at a step once, the oldest first."""
    result = unique_attempts(Ledgers(root, SPEC.name).of(ATTEMPTS).records())
    return [record.document() for _, record in reversed(result) if record.step == step]


def _bundle(root: str) -> str:
    return TableStore(root, SPEC.name).records("onnx", [CUTOFF])[CUTOFF].content_digest
