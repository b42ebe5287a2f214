"""A training that is killed in ten ways goes on from what it saved, and ends with the bytes of one left alone."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from platform_assets.launch.profiles import PROFILES
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.store.tables import TableStore
from tests.cluster.cluster import Cluster
from tests.cluster.killing import Killer, set_slow
from tests.cluster.node import Node
from tests.cluster.step_runs import StepRuns
from tests.doubles import cluster_environment as environment
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

pytestmark = pytest.mark.long

KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
CUTOFF = SPEC.grain.shift(KEYS[-1], 1)
WORDS = (SPEC.name, KEYS[0], KEYS[-1], CUTOFF)


FIRST = {
    "deleted": "preempted",
    "evicted by the API, as a drain does": "preempted",
    "tainted": "preempted",
    "preempted by priority": "preempted",
    "out of memory": "out_of_memory",
}
SECOND = {
    "SIGTERM": "preempted",
    "SIGKILL": "killed",
    "deleted without grace": "preempted",
    "node pressure": "evicted",
    "power cut": "node_lost",
}
"""Two trainings, and the class that the ledger must show for each way, in this order."""
SAVES = ("preempted",)
"""Classes whose step had its time to save."""


@pytest.fixture(scope="module")
def alone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A checkout with the product, and the digests of a training that nothing happens to, in a process."""
    path = tmp_path_factory.mktemp("alone")
    checkout = environment.checkout(repository, path / "checkout", slow_batches)
    environment.land(str(path / "laptop" / "store"), slow_batches.files())
    with environment.training_on_a_laptop(checkout, path, *WORDS):
        pass
    return checkout, digests_of(str(path / "laptop" / "store"))


@pytest.fixture
def priority(reachable: Cluster, namespace: str) -> Iterator[str]:
    """The name of a PriorityClass above that of steps."""
    api = client.SchedulingV1Api(reachable.api)
    api.create_priority_class({"metadata": {"name": namespace}, "value": 1000})
    yield namespace
    api.delete_priority_class(namespace)


@pytest.mark.parametrize("ways", [FIRST, SECOND], ids=["the cluster's ways", "the node's ways"])
def test_a_training_ends_with_the_same_bytes_however_it_is_killed(
    ways: dict[str, str],
    runs: StepRuns,
    reachable: Cluster,
    machines: list[Node],
    labelled: None,
    priority: str,
    alone: tuple[Path, list[str]],
    tmp_path: Path,
) -> None:
    checkout, digests = alone
    killer = Killer(runs, reachable, {node.name: node for node in machines}, priority)
    set_slow(runs, "/")
    environment.land(runs.settings.root, slow_batches.files())
    variables = {name: value for name, value in runs.process_environment().items() if is_passed_on(name)}
    with environment.training(checkout, tmp_path / "run", variables, *WORDS):
        killer.end_all(list(ways))
    assert digests_of(runs.settings.root) == digests
    attempts = attempts_of(runs.settings.root)
    assert [attempt["reason"] for attempt in attempts] == [*ways.values(), "finished"]
    for hit, attempt in zip(killer.hit, attempts, strict=False):
        assert attempt["id"] == hit["id"]
    for attempt in attempts:
        price = PROFILES[attempt["profile"]].usd_per_hour
        assert attempt["usd_per_hour"] == price
        assert attempt["cost_usd"] == pytest.approx(attempt["wall_s"] / 3600 * price, abs=1e-9)
        assert attempt["wall_s"] > 0
    for before, after in itertools.pairwise(attempts):
        assert after["resumed_from_step"] >= before["resumed_from_step"]
        if before["reason"] in SAVES and before["exit_code"] == 143:
            assert after["resumed_from_step"] == before["steps_done"] > before["resumed_from_step"]


def is_passed_on(name: str) -> bool:
    return name.startswith(("DRIFTLINE_", "AWS_", "KUBECONFIG")) and name != "DRIFTLINE_STATE"


def digests_of(root: str) -> list[str]:
    stages = (TableStore(root, SPEC.name).records(stage, [CUTOFF])[CUTOFF] for stage in ("checkpoint", "onnx"))
    return [record.content_digest for record in stages]


def attempts_of(root: str) -> list[Mapping[str, Any]]:
    result = unique_attempts(Ledgers(root, SPEC.name).of(ATTEMPTS).records())
    return [record.document() for _, record in reversed(result) if record.step == "train"]
