"""`driftline new` writes a file that passes its check, in a checkout's form or a host's, or writes nothing."""

import ast
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.engine import project
from platform_assets.scaffold import layout, new, writing
from platform_assets.scaffold.guess import NoGuess, guess
from platform_assets.scaffold.reading import Given
from platform_assets.scaffold.writing import Origin
from tests.scaffold.orders import orders

pytestmark = pytest.mark.slow

PROJECT = '[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "shop"\n'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a Dagster project with the orders as CSV, Parquet and SQLite, and go there."""
    defs = tmp_path / "shop" / "defs"
    defs.mkdir(parents=True)
    for package in (defs, defs.parent):
        (package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    rows = orders()
    rows.write_csv(tmp_path / "orders.csv")
    rows.with_columns(pl.col("price").cast(pl.Float64), pl.col("returned").cast(pl.Int8)).write_parquet(
        tmp_path / "orders.parquet"
    )
    with closing(sqlite3.connect(tmp_path / "orders.db")) as opened:
        opened.execute(f"create table orders ({', '.join(rows.columns)})")
        opened.executemany(f"insert into orders values ({', '.join('?' * rows.width)})", rows.rows())
        opened.commit()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def driftline(folder: Path, *arguments: str, verb: str = "new") -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("driftline")), verb, *arguments]
    store = {"DRIFTLINE_ROOT": str(folder / "store"), "DRIFTLINE_STATE": str(folder / "state")}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **store}, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "time"),
    [
        (["--from", "orders.csv"], True),
        (["--from", "orders.csv"], False),
        (["--from", "orders.parquet"], True),
        (["--from", "orders.parquet"], False),
        (["--from", "sqlite:///orders.db", "--query", "select * from orders"], True),
    ],
)
def test_a_first_product_of_a_host_is_green(host: Path, source: list[str], time: bool) -> None:
    done = driftline(host, "returns", *source, "--label", "returned", *(["--time", "ordered_at"] if time else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PROBLEM" not in done.stdout
    assert re.search(r"^  ok +model ", done.stdout, re.MULTILINE)
    folder = host / "shop" / "defs" / "returns"
    assert sorted(file.name for file in folder.iterdir() if file.is_file()) == ["defs.yaml", "product.py"]
    text = (folder / "product.py").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= layout.WIDTH
    assert str(host) not in text
    again = driftline(host, "returns", *source, "--label", "returned")
    assert again.returncode == 1
    assert "the product 'returns' exists already" in again.stderr
    assert (folder / "product.py").read_text(encoding="utf-8") == text


@pytest.mark.costly
@pytest.mark.slow
def test_the_readmes_commands_lead_from_a_csv_file_to_an_answer(host: Path, repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("driftline ")][:2]
    assert [command[1] for command in commands] == ["new", "try"]
    for _, verb, *arguments in commands:
        done = driftline(host, *arguments, verb=verb)
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^answer .*probability", done.stdout, re.MULTILINE)
    assert (host / "state" / "try" / "returns" / "report.html").exists()


@pytest.mark.costly
@pytest.mark.slow
def test_a_file_that_reaches_today_is_green_where_features_read_past_labels(host: Path) -> None:
    """Keys whose labels may still come are not among those that the check looks at."""
    rows, now = orders(), datetime.now(UTC)
    moments = rows["ordered_at"].str.to_datetime(time_zone="UTC")
    moved = (moments + (now - moments.max())).dt.strftime("%Y-%m-%d %H:%M:%S")
    rows.with_columns(ordered_at=moved).write_csv("orders.csv")
    done = driftline(host, "returns", "--from", "orders.csv", "--label", "returned", "--time", "ordered_at")
    text = (host / "shop" / "defs" / "returns" / "product.py").read_text(encoding="utf-8")
    assert "lag=DELAY" in text
    assert done.returncode == 0, done.stdout + done.stderr
    early = text.replace("    return asks.select", "    return 1\n    return asks.select")
    (host / "shop" / "defs" / "returns" / "product.py").write_text(early)
    wrong = driftline(host, "returns", verb="check")
    assert "Fix it in shop/defs/returns/product.py" in wrong.stdout, wrong.stdout


@pytest.mark.costly
@pytest.mark.slow
def test_a_class_that_only_older_keys_have_is_a_note(host: Path) -> None:
    days = [(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=row)).strftime("%Y-%m-%d") for row in range(600)]
    kinds = ["Snow" if row < 50 else ("Sun", "Fog", "Rain")[row * 7 % 11 % 3] for row in range(600)]
    pl.DataFrame({"day": days, "wind": [row * 13 % 17 / 2 for row in range(600)], "kind": kinds}).write_csv("days.csv")
    done = driftline(host, "weather", "--from", "days.csv", "--time", "day", "--label", "kind")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^  note +label .*the keys before 2020-07-19 were not looked at, and .*'snow'", done.stdout, re.M)
    assert re.search(r"^  ok +model ", done.stdout, re.MULTILINE)


def test_a_checkout_gets_one_file(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = project.Project("platform_assets.defs", host / "platform_assets" / "defs", host)
    (host / "platform_assets" / "products").mkdir(parents=True)
    monkeypatch.setattr(project, "found", lambda: checkout)
    file, facts = new.write("returns_of_orders", Given(place="orders.csv", time="ordered_at"), label="returned")
    assert file == host / "platform_assets" / "products" / "returns_of_orders.py"
    assert [*file.parent.iterdir()] == [file]
    assert facts.endswith("lines from 600 rows and 13 columns")


@pytest.mark.parametrize(
    ("table", "label", "sentence"),
    [
        (Given(place="orders.csv", time="ordered_at"), "shop", "the label 'shop' is 'one' in all rows"),
        (Given(place="nowhere.csv"), "returned", "there is no such file"),
        (Given(place="sqlite:///orders.db"), "returned", "--query is missing"),
        (Given(place="sqlite:///orders.db", query="select 1"), "returned", "a query needs --time"),
        (Given(place="sqlite:///orders.db", query="select * from x", time="a"), "a", "no such table: x"),
        (Given(place="postgresql://me:secret@localhost/shop", query="select 1", time="at"), "a", "contains a password"),
        (
            Given(place="postgresql://me@localhost/shop", query="select 1", time="at", password_env="NO_SUCH_NAME"),
            "a",
            "expected in the environment's variable NO_SUCH_NAME",
        ),
    ],
)
def test_what_cannot_be_a_product_leaves_nothing(host: Path, table: Given, label: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        new.write("returns", table, label=label)
    assert "secret" not in str(refused.value)
    assert [file.name for file in (host / "shop" / "defs").iterdir()] == ["__init__.py"]


def test_a_component_that_fails_leaves_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.components import ProductScaffolder

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(ProductScaffolder, "scaffold", fail)
    with pytest.raises(OSError, match="no space"):
        new.write("returns", Given(place="orders.csv", time="ordered_at"), label="returned")
    assert [file.name for file in (host / "shop" / "defs").iterdir()] == ["__init__.py"]


def test_a_file_without_a_last_line_end_and_one_without_rows_are_refused(host: Path) -> None:
    (host / "cut.csv").write_text("a,b\n1,2\n3,4", encoding="utf-8")
    with pytest.raises(NoGuess, match=r"the last line of cut\.csv has no end"):
        new.write("returns", Given(place="cut.csv"), label="b")
    (host / "empty.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(NoGuess, match=r"empty\.csv has no rows"):
        new.write("returns", Given(place="empty.csv"), label="b")


def test_a_folder_without_a_project_has_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "found", lambda: None)
    with pytest.raises(NoGuess, match="this folder is in no Dagster project"):
        new.write("returns", Given(place="orders.csv"), label="returned")


@pytest.mark.costly
@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 400),
    st.sampled_from(["amount {} (EUR)", "a{}", "a_long_name_of_a_measurement_{}"]),
    st.booleans(),
    st.sampled_from(["number", "text", "two"]),
    st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", None]),
)
def test_any_table_gives_a_short_file(wide: int, name: str, has_nulls: bool, label: str, form: str | None) -> None:
    rows, nulls = 120, "NA" if has_nulls else "0"
    labels: dict[str, Callable[[int], str]] = {
        "number": lambda row: f"{row % 17}.5",
        "text": lambda row: ("Very Good", "Fair")[row % 2],
        "two": lambda row: str(row % 2),
    }
    columns = {
        name.format(number): [
            nulls if row % 11 == number % 11 else str((row * (number + 7)) % (10 ** (number % 5 + 1)) / 10)
            for row in range(rows)
        ]
        for number in range(wide)
    }
    customers = [f"c{row % 9}" for row in range(rows)]
    table = pl.DataFrame({**columns, "Customer ID": customers, "y": [labels[label](row) for row in range(rows)]})
    if form:
        days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=row // 2) for row in range(rows)]
        table = table.with_columns(pl.Series("Order Date", [day.strftime(form) for day in days]))
    result = guess(table, label="y", time="Order Date" if form else None)
    text = writing.file_of("orders", result, Origin(name="orders.csv", place="data/orders.csv"))
    ast.parse(text)
    assert text.count("\n") <= 60 + wide // 2
