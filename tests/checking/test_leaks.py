"""Which ways to see the future `driftline check` names, and which it does not."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets import check
from platform_assets.check.messages import Line
from platform_assets.data.feature_blocks import Timeline
from tests.checking import leaks
from tests.checking.leaks import HONEST, LEAKS, Leak

pytestmark = pytest.mark.slow

UNNAMED = {
    "either_or": "neither column tells the label alone, and both rows say that they were known",
    "cumulative": "the row says that it was known, and the count is no more than a good hint",
}
"""Leaks that no line names, and why not."""
BY_NAME = {leak.name: leak for leak in LEAKS}
IN_NO_LINE = {"code", "clock"}


def lines(leak: Leak, **declared: Any) -> dict[str, Line]:
    return {line.check: line for line in check.of_product(leaks.product(leak, **declared))}


def naming(found: Mapping[str, Line]) -> list[Line]:
    return [line for line in found.values() if line.state != "ok" and line.check not in IN_NO_LINE]


def declared_by(leak: Leak) -> dict[str, dict[str, Any]]:
    return {source: {"known_at_of": columns} for source, columns in leak.known_at_of.items()}


@pytest.mark.costly
def test_the_product_without_a_leak_has_nothing_to_name() -> None:
    assert naming(lines(HONEST)) == []


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"remembered"}))
def test_a_leak_is_named_unless_it_is_among_those_that_are_not(name: str) -> None:
    result = naming(lines(BY_NAME[name]))
    moments = {at for columns in BY_NAME[name].known_at_of.values() for at in columns.values() if at}
    about = ("'leak'", "field leak ", *(f"'{column}'" for column in {*moments, "crew_since_utc"}))
    assert any(text in line.message for line in result for text in about) == (name not in UNNAMED), result
    if name in UNNAMED:
        assert result == []


@pytest.mark.parametrize("name", [leak.name for leak in LEAKS if leak.known_at_of])
def test_what_is_declared_to_be_known_later_is_blanked(name: str) -> None:
    leak = BY_NAME[name]
    line = lines(leak, **declared_by(leak))["point in time"]
    assert line.is_problem
    assert "'leak' changes in" in line.message


def test_half_of_a_declaration_is_noted() -> None:
    declared = {"parcels": {"known_at_of": {"status_known_at_utc": "status_known_at_utc"}}}
    line = lines(BY_NAME["status"], **declared)["point in time"]
    expected = "no other column of the source parcels is declared as known at status_known_at_utc"
    assert (line.state, line.message) == ("note", expected)


@pytest.mark.costly
def test_features_that_need_the_order_of_a_file_are_noted() -> None:
    def in_order(asks: pl.DataFrame, tables: Any, window: Any) -> pl.Series:
        if not tables["scans"]["scanned_at_utc"].is_sorted():
            raise ValueError("the scans are not sorted")
        return HONEST.feature(asks, tables, window)

    line = lines(replace(HONEST, feature=in_order))["point in time"]
    assert (line.state, line.message.partition(":")[0]) == (
        "note",
        "features() fails when the rows of each file come in reverse order",
    )


def test_the_column_of_a_moment_must_hold_moments() -> None:
    line = lines(BY_NAME["status"], parcels={"known_at_of": {"status": "weight_kg"}})["source parcels"]
    assert line.is_problem
    assert "column 'weight_kg' is Float64, and the source uses it as a time; expected pl.Datetime" in line.message


@pytest.mark.parametrize("name", ["status", "other_name", "shared_moment"])
def test_a_declared_column_that_is_read_in_time_passes(name: str) -> None:
    """The field counts, as of the question, the marked parcels of the depot."""
    leak = BY_NAME[name]
    column, moment = next(iter(leak.known_at_of["parcels"].items()))

    def in_time(asks: pl.DataFrame, tables: Any, _: Any) -> pl.Series:
        facts = tables["parcels"].drop_nulls(column).sort(moment, "parcel")
        return Timeline(asks, facts, by=("depot",), fact_at=moment).total(column, timedelta(hours=24))

    assert naming(lines(replace(leak, feature=in_time), **declared_by(leak))) == []


def test_an_undeclared_moment_is_refused_with_the_column_and_the_cure() -> None:
    message = lines(BY_NAME["other_name"])["point in time"].message
    assert message.startswith(
        "column 'seen_on' of the source parcels lies after its row's known_at_utc in 456 of 456 rows"
    )
    assert "known_at_of={'seen_on': 'seen_on'} where it was known only then, likewise each of parcel" in message
    assert "remark that came with it; known_at_of={'seen_on': None} where it was known with its row" in message
    assert message.endswith("Fix it in platform_assets/products/parcels_other_name.py.")


@pytest.mark.costly
def test_a_plan_passes_once_it_is_declared_as_known_with_its_row() -> None:
    plan = Leak(
        name="plan",
        sentence="Minutes from the promised moment to the end of the driver's shift.",
        rows=leaks.with_columns(shift_ends_utc=pl.col("promised_at_utc") + timedelta(hours=3)),
        feature=leaks._minutes_after_promise("shift_ends_utc"),
    )
    assert "'shift_ends_utc'" in lines(plan)["point in time"].message
    assert naming(lines(plan, parcels={"known_at_of": {"shift_ends_utc": None}})) == []


@pytest.mark.costly
def test_a_slow_table_with_a_history_is_read_as_of_its_known_at() -> None:
    leak, declared = BY_NAME["slow_history"], {"depots": {"known_at": "crew_since_utc"}}
    assert "'leak' changes in" in lines(leak, **declared)["point in time"].message

    def in_time(asks: pl.DataFrame, tables: Any, _: Any) -> pl.Series:
        crews = Timeline(asks, tables["depots"], by=("depot",), fact_at="crew_since_utc")
        return crews.latest(["crew"], timedelta(days=90))["crew"]

    assert naming(lines(replace(leak, feature=in_time), **declared)) == []


REMEMBERING = """
from dataclasses import replace

