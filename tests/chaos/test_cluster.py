"""A whole retrain on the cluster environment: files land on S3, and Dagster's daemon does the rest.

What is real: the S3 server, PostgreSQL, the daemon with every sensor, `deploy/dagster/cluster/dagster.yaml`, the run
launcher, the steps, the Bento. What is a double: Kubernetes, whose pods are processes of this machine. While the
training is at work its pod is preempted twice and killed for memory once; every test below reads what one fixture did.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from logging import ERROR
from pathlib import Path
from typing import Any

import dagster as dg
import obstore
import pytest

from platform_assets import naming
from platform_assets.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.objects import open_store
from platform_assets.storage.tables import TableStore
from resources.launchers.step_pod import FACTS
from tests.doubles import cluster_environment as environment
from tests.doubles import documents, postgres_server, s3_server
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

pytestmark = pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)

BUCKET, LOGS = "driftline", "driftline-logs"
NAMESPACE, RUN_IMAGE, STEP_IMAGE = "driftline", "driftline:1", "trainer@sha256:" + "0" * 64
SPOT = Node(
    name="spot-1",
    labels={"driftline/spot": "true"},
    taints=({"key": "driftline/spot", "value": "true", "effect": "NoSchedule"},),
    is_spot=True,
)
KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
CUTOFF = SPEC.grain.shift(KEYS[-1], 1)
ADVANCE, RETRAIN = naming.job("advance", SPEC.name), naming.job("retrain", SPEC.name)


@dataclass
class Retrained:
    """What the daemon did, and what was seen of it.

    Attributes:
        root: on S3.
        local_root: of the same product and data, trained on a laptop.
        hit: of each interrupted pod, what it had done by then; in order.
        memory: that each pod of the training asked for, in order.
        runs: of the daemon, the oldest first.
        logs: names of the objects in the bucket of logs.
        left: what still ran at the end: processes, and pods that were not through.
    """

    root: str
    local_root: str
    hit: list[Mapping[str, Any]] = field(default_factory=list)
    memory: dict[str, str] = field(default_factory=dict)
    runs: list[dg.DagsterRun] = field(default_factory=list)
    launcher: str = ""
    logs: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(self.root, SPEC.name)

    def attempts(self, step: str) -> list[Mapping[str, Any]]:
        """Return each attempt at a step once, the oldest first."""
        result = unique_attempts(self.ledgers.of(ATTEMPTS).records())
        return [record.document() for _, record in reversed(result) if record.step == step]


@dataclass(frozen=True)
class Watched:
    """What is waited for, and what tells of it when that never comes."""

    instance: dg.DagsterInstance
    cluster: Cluster
    daemon: environment.Daemon

    def until(self, look: Callable[[], Any]) -> Any:
        """Wait until `look` finds something, and return it; give up at once when a run or the daemon has failed."""
        until = time.monotonic() + environment.PATIENCE_S
        while not (result := look()):
            failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
            logs = [event for run in failed for event in self.instance.all_logs(run.run_id)]
            assert not failed, "\n".join(event.to_json() for event in logs if event.level >= ERROR)[:8000]
            assert self.daemon.is_alive, self.told()
            assert time.monotonic() < until, self.told()
            time.sleep(0.3)
        return result

    def told(self) -> str:
        """Return how far everything has come, and where the daemon and its code servers stand; that ends them."""
        runs = [f"{run.job_name} {run.run_id} is {run.status.value}" for run in self.instance.get_runs()]
        pods = [f"{pod['metadata']['name']}: {json.dumps(pod['status'])}" for pod in self.cluster.pods()]
        jobs = [f"{job['metadata']['name']}: {json.dumps(job['status'])}" for job in self.cluster.store.every("jobs")]
        return "\n".join(["", *(runs or ["no run"]), *jobs, *(pods or ["no pod"]), self.daemon.last_words()])


@pytest.fixture(scope="module")
def retrained(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, request: pytest.FixtureRequest
) -> Iterator[Retrained]:
    path = tmp_path_factory.mktemp("cluster")
    checkout = environment.checkout(repository, path / "checkout", slow_batches)
    (path / "slow").touch()
    with ExitStack() as stack:
        (path / "s3").mkdir()
        s3 = stack.enter_context(s3_server.running(path / "s3"))
        for bucket in (BUCKET, LOGS):
            s3.make_bucket(bucket)
        postgres = stack.enter_context(postgres_server.running())
        messages = {
            "DRIFTLINE_ENV": "cluster",
            "DRIFTLINE_ROOT": f"s3://{BUCKET}/root",
            "DRIFTLINE_STATE": str(path / "state"),
            "DRIFTLINE_LOGS_BUCKET": LOGS,
            "DRIFTLINE_NAMESPACE": NAMESPACE,
            "DRIFTLINE_IMAGE": RUN_IMAGE,
            "DRIFTLINE_TRAINER_IMAGE": STEP_IMAGE,
            "DRIFTLINE_STEP_SECRET": "driftline",
            "DAGSTER_HOME": str(path / "home"),
            "BENTOML_DO_NOT_TRACK": "true",
            "KUBECONFIG": str(path / "kubeconfig"),
        }
        values = {**s3.environment(), **postgres.environment()}
        secret = {name: values.pop(name) for name in list(values) if "PASSWORD" in name or "KEY" in name}
        config = {**messages, **values}
        of_the_double = {"PYTHONPATH": str(checkout), slow_batches.SLOW_WHILE: str(path / "slow")}
        cluster = stack.enter_context(
            Cluster(
                [Node(name="node-1"), SPOT],
                namespaces=[NAMESPACE],
                images={RUN_IMAGE, STEP_IMAGE},
                secrets={"driftline": {**config, **secret}},
                environment=of_the_double,
                cwd=checkout,
                journal=path / "journal.jsonl",
            )
        )
        cluster.kubeconfig(path / "kubeconfig")
        environment.home(repository, path / "home")
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**config, **secret}.items():
            patch.setenv(name, value)
        # What it was when the library was first imported.
        patch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", messages["KUBECONFIG"])
        result = Retrained(root=messages["DRIFTLINE_ROOT"], local_root=str(path / "laptop" / "store"))
        environment.land(result.root, slow_batches.files())
        environment.land(result.local_root, slow_batches.files())
        with dg.DagsterInstance.get() as instance:
            result.launcher = type(instance.run_launcher).__name__
            with environment.daemon(checkout, path / "daemon.log") as daemon:
                observed = Watched(instance, cluster, daemon)
                observed.until(lambda: cluster.pods("driftline/step=train"))
                with environment.training_on_a_laptop(checkout, path, SPEC.name, KEYS[0], KEYS[-1], CUTOFF):
                    _interrupt(result, observed)
                    (path / "slow").unlink()
                observed.until(lambda: _is_over(instance))
            result.runs = list(reversed(instance.get_runs()))
        result.logs = [item["path"] for batch in obstore.list(open_store(f"s3://{LOGS}")) for item in batch]
        result.left = [*environment.under_way(cluster), *environment.processes_of(checkout)]
        result.journal = cluster.journal.entries()
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("", *_log(result), sep="\n")
        yield result


def _interrupt(found: Retrained, seen: Watched) -> None:
    """End the training's pod three times, each time once it has come further than what it went on from."""
    cluster = seen.cluster
    for fault in (cluster.preempt, cluster.preempt, cluster.out_of_memory):
        name, progress = seen.until(lambda: _at_work(found, cluster))
        assert fault(name)
        found.hit.append(progress)


