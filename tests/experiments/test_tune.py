"""A search sees training keys alone, goes on after SIGKILL with the same trials, and proposes a diff that holds."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from rich.console import Console

from platform_assets.experiments import tune
from platform_assets.handle import Product
from platform_assets.history.reader import History
from platform_assets.records.tunings import FAILED, FINISHED, PRUNED, Trial
from platform_assets.settings import Settings
from platform_assets.specs.base import Choice
from platform_assets.stages import tuning
from platform_assets.storage.ledgers import Ledgers
from resources.store import StoreResource
from tests.doubles import tiny_product as tiny
from tests.doubles import tuned_product as tuned

TRIALS = 9
KILLS = ("curve 3", "after 1", "curve 8", "before 4", "after 6")
"""Points of a curve are in the middle of a fit; before and after a record nothing else is written."""


def without_times(trials: list[tuple[int, Trial]]) -> list[tuple[int, Trial]]:
    return [(number, msgspec.structs.replace(trial, at_utc="", cpu_s=0.0)) for number, trial in trials]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> tune.Search:
    folder = tmp_path_factory.mktemp("tuned")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    out = io.StringIO()
    search = tune.run(tuned.product(settings), tiny.CUTOFF, TRIALS, Console(file=out, width=300))
    (folder / "printed").write_text(out.getvalue(), encoding="utf-8")
    return search


def test_trials_never_see_the_holdout_and_are_not_trainings(search: tune.Search) -> None:
    product = search.product
    assert product.tables.records("features").keys() == set(tuned.BEFORE_HOLDOUT)
    assert search.record.judged_keys == list(tuned.BEFORE_HOLDOUT[-2:])
    assert search.request.training_keys == list(tuned.BEFORE_HOLDOUT[:-2])
    assert list(product.history.trainings_newest_first()) == []
    assert product.history.attempts().is_empty()
    assert Ledgers(product.settings.root, "tiny").newest_number("tuning_attempts") == TRIALS


def test_the_first_trial_is_todays_file_and_hopeless_ones_end_early(search: tune.Search) -> None:
    trials = search.trials()
    assert [trial.state for trial in trials[: tune.STARTS]] == [FINISHED] * tune.STARTS
    assert trials[0].values == {"learning_rate": 1e-3, "batch_size": 64, "settings.widths": [16, 16]}
    assert {trial.state for trial in trials} == {FINISHED, PRUNED}
    for trial in trials:
        assert len(trial.curve) == 6 if trial.state == FINISHED else 2 <= len(trial.curve) < 6
        assert (trial.loss is None) is (trial.state == PRUNED)
    printed = Path(search.product.settings.root).parent.joinpath("printed").read_text(encoding="utf-8")
    assert re.findall(r"^trial (\d+): (?:loss|ended early)", printed, re.MULTILINE) == [
        str(n) for n in range(1, TRIALS + 1)
    ]


@pytest.mark.thorough
def test_a_killed_search_goes_on_with_the_trials_of_an_uninterrupted_one(search: tune.Search, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.doubles.tuned_product", str(tmp_path / "store"), str(tmp_path / "state")]
    for point in KILLS:
        killed = subprocess.run([*command, str(TRIALS), point], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    subprocess.run([*command, str(TRIALS)], check=True)
    resumed = History(str(tmp_path / "store"), "tiny").trials(search.record.study)
    assert without_times(resumed) == without_times(search.product.history.trials(search.record.study))
    assert History(str(tmp_path / "store"), "tiny").tuning() is not None
    assert Ledgers(str(tmp_path / "store"), "tiny").newest_number("tunings") == 1


def test_the_asset_shows_the_search_with_charts_and_its_proposal(search: tune.Search) -> None:
    product = search.product
    resources = {"store": StoreResource(variables=product.settings.to_environment())}
    result = dg.materialize(tuning.build(tuned.SPEC), resources=resources)
    (event,) = result.asset_materializations_for_node("tiny__tuning")
    shown = event.metadata
    assert str(shown["result"].value).startswith(f"{TRIALS} trials, ")
    assert all("data:image/svg+xml" in str(shown[name].value) for name in ("history", "slices"))
    assert "```diff" in str(shown["proposal"].value)
    assert str(shown["table"].value).count("\n") == TRIALS + 1
    text = tune.reported(search).text
    assert text.startswith(f"{shown['result'].value}.")
    with dg.DagsterInstance.from_config(str(product.settings.dagster_home)) as instance:
        reported = instance.get_latest_materialization_event(dg.AssetKey(["tiny", "tuning"]))
    assert reported is not None


def test_a_product_without_trials_or_without_a_search_says_so(settings: Settings) -> None:
    with pytest.raises(dg.Failure, match="tiny has no trial on record; declare `search`"):
        dg.materialize(tuning.build(tuned.SPEC), resources={"store": StoreResource()})
    product = Product(tiny.SPEC, settings)
    with pytest.raises(ValueError, match="tiny has no search; expected one or more in its file, such as search="):
        tune.open_search(product, tiny.CUTOFF, 0)


def test_what_cannot_be_fitted_is_a_failed_trial_and_the_search_goes_on(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    wild = Choice(name="learning_rate", values=(1e-3, 1e30))
    product = Product(replace(tuned.product(settings).spec, search=(wild,)), settings)
    search = tune.run(product, tiny.CUTOFF, 5, Console(file=io.StringIO()))
    trials = search.trials()
    failed = [trial for trial in trials if trial.state == FAILED]
    assert {trial.values["learning_rate"] for trial in failed} == {1e30}
    assert all("expected a finite number" in trial.why for trial in failed)
    assert trials[0].state == FINISHED
