"""`driftline.open` reads a store that was really advanced, trained and asked, and leaves every file of it as it was."""

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import driftline
from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from tests.doubles import documents
from tests.goldens.products import WALKS
from tests.goldens.walk import walk

NAME = "flight_delays"
ANSWERED = ["2013-01-13", "2013-01-14", "2013-01-15"]
FIRST, LAST = "2013-01-01", "2013-01-18"


pytestmark = [pytest.mark.slow, pytest.mark.costly]  # for the model that all of them ask


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path_factory.mktemp("walked"))})
    walk(WALKS[NAME](), settings)
    return settings


@pytest.fixture
def settings(walked: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The walked store, which must be as it was when the test ends."""
    monkeypatch.setenv("DRIFTLINE_STATE", str(walked.state))
    before = listing(walked.state)
    yield walked
    assert listing(walked.state) == before


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything; a folder's time moves when something in it appears or goes."""
    there = ((path, path.stat()) for path in [folder, *folder.rglob("*")])
    return {str(path): (state.st_size if path.is_file() else 0, state.st_mtime_ns) for path, state in there}


def test_rows_answers_and_decisions_are_read_by_key(settings: Settings) -> None:
    dl = driftline.open(NAME)
    features = dl.features([LAST, FIRST])
    assert isinstance(features, pl.DataFrame)
    assert features["key"].unique(maintain_order=True).to_list() == [FIRST, LAST]
    assert {"entity", "service_time", "asked_at", "distance_miles"} <= {*features.columns}
    assert_frame_equal(dl.features().filter(pl.col("key").is_in([FIRST, LAST])), features)
    answers = dl.answers(ANSWERED[0])
    assert answers["key"].unique().to_list() == ANSWERED[:1]
    assert answers["probability"].is_between(0, 1).all()
    decisions = dl.decisions()
    assert decisions["key"].to_list() == sorted(decisions["key"])
    by_key = {row["key"]: row for row in decisions.iter_rows(named=True)}
    assert by_key[ANSWERED[2]]["action"] == "alert_fault"
    assert by_key[LAST]["drift_index"] > 0
    assert dl.decisions([LAST])["reasons"].to_list() == [by_key[LAST]["reasons"]]


def test_the_live_model_answers_rows_as_it_answered_its_callers(settings: Settings) -> None:
    dl = driftline.open(NAME)
    rows = dl.features(LAST)
    frame = dl.predict(rows)
    assert frame["entity"].to_list() == rows["entity"].to_list()
    assert frame["digest"].unique().to_list() == [dl.model().digest]
    assert dl.model().contract.product == NAME
    assert frame["probability"].n_unique() > 10


def test_pandas_goes_in_and_comes_out_with_the_same_numbers(settings: Settings) -> None:
    dl, pandas = driftline.open(NAME), driftline.open(NAME, frames="pandas")
    rows = pandas.features(LAST)
    assert isinstance(rows, pd.DataFrame)
    assert isinstance(pandas.decisions(), pd.DataFrame)
    assert rows.isna().any().any(), "no null was tried"
    answers = dl.predict(rows)
    assert isinstance(answers, pd.DataFrame), "what came in decides"
    assert isinstance(pandas.predict(dl.features(LAST)), pl.DataFrame)
    expected = dl.predict(dl.features(LAST))
    assert answers["probability"].to_list() == expected["probability"].to_list()


def test_a_live_product_answers_rows_of_the_past(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.serving.answer.contract import Contract

    read = Contract.__init__

    def of_a_live_product(contract: Contract, document: object) -> None:
        read(contract, document)
        contract.clock_within = timedelta(days=7)

    monkeypatch.setattr(Contract, "__init__", of_a_live_product)
    dl = driftline.open(NAME)
    assert dl.predict(dl.features(LAST).head(2)).height == 2


def without(name: str) -> Any:
    return lambda frame: frame.drop(name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("distance_miles"), "the frame has no column distance_miles; expected entity, service_time"),
        (without("asked_at"), "the frame has no column asked_at; expected entity"),
        (
            lambda frame: frame.with_columns(distance_miles=pl.lit("far")),
            r"the frame, row 0 \(counted from 0\): distance_miles is 'far'; Expected",
        ),
        (
            lambda frame: frame.with_columns(distance_miles=pl.lit(-1.0)),
            r"the frame: \[0\].features.distance_miles: Expected .* >= ",
        ),
        (lambda frame: frame.to_dicts(), r"predict\(\) got a list; expected a DataFrame of polars or pandas"),
    ],
)
def test_a_frame_that_cannot_be_answered_is_named(settings: Settings, change: Any, problem: str) -> None:
    dl = driftline.open(NAME)
    with pytest.raises(ValueError, match=problem):
        dl.predict(change(dl.features(LAST).head(3)))


def test_a_key_that_is_not_there_is_named_with_those_that_are(settings: Settings) -> None:
    dl = driftline.open(NAME)
    for read, stage, span in (
        (dl.features, "features", "it has 18, 2013-01-01 to 2013-01-18"),
        (dl.answers, "predictions", "it has 18, 2013-01-01 to"),
        (dl.decisions, "decision", "it has 18, 2013-01-01 to"),
    ):
        with pytest.raises(ValueError, match=f"^{NAME} has no {stage} of key 2014-05-01; {span}"):
            read(["2014-05-01", LAST])


def test_an_empty_store_has_nothing_and_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path))
    with pytest.raises(ValueError, match=rf"^there is no store at {tmp_path}/store. Set DRIFTLINE_STATE or"):
        driftline.open(NAME)
    (tmp_path / "store").mkdir()
    dl = driftline.open(NAME)
    with pytest.raises(ValueError, match=f"^{NAME} has no features in {tmp_path}/store yet: no key was advanced"):
        dl.features()
    with pytest.raises(ValueError, match=f"^{NAME} has no predictions of key 2013-01-01; it has none yet"):
        dl.answers("2013-01-01")
    for read in (dl.model, lambda: dl.predict(pl.DataFrame())):
        with pytest.raises(ValueError, match=f"^{NAME} has no release in {tmp_path}/store: there is no model"):
            read()
    assert list(tmp_path.rglob("*")) == [tmp_path / "store"]


def test_what_cannot_be_opened_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'flights' is not the name of a product; expected one of flight_delays, "):
        driftline.open("flights")
    with pytest.raises(ValueError, match=r"frames is 'spark'; expected 'polars' or 'pandas'"):
        driftline.open(NAME, frames="spark")  # type: ignore[arg-type]
    load = builtins.__import__

    def without_pandas(name: str, *others: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return load(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ValueError, match=r"frames='pandas' needs pandas, which is not installed: pip install pandas"):
        driftline.open(NAME, frames="pandas")


def test_a_damaged_release_is_not_loaded(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path))
    ledgers = Ledgers(f"{tmp_path}/store", NAME)
    number, record = Ledgers(settings.root, NAME).latest("releases") or (0, {})
    assert number
    ledgers.append("releases", record)
    with pytest.raises(Exception, match=documents.live_digest(record)[:12]):
        driftline.open(NAME).model()


def test_the_notebook_runs_from_its_first_cell_to_its_last(settings: Settings, repository: Path) -> None:
    """Cells are executed in order in a process of their own, as a kernel would, in the folder of the notebook."""
    file = repository / "docs" / "notebook.ipynb"
    document = json.loads(file.read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "stored without outputs"
    program = (
        "import json, sys\nnames = {}\nfor cell in json.load(sys.stdin):\n    exec(cell, names)\nprint('executed')"
    )
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(repository)}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(["".join(cell["source"]) for cell in cells]),
        env=environment,
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("executed\n")