def _at_work(found: Retrained, cluster: Cluster) -> tuple[str, Mapping[str, Any]] | None:
    """Return the pod of a training that is under way, and what it last said of itself."""
    hit = {item["id"] for item in found.hit}
    for pod in cluster.pods("driftline/step=train", "status.phase=Running"):
        facts = json.loads(pod["metadata"]["annotations"][FACTS])
        found.memory[facts["id"]] = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
        ledger = f"{naming.LEASES}/{facts['fingerprint']}"
        progress = found.ledgers.read(ledger, f"{found.ledgers.newest_number(ledger)}.progress") or {}
        is_further = progress.get("steps_done", 0) > progress.get("resumed_from_step", 0)
        if progress.get("id") == facts["id"] not in hit and is_further:
            return pod["metadata"]["name"], progress
    return None


def _is_over(instance: dg.DagsterInstance) -> bool:
    (run,) = instance.get_runs(dg.RunsFilter(job_name=RETRAIN))
    return run.is_finished


def _log(found: Retrained) -> list[str]:
    """Return the whole retrain in lines for a reader."""
    decision = found.ledgers.read(naming.DECISIONS, KEYS[-1]) or {}
    _, release = found.ledgers.latest(naming.RELEASES) or (0, {})
    tries = [
        f"{attempt['started_at_utc'][11:19]} to {attempt['ended_at_utc'][11:19]}  {step} {attempt['reason']}, "
        f"exit code {attempt['exit_code']}, {attempt['memory_gb']} GB on {attempt['node']}, from step "
        f"{attempt['resumed_from_step']} to {attempt['steps_done']}, {attempt['steps_lost']} lost, "
        f"{attempt['cost_usd']:.6f} USD: {attempt['said']}"
        for step in ("train", "export")
        for attempt in found.attempts(step)
    ]
    return [
        *(f"{run.job_name} by sensor {run.tags['dagster/sensor_name']}: {run.status.value}" for run in found.runs),
        f"decision for {KEYS[-1]}: {decision.get('action')}. {' '.join(decision.get('reasons', []))}",
        *tries,
        f"release of cutoff {release.get('cutoff')}: {release.get('outcome')}; bundle {_bundle(found.root)}",
        f"the same training on a laptop: bundle {_bundle(found.local_root)}",
    ]


