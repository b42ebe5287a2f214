"""Trials of a search as steps: real processes, one killed and repeated alone, a search killed and gone on with."""

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from optuna.trial import FrozenTrial
from rich.console import Console

from platform_assets.base import clock, naming
from platform_assets.base.failures import ADMISSION, CODE, OUT_OF_MEMORY, Failure
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.launch.attempt import StepRequest
from platform_assets.launch.endings import Ending
from platform_assets.launch.launchers import StepFailure, StepLauncher, SubprocessLauncher
from platform_assets.operations.experiments import launching, study, trials, tune
from platform_assets.product.spec import Choice, Range, Retraining
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import ATTEMPTS, Attempt, unique_attempts
from platform_assets.training import libraries
from platform_assets.training.steps.jobs import Tried
from platform_assets.training.steps.trial import is_hopeless
from tests.doubles import tiny_product as tiny
from tests.doubles import tuned_product as tuned

pytestmark = pytest.mark.slow

PATIENCE_S = 600.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=str(tmp_path / "store"), state=tmp_path / "state")


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that makes trainings slow while it exists."""
    path = tmp_path / "slow"
    path.touch()
    monkeypatch.setenv(tuned.SLOW_WHILE, str(path))
    return path


def attempts(product: ProductStore) -> list[Attempt]:
    records = Ledgers(product.settings.root, product.name).of(ATTEMPTS).records()
    return [record for _, record in reversed(unique_attempts(records))]


def opened(product: ProductStore) -> AbstractContextManager[Any]:
    return tune._opened(product, tune.request_of(product, tiny.CUTOFF), libraries.installed(), 0)


def steps_of(parent: int) -> list[psutil.Process]:
    found = psutil.Process(parent).children(recursive=True)
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE and trials.STEP in child.cmdline()]


def wait_until(is_true: Callable[[], Any], about: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < until_s, about
        time.sleep(0.1)


class FewLauncher(StepLauncher):
    """Ends each step as asked; where it lets fewer in than come, the first go on until another one is refused."""

    def __init__(self, settings: Settings, room: int, failure: Failure | None = None) -> None:
        self.settings, self.room, self.failure = settings, threading.Semaphore(room), failure
        self.refused, self.at_work, self.most = 0, 0, 0
        self.fingerprints = list[str]()
        self.lock, self.has_refused = threading.Lock(), threading.Event()
        if room != 2:
            self.has_refused.set()

    def run_step(self, request: StepRequest) -> Any:
        if not self.room.acquire(timeout=0.1):
            self.refused += 1
            self.has_refused.set()
            raise StepFailure("trial", Ending(failure=ADMISSION, evidence="exceeded quota: team"), [])
        assert request.work is not None
        with self.lock:
            self.fingerprints.append(request.work.fingerprint)
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        assert self.has_refused.wait(PATIENCE_S)
        self.at_work -= 1
        self.room.release()
        if self.failure is not None:
            raise StepFailure("trial", Ending(failure=self.failure, evidence="it was asked to"), ["a last line"])
        return {"kind": "result", "curve": [], "loss": 0.5, "problem": None, "cpu_s": 1.0, "peak_memory_mb": 1.0}


def search(
    product: ProductStore, count: int, launcher: StepLauncher, at_once: int = 3, **more: Any
) -> tuple[list[FrozenTrial], str]:
    out = io.StringIO()
    console = Console(file=out, width=300)
    found = tune.run(product, tiny.CUTOFF, count, console, launcher=launcher, at_once=at_once, **more)
    return found, out.getvalue()


def test_a_curve_is_hopeless_above_the_median_after_a_fifth() -> None:
    medians = {1: 0.5, 2: 0.5, 3: 0.5}
    assert not is_hopeless({1: 0.9}, medians, steps=5), "a fifth of five is the first"
    assert is_hopeless({1: 0.9, 2: 0.6}, medians, steps=5)
    assert not is_hopeless({1: 0.4, 2: 0.6}, medians, steps=5), "its best counts"
    assert not is_hopeless({1: 0.9, 2: 0.5}, medians, steps=5)
    assert not is_hopeless({4: 0.9}, medians, steps=5), "no median at this point"
    assert not is_hopeless({3: 0.9}, medians, steps=3), "it has ended"
    assert not is_hopeless({2: 0.9}, {}, steps=5)


@pytest.mark.costly
def test_a_killed_step_is_repeated_alone_and_a_trial_in_this_process_agrees(
    settings: Settings, slow: Path, tmp_path: Path
) -> None:
    product = tuned.product(settings)
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: len(steps_of(os.getpid())) == 3, "three steps at once")
        killed.extend(step.pid for step in steps_of(os.getpid()))
        os.kill(killed[0], signal.SIGKILL)
        wait_until(lambda: len({step.pid for step in steps_of(os.getpid())} - set(killed)) == 1, "one is repeated")
        slow.unlink()

    thread = threading.Thread(target=kill)
    thread.start()
    found, printed = search(product, 4, SubprocessLauncher(settings))
    thread.join()
    records = attempts(product)
    assert sorted(record.reason for record in records) == ["finished"] * 4 + ["killed"]
    (lost,) = (record for record in records if record.reason == "killed")
    again = [record for record in records if record.fingerprint == lost.fingerprint]
    assert [record.reason for record in again] == ["killed", "finished"], "with its own settings"
    assert {record.pid for record in records if record.pid in killed} == set(killed), "the others went on"
    assert {record.step for record in records} == {"trial"}
    assert all(record.cost_usd for record in records)
    assert list(product.history.trainings_newest_first()) == []
    assert [trial.state.name for trial in found] == [study.FINISHED] * 4
    assert printed.count("loss") == 4
    other = settings.replace(root=str(tmp_path / "other"), state=tmp_path / "other-state")
    alone = tune.run(tuned.product(other), tiny.CUTOFF, 1, Console(file=io.StringIO()))
    assert (alone[0].value, alone[0].intermediate_values) == (found[0].value, found[0].intermediate_values)


KILLED = """
import io, sys
from pathlib import Path
from rich.console import Console
from platform_assets.base.settings import Settings
from platform_assets.launch.launchers import SubprocessLauncher
from platform_assets.operations.experiments import tune
from tests.doubles import tiny_product as tiny
from tests.doubles import tuned_product as tuned

