"""A training on two nodes that is killed in four ways ends with the bytes of two processes of a laptop left alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tests.cluster import names
from tests.cluster.cluster import Cluster
from tests.cluster.killing import Killer, set_slow
from tests.cluster.node import Node
from tests.cluster.step_runs import StepRuns
from tests.cluster.test_gangs import INDEX
from tests.cluster.test_training import attempts_of, digests_of, is_passed_on
from tests.doubles import cluster_environment as environment
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

pytestmark = pytest.mark.long

KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
WORDS = (SPEC.name, KEYS[0], KEYS[-1], SPEC.grain.shift(KEYS[-1], 1))
PROFILES = ("CPU_SPOT", "CPU_SMALL")
WAYS = (
    ("SIGKILL", 1, "killed"),
    ("deleted", 0, "preempted"),
    ("power cut", 1, "node_lost"),
    ("SIGTERM", 0, "preempted"),
)
"""What is done to which pod, and the class."""


@dataclass
class GangKiller(Killer):
    """Ends one pod of a gang, by its number."""

    number: int = 0

    def _at_work(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        return (found for found in super()._at_work() if found[0].metadata.labels[INDEX] == f"{self.number}")

    def end_in_turn(self, ways: Sequence[tuple[str, int, str]]) -> None:
        for place, (way, self.number, _) in enumerate(ways, start=1):
            self.end_next(way, is_last=place == len(ways))


def sized(**fields: int) -> dict[str, str]:
    return {f"DRIFTLINE_PROFILE__{name}__{key}": f"{value}" for name in PROFILES for key, value in fields.items()}


def test_a_training_on_two_nodes_ends_with_the_bytes_of_two_processes(
    repository: Path, runs: StepRuns, reachable: Cluster, machines: list[Node], labelled: None, tmp_path: Path
) -> None:
    checkout = environment.checkout(repository, tmp_path / "checkout", slow_batches)
    laptop = tmp_path / "laptop"
    for root in (str(laptop / "store"), runs.settings.root):
        environment.land(root, slow_batches.files())
    with environment.training(checkout, laptop, sized(PROCESSES=2, CORES=1), *WORDS):
        pass
    names.serve_names(reachable, tmp_path)
    set_slow(runs, "/")
    variables = {name: value for name, value in runs.process_environment().items() if is_passed_on(name)}
    killer = GangKiller(runs, reachable, {node.name: node for node in machines}, "")
    with environment.training(checkout, tmp_path / "run", variables | sized(NODES=2, CORES=1), *WORDS):
        killer.end_in_turn(WAYS)
    assert digests_of(runs.settings.root) == digests_of(str(laptop / "store"))
    attempts = attempts_of(runs.settings.root)
    assert [attempt["reason"] for attempt in attempts] == [*(reason for *_, reason in WAYS), "finished"]
    assert client.BatchV1Api(reachable.api).list_namespaced_job(runs.pods.namespace).items == []