def _bundle(root: str) -> str:
    return TableStore(root, SPEC.name).records("onnx", [CUTOFF])[CUTOFF].content_digest


# What happened -------------------------------------------------------------------------------------------------------


def test_the_daemon_closed_the_keys_and_retrained_by_decision(retrained: Retrained) -> None:
    assert retrained.launcher == "K8sRunLauncher"
    assert [(run.job_name, run.status.value) for run in retrained.runs] == [(ADVANCE, "SUCCESS"), (RETRAIN, "SUCCESS")]
    assert [run.tags["dagster/sensor_name"] for run in retrained.runs] == ["landings", "retrain"]
    decision = retrained.ledgers.read(naming.DECISIONS, KEYS[-1])
    assert decision is not None
    assert (decision["action"], decision["cutoff"]) == ("retrain", CUTOFF)


def test_each_run_was_one_pod_and_each_try_at_a_step_another(retrained: Retrained) -> None:
    causes = [(item["labels"].get("driftline/step", "run"), item["cause"]) for item in retrained.journal]
    assert sorted(causes) == [
        ("export", "natural"),
        ("run", "natural"),
        ("run", "natural"),
        ("train", "natural"),
        ("train", "out_of_memory"),
        ("train", "preempted"),
        ("train", "preempted"),
    ]


def test_the_ledger_tells_of_every_try_why_it_ended(retrained: Retrained) -> None:
    tries = retrained.attempts("train")
    assert [item["reason"] for item in tries] == ["preempted", "preempted", "out_of_memory", "finished"]
    assert {(item["by"], item["launcher"], item["profile"]) for item in tries} == {
        ("launcher", "kubernetes", "cpu_spot")
    }
    assert [item["exit_code"] for item in tries] == [143, 143, 137, 0]
    assert {item["node"] for item in tries} == {"spot-1"}
    assert [item["reason"] for item in retrained.attempts("export")] == ["finished"]


def test_each_try_went_on_from_what_was_saved(retrained: Retrained) -> None:
    tries = retrained.attempts("train")
    assert tries[0]["resumed_from_step"] == 0
    for before, after in pairwise(tries):
        assert after["resumed_from_step"] == before["steps_saved"] > 0
    for hit, trie in zip(retrained.hit, tries, strict=False):
        assert trie["id"] == hit["id"]
        assert trie["steps_done"] >= hit["steps_done"] > trie["resumed_from_step"]
    assert [trie["steps_lost"] == 0 for trie in tries] == [True, True, False, True]
    assert tries[-1]["steps_done"] == SPEC.training.epochs * 4


def test_after_out_of_memory_more_was_asked_for(retrained: Retrained) -> None:
    tries = retrained.attempts("train")
    assert [item["memory_gb"] for item in tries] == [4, 4, 4, 8]
    assert [retrained.memory[item["id"]] for item in tries[:3]] == ["4000M"] * 3


def test_the_model_is_judged_served_and_released(retrained: Retrained) -> None:
    number, release = retrained.ledgers.latest(naming.RELEASES) or (0, {})
    assert (number, release["cutoff"], release["outcome"], release["by"]) == (1, CUTOFF, "released", "retrain")
    verdict = retrained.ledgers.read(naming.VERDICTS, documents.live_digest(release))
    assert verdict is not None and verdict["passed"], verdict
    assert documents.live_digest(release) == _bundle(retrained.root)


def test_the_bundle_is_that_of_a_laptop(retrained: Retrained) -> None:
    digest = _bundle(retrained.root)
    assert digest == _bundle(retrained.local_root)
    ArtifactStore(retrained.root).bundle(digest)


def test_what_runs_print_lies_in_s3(retrained: Retrained) -> None:
    told_of = {path.split("/storage/")[1].split("/")[0] for path in retrained.logs}
    assert told_of == {"__repository__", *(run.run_id for run in retrained.runs)}, "the sensors' own, and of each run"
    assert all(path.startswith("compute_logs/") for path in retrained.logs)


def test_nothing_is_left_running(retrained: Retrained) -> None:
    assert retrained.left == []