settings = Settings(root=sys.argv[1], state=Path(sys.argv[2]))
launcher = SubprocessLauncher(settings)
tune.run(tuned.product(settings), tiny.CUTOFF, 4, Console(file=io.StringIO()), launcher=launcher, at_once=2)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_ends_leaves_nothing_running_and_goes_on_with_the_settings_it_had(
    settings: Settings, slow: Path, number: signal.Signals
) -> None:
    product = tuned.product(settings)
    command = [sys.executable, "-c", KILLED, settings.root, str(settings.state)]
    process_ = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(steps_of(process_.pid)) == 2, "two steps at once")
    left = steps_of(process_.pid)
    process_.send_signal(number)
    assert process_.wait(PATIENCE_S) == (143 if number == signal.SIGINT else -signal.SIGKILL)
    psutil.wait_procs(left, PATIENCE_S)
    assert not any(step.is_running() for step in left)
    if number == signal.SIGINT:
        assert [record.reason for record in attempts(product)] == ["cancelled"] * 2
    with opened(product) as journal:
        begun = [trial.params for trial in journal.trials]
        assert {trial.state.name for trial in journal.trials} == {study.RUNNING}
    slow.unlink()
    found, _ = search(product, 4, SubprocessLauncher(settings), at_once=2)
    assert [trial.params for trial in found[:2]] == begun
    assert len(begun) == 2 and begun[0] != begun[1]
    assert {trial.state.name for trial in found} == {study.FINISHED}


@pytest.mark.costly
def test_those_without_room_wait_for_the_end_of_another(settings: Settings) -> None:
    launcher = FewLauncher(settings, room=2)
    found, printed = search(tuned.product(settings), 6, launcher)
    assert [trial.state.name for trial in found] == [study.FINISHED] * 6
    assert launcher.refused and launcher.most == 2
    assert "exceeded quota: team" in printed and "It waits until another trial ends." in printed


def test_a_search_without_any_room_ends_with_its_sentence(settings: Settings) -> None:
    with pytest.raises(StepFailure, match="exceeded quota: team"):
        search(tuned.product(settings), 2, FewLauncher(settings, room=0))


