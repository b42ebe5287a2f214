"""A step that the processes of its profile share has one result, one exit code and one reason, as any other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGBUS, SIGKILL, SIGTERM

import dagster as dg
import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.launchers import StepFailure, StepLauncher, SubprocessLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.launch.torchrun import exit_code
from platform_assets.launch.tries import NotReady
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, LAUNCHER
from platform_assets.training import libraries
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import Job
from platform_assets.training.steps.process import EXIT_PEER_LOST, EXIT_PREEMPTED
from tests.doubles import tiny_product
from tests.doubles.shared_training import Shared, free_port, handles, wait

pytestmark = pytest.mark.slow

TWO = PROFILES["cpu_small"].replace(processes=2)
PREEMPTED, PEER, OWN = "Preempted: 143", "PeerLost: another process", "ValueError: no"


@pytest.mark.parametrize(
    ("exit_codes", "errors", "is_asked", "expected"),
    [
        ([-SIGKILL, 1], [PEER], False, 128 + SIGKILL),
        ([1, -SIGBUS], [PEER], False, 128 + SIGBUS),
        ([1, 1], [PEER, OWN], False, 1),
        ([1, 143], [OWN, PREEMPTED], False, 1),
        ([1, -SIGKILL], [OWN], False, 1),  # the agent killed a process that did not end after the other's error
        ([143, 143], [PREEMPTED, PREEMPTED], False, 143),
        ([-SIGTERM, 1], [PEER], False, 143),  # one that was still importing
        ([1], [PEER], False, 1),
        ([1], [""], False, 1),
        ([], [PREEMPTED, PREEMPTED], True, 143),
        ([], [], True, 143),
        ([], [PEER, PREEMPTED], True, 143),
        ([], [OWN, PREEMPTED], True, 1),
        ([], [], False, 1),
    ],
)
def test_the_first_cause_decides_the_exit_code(exit_codes: list[int], errors: list[str], is_asked: bool, expected: int):
    assert exit_code(exit_codes, errors, is_asked=is_asked) == expected


@pytest.mark.parametrize(
    ("exit_codes", "errors", "expected"),
    [
        ([1], [PEER], EXIT_PEER_LOST),
        ([], [], EXIT_PEER_LOST),  # the agent of another node ended
        ([1, -SIGTERM], [PEER], EXIT_PEER_LOST),  # by its agent, because the other had failed
        ([-SIGTERM], [], 143),
        ([1, 1], [PEER, OWN], 1),
        ([1], [""], 1),
        ([-SIGKILL, 1], [PEER], 128 + SIGKILL),
        ([143, 1], [PREEMPTED, PEER], 143),
    ],
)
def test_a_node_says_when_the_cause_is_on_another_one(exit_codes: list[int], errors: list[str], expected: int) -> None:
    assert exit_code(exit_codes, errors, is_asked=False, is_shared=True) == expected


@contextmanager
def agent(**variables: object) -> Iterator[subprocess.Popen[str]]:
    place = {"NNODES": 2, "NODE_RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **variables}
    options = ["--processes=1", "--grace-s=30", "tests.doubles.tiny_rank"]
    with subprocess.Popen(
        [sys.executable, "-m", "platform_assets.launch.torchrun", *options],
        cwd=REPOSITORY,
        env={**os.environ, **{f"PET_{name}": str(value) for name, value in place.items()}},
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.costly
@pytest.mark.parametrize(
    ("variables", "code", "sentence"),
    [
        ({"NODE_RANK": 2}, 1, "PET_NNODES is 2, PET_NODE_RANK 2, PET_MASTER_ADDR '127.0.0.1' and PET_MASTER_PORT "),
        (
            {"MASTER_ADDR": "nowhere.invalid", "JOIN_S": 0},
            EXIT_PEER_LOST,
            "node 1 of 2 found no address of nowhere.inv",
        ),
        ({"JOIN_S": 0}, EXIT_PEER_LOST, "node 1 of 2 waited 0 s for the first one at 127.0.0.1:"),
    ],
)
def test_a_node_that_cannot_join_the_others_ends_in_a_sentence(variables: dict[str, object], code: int, sentence: str):
    with agent(**variables) as node:
        _, error = node.communicate(timeout=600)
    assert node.returncode == code, error
    assert error.startswith(sentence)
    assert error.count("\n") == 1


def test_a_node_that_is_stopped_before_it_meets_the_others_was_told_to_stop() -> None:
    with agent() as node:
        wait(lambda: handles(node.pid, SIGTERM))
        node.terminate()
        assert node.wait(timeout=600) == EXIT_PREEMPTED


def launch(settings: Settings, size: StepProfile, world_size: int = 2, **changes: object) -> dict[str, object]:
    results = []
    job = Job.from_extras({**tiny_product.store(settings), "world_size": world_size, **changes})
    extras = instructions.to_extras(job, Learning.for_product(tiny_product.SPEC), libraries.installed())
    work = Work(product="tiny", step="train", cutoff=job.cutoff, fingerprint=job.fingerprint)

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        module = "platform_assets.launch.train"
        results.append(
            launcher.run(context=context, module=module, extras=extras, profile=size, work=work, is_shared=True)
        )
        return dg.MaterializeResult()

    dg.materialize([waits], resources={"launcher": SubprocessLauncher(settings)})
    (result,) = results
    assert isinstance(result, dict)
    return result


@pytest.mark.costly
def test_a_training_of_a_profile_with_two_processes_is_one_attempt_with_one_result(settings: Settings) -> None:
    result = launch(settings, TWO)
    assert (result["is_reused"], result["resumed_from_step"]) == (False, 0)
    ledgers = Ledgers(settings.root, "tiny")
    (record,) = [record for _, record in ledgers.of(ATTEMPTS).records() if record.by == LAUNCHER and record.wall_s]
    assert (record.reason, record.steps_done, record.digest) == ("finished", 70, result["checkpoint"])
    assert launch(settings, TWO)["is_reused"] is True


@pytest.mark.costly
def test_a_training_goes_on_in_a_profile_with_another_number_of_processes(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "shared")
    assert shared.run(2, dies={"1": (40, SIGKILL)})[0] == 128 + SIGKILL
    result = launch(shared.settings, PROFILES["cpu_small"], world_size=1)
    assert (result["is_reused"], result["resumed_from_step"]) == (False, 40)
    assert result["world_sizes"] == [[0, 2], [40, 1]]
    assert launch(shared.settings, TWO)["is_reused"] is True, "a finished training is not made again"


@pytest.mark.costly
def test_a_step_that_was_requested_for_other_processes_than_its_profile_has_is_refused(settings: Settings) -> None:
    with pytest.raises(StepFailure, match=r"runs in 2 processes and was requested for 3; expected as many as"):
        launch(settings, TWO, world_size=3)
    with pytest.raises(StepFailure, match=r"runs in 1 process and was requested for 2"):
        launch(settings, PROFILES["cpu_small"])


def test_a_profile_with_several_nodes_is_refused_by_name(settings: Settings) -> None:
    with pytest.raises(NotReady, match=r"Profile cpu_small has nodes=2, and SubprocessLauncher starts a step on one"):
        launch(settings, PROFILES["cpu_small"].replace(nodes=2))
    assert not Path(settings.root, "tiny", "ledgers").exists() or not Ledgers(settings.root, "tiny").records("attempts")
