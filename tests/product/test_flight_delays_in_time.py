"""Point in time: facts known later do not change earlier rows, verified by a checker that detects planted leaks."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from platform_assets.data.feature_blocks import Timeline
from platform_assets.engine.product_files import load
from platform_assets.product.spec import Window
from tests.doubles.as_of import known_by
from tests.product.conftest import Year

pytestmark = pytest.mark.slow

SPEC = load("flight_delays")
HOUR = timedelta(hours=1)
Features = Callable[[Mapping[str, pl.DataFrame], Window], pl.DataFrame]
MOMENTS = [
    datetime(2013, 1, 1, 17, 12, tzinfo=UTC),
    datetime(2013, 2, 8, 20, 0, tzinfo=UTC),
    datetime(2013, 3, 1, 4, 59, 59, tzinfo=UTC),
    datetime(2013, 3, 10, 6, 30, tzinfo=UTC),
    datetime(2013, 5, 24, 21, 47, tzinfo=UTC),
    datetime(2013, 6, 28, 0, 5, tzinfo=UTC),
    datetime(2013, 7, 27, 3, 6, tzinfo=UTC),
    datetime(2013, 9, 12, 23, 30, tzinfo=UTC),
    datetime(2013, 11, 3, 6, 0, tzinfo=UTC),
    datetime(2013, 12, 31, 15, 0, tzinfo=UTC),
]
DAYS = (
    "2013-01-01", "2013-01-05", "2013-02-09", "2013-03-10", "2013-04-19", "2013-06-28", "2013-07-27", "2013-09-02",
    "2013-11-03", "2013-12-31",
)  # fmt: skip


def inputs_of(year: Year, keys: tuple[str, ...]) -> dict[str, pl.DataFrame]:
    """Return the tables that `features` receives for these keys: with the lookback, without labels."""
    reach = SPEC.grain.with_lookback(keys, SPEC.lookback)
    return {
        source.name: table if source.is_slow else table.filter(pl.col("key").is_in(reach))
        for source in SPEC.feature_sources
        for table in [year.tables[source.name]]
    }


def around(moment: datetime) -> tuple[str, ...]:
    index = SPEC.grain.index(SPEC.grain.key_of(moment))
    return tuple(SPEC.grain.key_at(i) for i in (index - 1, index, index + 1) if 0 <= i < SPEC.grain.size)


def differing_cells(one: pl.DataFrame, other: pl.DataFrame) -> int:
    """Count the cells that differ between rows of the same entities, whose number must be equal."""
    assert one.height > 0
    assert one.select("key", "entity", "asked_at").equals(other.select("key", "entity", "asked_at"))
    return sum((one[name].ne_missing(other[name])).sum() for name in one.columns)


def cells_from_the_future(
    features: Features, tables: Mapping[str, pl.DataFrame], keys: tuple[str, ...], moment: datetime
) -> int:
    """Blank every fact known after a moment, rebuild, and count the changed cells in rows requested up to then."""
    window = Window(grain=SPEC.grain, keys=keys)
    earlier = {name: known_by(table, moment) for name, table in tables.items()}
    until = pl.col("asked_at") <= moment
    return differing_cells(features(tables, window).filter(until), features(earlier, window).filter(until))


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_blanking_the_future_changes_no_earlier_row(year: Year, moment: datetime):
    keys = around(moment)
    tables = inputs_of(year, keys)
    assert not known_by(tables["movements"], moment).equals(tables["movements"])
    assert cells_from_the_future(SPEC.features, tables, keys, moment) == 0


@pytest.mark.parametrize("key", DAYS)
def test_a_day_built_alone_equals_the_day_built_with_the_year(year: Year, key: str):
    alone = SPEC.features(inputs_of(year, (key,)), Window(grain=SPEC.grain, keys=(key,)))
    assert differing_cells(year.built.filter(pl.col("key") == key), alone) == 0


def test_the_order_of_rows_in_the_sources_does_not_matter(year: Year):
    key = "2013-06-13"
    shuffled = {name: table.sample(fraction=1, shuffle=True, seed=4) for name, table in inputs_of(year, (key,)).items()}
    assert (
        differing_cells(
            year.built.filter(pl.col("key") == key), SPEC.features(shuffled, Window(grain=SPEC.grain, keys=(key,)))
        )
        == 0
    )


def own_departure(tables: Mapping[str, pl.DataFrame], window: Window) -> pl.DataFrame:
    """Leak the flight's own departure delay, which is not known two hours before it."""
    ours = tables["movements"].select(pl.col("flight_id").alias("entity"), "dep_delay_min")
    built = SPEC.features(tables, window).join(ours, on="entity", how="left", maintain_order="left")
    return built.with_columns(pl.col("dep_delay_min").alias("prev_dep_delay_min")).drop("dep_delay_min")


def by_schedule_time(tables: Mapping[str, pl.DataFrame], window: Window) -> pl.DataFrame:
    """Leak as feature stores often do: join facts by when a flight was due instead of when it happened."""
    built = SPEC.features(tables, window)
    facts = tables["movements"].filter(pl.col("dep_delay_min").is_not_null()).sort("flight_id")
    line = Timeline(built, facts, fact_at="sched_dep_utc")
    return built.with_columns(line.latest(["dep_delay_min"], 3 * HOUR)["dep_delay_min"].alias("tail_dep_delay_min"))


def arrival_once_departed(tables: Mapping[str, pl.DataFrame], window: Window) -> pl.DataFrame:
    """Leak a row's later fact because its first one is known: arrivals of departed flights."""
    built = SPEC.features(tables, window)
    facts = tables["movements"].filter(pl.col("arr_delay_min").is_not_null()).sort("flight_id")
    line = Timeline(built, facts, fact_at="dep_known_at_utc")
    return built.with_columns(line.mean("arr_delay_min", 3 * HOUR).alias("region_dep_delay_3h_min"))


@pytest.mark.parametrize("leaky", [own_departure, by_schedule_time, arrival_once_departed])
def test_a_planted_leak_is_detected_by_the_same_checker(year: Year, leaky: Features):
    moment = MOMENTS[4]
    keys = around(moment)
    assert cells_from_the_future(leaky, inputs_of(year, keys), keys, moment) > 0
