"""A search sees training keys alone, goes on after SIGKILL with the same trials, and ends with the same settings."""

import io
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from rich.console import Console

from platform_assets.base.settings import Settings
from platform_assets.operations.experiments import study, tune
from platform_assets.product.spec import Choice
from platform_assets.store.product_store import ProductStore
from platform_assets.training import libraries
from platform_assets.training.changes import changed, value_of, values_of
from tests.doubles import tiny_product as tiny
from tests.doubles import tuned_product as tuned

pytestmark = pytest.mark.slow

TRIALS = 9
KILLS = ("before 1", "step 3", "after 3", "half 15", "before 20", "step 40", "half 2", "after 8")
"""Entries of the journal are the study, trials, their settings, points of their curves, and their ends."""


@dataclass(frozen=True)
class Search:
    product: ProductStore
    trials: Sequence[FrozenTrial]
    printed: str


def search(settings: Settings, count: int = TRIALS) -> Search:
    product, out = tuned.product(settings), io.StringIO()
    return Search(product, tune.run(product, tiny.CUTOFF, count, Console(file=out, width=300)), out.getvalue())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("tuned")
    return search(Settings(root=str(folder / "store"), state=folder / "state"))


@pytest.mark.costly
def test_trials_never_see_the_holdout_and_leave_no_record(uninterrupted: Search) -> None:
    product = uninterrupted.product
    request = tune.request_of(product, tiny.CUTOFF)
    assert product.tables.records("features").keys() == set(tuned.BEFORE_HOLDOUT)
    assert request.holdout_keys == list(tuned.BEFORE_HOLDOUT[-2:])
    assert request.training_keys == list(tuned.BEFORE_HOLDOUT[:-2])
    assert list(product.history.trainings_newest_first()) == []
    assert not (Path(product.settings.root) / "ledgers").exists()


def test_the_first_trial_is_todays_file_and_hopeless_ones_end_early(uninterrupted: Search) -> None:
    trials = uninterrupted.trials
    assert [trial.state.name for trial in trials[: study.STARTS]] == [study.FINISHED] * study.STARTS
    first = values_of(tuned.SPEC, trials[0].params)
    assert first == {"learning_rate": 1e-3, "batch_size": 64, "settings.widths": (16, 16)}
    assert {trial.state.name for trial in trials} == {study.FINISHED, study.PRUNED}
    for trial in trials:
        points = len(trial.intermediate_values)  # the last of six is not judged
        assert points == 5 if trial.state.name == study.FINISHED else 2 <= points <= 5
    numbers = re.findall(r"^trial (\d+): (?:loss|ended early)", uninterrupted.printed, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, TRIALS + 1)]


@pytest.mark.thorough
def test_a_killed_search_ends_as_an_uninterrupted_one(uninterrupted: Search, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.doubles.tuned_search", str(tmp_path / "store"), str(tmp_path / "state")]
    for point in KILLS:
        killed = subprocess.run([*command, str(TRIALS), point], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = subprocess.run([*command, str(TRIALS)], capture_output=True, text=True, check=True)
    assert resumed.stdout.strip() == tune.report(tuned.SPEC, tiny.CUTOFF, uninterrupted.trials)
    trials = search(Settings(root=str(tmp_path / "store"), state=tmp_path / "state")).trials
    assert trials[-1].number >= TRIALS, "one that was killed before it had its settings is in the journal, uncounted"
    for ours, theirs in zip(trials, uninterrupted.trials, strict=True):
        assert (ours.params, ours.state, ours.value) == (theirs.params, theirs.state, theirs.value)
        assert ours.intermediate_values == theirs.intermediate_values


def test_the_best_settings_are_a_command_that_has_them(uninterrupted: Search) -> None:
    *text, command = tune.report(tuned.SPEC, tiny.CUTOFF, uninterrupted.trials).splitlines()
    assert text[0].startswith(f"{TRIALS} trials, ")
    *begin, first = shlex.split(command.partition(" --set ")[0])
    assert (begin, first) == (["driftline", "train", "tiny", "--cutoff"], tiny.CUTOFF)
    spec = changed(tuned.SPEC, shlex.split(command.partition(" --set ")[2].replace(" --set ", " ")))
    _, number = tune.best(uninterrupted.trials) or (0.0, 0)
    values = values_of(tuned.SPEC, uninterrupted.trials[number - 1].params)
    assert {name: value_of(spec, name) for name in values} == values


def test_a_search_is_continued_by_one_process_at_a_time(uninterrupted: Search) -> None:
    product, settings = uninterrupted.product, uninterrupted.product.settings
    assert [trial.params for trial in search(settings).trials] == [trial.params for trial in uninterrupted.trials]
    with (
        tune._opened(product, tune.request_of(product, tiny.CUTOFF), libraries.installed(), 0),
        pytest.raises(ValueError, match="another `driftline tune` is at this search"),
    ):
        search(settings)


def test_a_product_without_a_search_says_so(settings: Settings) -> None:
    with pytest.raises(ValueError, match="tiny has no search; expected one or more in its file, such as search="):
        tune.request_of(ProductStore(tiny.SPEC, settings), tiny.CUTOFF)


def test_what_cannot_be_fitted_is_a_failed_trial_and_the_search_goes_on(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    wild = Choice(name="learning_rate", values=(1e-3, 1e30))
    product = ProductStore(replace(tuned.product(settings).spec, search=(wild,)), settings)
    trials = tune.run(product, tiny.CUTOFF, 5, Console(file=io.StringIO()))
    failed = [trial for trial in trials if study.FAILED_BECAUSE in trial.user_attrs]
    assert {values_of(product.spec, trial.params)["learning_rate"] for trial in failed} == {1e30}
    assert all("expected a finite number" in trial.user_attrs[study.FAILED_BECAUSE] for trial in failed)
    assert trials[0].state.name == study.FINISHED