@pytest.mark.costly
def test_settings_that_need_too_much_memory_are_a_failed_trial_and_other_errors_end_the_search(settings: Settings):
    product = tuned.product(settings)
    found, printed = search(product, 2, FewLauncher(settings, 3, OUT_OF_MEMORY))
    assert all("it ran out of memory: it was asked to" in trial.user_attrs[study.FAILED_BECAUSE] for trial in found)
    assert "a last line" not in printed
    ended, again = FewLauncher(settings, 3, CODE), FewLauncher(settings, 3)
    with pytest.raises(StepFailure, match="by its own error"):
        search(product, 4, ended)
    assert len(search(product, 4, again)[0]) == 4
    assert len(set(again.fingerprints)) == 2
    assert set(ended.fingerprints) <= set(again.fingerprints), "by which a launcher finds a step that still runs"


def test_no_trial_is_launched_over_the_months_budget(settings: Settings) -> None:
    product = tuned.product(settings)
    clock.move(settings, product.name, tiny.KNOWN_AT)
    spec = replace(product.spec, retraining=Retraining(monthly_budget_usd=0.05))
    with pytest.raises(ValueError, match=r"no more trials of tiny are launched: in \d{4}-\d\d the month's trainings"):
        search(ProductStore(spec, settings), 2, FewLauncher(settings, 3))
    spec = replace(spec, retraining=Retraining(monthly_budget_usd=0.05, expected_hours=0.5))  # 0.04 USD each
    launcher = FewLauncher(settings, 3)
    assert len(search(ProductStore(spec, settings), 3, launcher)[0]) == 3
    assert launcher.most == 1, "those under way count"


@pytest.mark.parametrize("at_once", [0, 5])
def test_as_many_at_once_as_the_pool_has(settings: Settings, at_once: int) -> None:
    with pytest.raises(ValueError, match=rf"--at-once is {at_once}; expected 1 to 4, the slots of the pool of profile"):
        search(tuned.product(settings), 1, FewLauncher(settings, 1), at_once=at_once)


def test_a_run_from_a_terminal_takes_a_slot_of_the_pool(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def pools(context: dg.AssetExecutionContext) -> object:
        run = context.instance.get_run_by_id(context.run.run_id)
        return run and run.run_op_concurrency and run.run_op_concurrency.root_key_counts

    on_cluster = settings.replace(launcher="kubernetes")
    assert launching.in_a_run(on_cluster, "tune__tiny", "driftline_cpu_small", pools) == {"driftline_cpu_small": 1}


def test_a_run_from_a_terminal_says_that_it_is_alive(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(launching, "BEAT_S", 0.01)
    seconds = itertools.count(100.0)
    monkeypatch.setattr(time, "time", lambda: next(seconds))

    def said(context: dg.AssetExecutionContext) -> list[str]:
        said, until_s = set[str](), time.monotonic() + PATIENCE_S
        while len(said) < 3:
            assert time.monotonic() < until_s
            run = context.instance.get_run_by_id(context.run.run_id)
            assert run is not None
            said.add(run.tags[naming.TAG_ALIVE])
        return sorted(said, key=int)

    first, *later = launching.in_a_run(settings.replace(launcher="kubernetes"), "tune__tiny", "p", said)
    assert int(first) < int(later[0]) < int(later[1])


def test_a_trial_of_the_file_outside_of_its_search_is_gone_on_with(settings: Settings) -> None:
    product = tuned.product(settings)
    outside = (Range(name="learning_rate", low=1e-5, high=1e-4, is_log=True), Choice(name="batch_size", values=(8, 16)))
    product = ProductStore(replace(product.spec, search=outside), settings)
    with opened(product) as journal:
        first, second = (study.ask(journal, product.spec, 0, is_alone=False) for _ in range(2))
        assert (first.params, len(second.params)) == ({}, 2)
        study.tell(journal, second, Tried(curve=[], loss=0.7, problem=None, cpu_s=0.0, peak_memory_mb=0.0))
    with opened(product) as journal:
        (left,) = study.left_running(journal, product.spec)
        assert left.number == first.number
        study.tell(journal, left, Tried(curve=[(1, 0.6)], loss=0.6, problem=None, cpu_s=0.0, peak_memory_mb=0.0))
        assert tune.best(study.counted(journal)) == (0.6, 1)
