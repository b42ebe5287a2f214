"""A training on two nodes ends with the bytes of two processes of a laptop left alone, and goes on on another number.

It is killed in four ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.models import CHECKPOINTS
from tests.cluster import names
from tests.cluster.cluster import Cluster
from tests.cluster.killing import PATIENCE_S, Killer, set_slow
from tests.cluster.node import Node
from tests.cluster.step_runs import StepRuns
from tests.cluster.test_gangs import INDEX
from tests.cluster.test_training import attempts_of, digests_of, is_passed_on
from tests.cluster.waiting import wait_until
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


@pytest.fixture(scope="module")
def laptop(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A checkout with the product, and the digests of a training by two processes of a laptop left alone."""
    path = tmp_path_factory.mktemp("laptop")
    checkout, store = environment.checkout(repository, path / "checkout", slow_batches), str(path / "state" / "store")
    environment.land(store, slow_batches.files())
    with environment.training(checkout, path / "state", sized(PROCESSES=2, CORES=1), *WORDS):
        pass
    return checkout, digests_of(store)


@dataclass
class Place:
    """A cluster with the product's files.

    Attributes:
        variables: of a process that trains there.
        killer: ends pods of its gangs.
    """

    variables: Mapping[str, str]
    killer: GangKiller


@pytest.fixture
def place(runs: StepRuns, reachable: Cluster, machines: list[Node], labelled: None, tmp_path: Path) -> Place:
    names.serve_names(reachable, tmp_path)
    set_slow(runs, "/")
    environment.land(runs.settings.root, slow_batches.files())
    variables = {name: value for name, value in runs.process_environment().items() if is_passed_on(name)}
    return Place(variables, GangKiller(runs, reachable, {node.name: node for node in machines}, ""))


def test_a_training_on_two_nodes_ends_with_the_bytes_of_two_processes(
    laptop: tuple[Path, list[str]], place: Place, runs: StepRuns, reachable: Cluster, tmp_path: Path
) -> None:
    checkout, expected = laptop
    with environment.training(checkout, tmp_path / "run", place.variables | sized(NODES=2, CORES=1), *WORDS):
        place.killer.end_in_turn(WAYS)
    assert digests_of(runs.settings.root) == expected
    attempts = attempts_of(runs.settings.root)
    assert [attempt["reason"] for attempt in attempts] == [*(reason for *_, reason in WAYS), "finished"]
    assert client.BatchV1Api(reachable.api).list_namespaced_job(runs.pods.namespace).items == []


class RunIsGone(Exception):
    """Ends the process of a run, and leaves its gang at work."""


def test_a_run_with_one_node_waits_for_the_gang_of_a_run_that_is_gone_and_goes_on_from_its_save(
    laptop: tuple[Path, list[str]], place: Place, runs: StepRuns, reachable: Cluster, tmp_path: Path
) -> None:
    checkout, _ = laptop
    two, one = (place.variables | sized(NODES=count, CORES=1) for count in (2, 1))
    with suppress(RunIsGone), environment.training(checkout, tmp_path / "two", two, *WORDS):
        place.killer.next_at_work("and its run is killed")
        raise RunIsGone
    batch = client.BatchV1Api(reachable.api)
    (job,) = batch.list_namespaced_job(runs.pods.namespace).items
    set_slow(runs, "/nowhere")
    with environment.training(checkout, tmp_path / "one", one, *WORDS):
        log, line = tmp_path / "one.log", "is at this step on another number of nodes"
        wait_until(lambda: line in log.read_text(encoding="utf-8"), PATIENCE_S, "the second run has seen the gang")
        batch.delete_namespaced_job(job.metadata.name, runs.pods.namespace, body={"propagationPolicy": "Foreground"})
    *_, last = attempts_of(runs.settings.root)
    record = Ledgers(runs.settings.root, SPEC.name).of(CHECKPOINTS).read(last["fingerprint"])
    assert record is not None
    before, after = record.world_sizes
    assert (before, after[1]) == ((0, 2), 1)
    assert (last["reason"], last["resumed_from_step"]) == ("finished", after[0])
    assert after[0] > 0