from tests.checking import leaks

SOUND = leaks.product(leaks.HONEST)
KEPT = {}


def features(tables, window):
    for depot, key, mean in tables["scans"].group_by("depot", "key").agg(leaks.pl.col("load").mean()).iter_rows():
        KEPT.setdefault((depot, key), mean)
    rows = SOUND.features(tables, window)
    means = [KEPT.get(pair) for pair in rows.select("depot", "key").iter_rows()]
    return rows.with_columns(leaks.pl.Series("leak", means, dtype=leaks.pl.Float64))


SPEC = replace(SOUND, name="remembering", features=features)
"""
HELPING = """
from dataclasses import replace
from functools import cache

from tests.checking import leaks

SOUND = leaks.product(leaks.HONEST)
CALLS = []


@cache
def docks(depot):
    return len(depot)


def features(tables, window):
    CALLS.append(window)
    rows = SOUND.features(tables, window)
    return rows.with_columns(leak=leaks.pl.col("depot").map_elements(docks, leaks.pl.Int64).cast(leaks.pl.Float64))


SPEC = replace(SOUND, name="remembering", features=features)
"""


@pytest.mark.parametrize(("text", "is_named"), [(REMEMBERING, True), (HELPING, False)])
def test_what_a_products_file_keeps_between_calls_does_not_hide_the_future(
    text: str, is_named: bool, product_folder: Path
) -> None:
    (product_folder / "remembering.py").write_text(text, encoding="utf-8")
    assert "remembered" not in UNNAMED  # it needs a file of its own, whose globals it can keep something in
    result = {line.check: line for line in dict(check.run("remembering"))["remembering"]}
    assert ("'leak' changes in" in result["point in time"].message) == is_named
    assert result["point in time"].is_problem == is_named
