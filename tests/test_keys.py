"""Grains: closed-form numbers, the two days a year that do not have 24 hours, and properties for any key."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.keys import BatchGrain, DailyGrain, Grain, HourlyGrain, KeyProblem

NEW_YORK = DailyGrain(start="2013-01-01", end="2013-12-31", time_zone="America/New_York")
HOURS = HourlyGrain(start="2013-01-01T00", end="2013-12-31T23")
BATCHES = BatchGrain(count=700)
ZONES = ("UTC", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Kathmandu", "Pacific/Auckland")

grains = st.sampled_from(
    [NEW_YORK, HOURS, BATCHES, *(DailyGrain(start="2009-03-01", end="2013-12-31", time_zone=zone) for zone in ZONES)]
)


@st.composite
def positions(draw: st.DrawFn) -> tuple[Grain, int]:
    grain = draw(grains)
    assert grain.size is not None
    return grain, draw(st.integers(0, grain.size - 1))


def test_daily_keys_count_from_the_start() -> None:
    assert NEW_YORK.size == 365
    assert (NEW_YORK.first, NEW_YORK.last) == ("2013-01-01", "2013-12-31")
    assert NEW_YORK.index("2013-03-01") == 59
    assert NEW_YORK.shift("2013-03-01", -1) == "2013-02-28"
    assert DailyGrain(start="2012-02-28").key_at(1) == "2012-02-29"


def test_a_day_has_its_instant_at_midnight_of_the_zone() -> None:
    assert NEW_YORK.instant("2013-03-01") == datetime(2013, 3, 1, 5, tzinfo=UTC)
    assert NEW_YORK.instant("2013-07-01") == datetime(2013, 7, 1, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "hours"), [("2013-03-09", 24), ("2013-03-10", 23), ("2013-11-03", 25), ("2013-11-04", 24)]
)
def test_days_of_the_clock_changes_have_23_and_25_hours(key: str, hours: int) -> None:
    assert NEW_YORK.instant(NEW_YORK.shift(key, 1)) - NEW_YORK.instant(key) == timedelta(hours=hours)


def test_the_hour_that_happens_twice_belongs_to_one_day() -> None:
    first, second = datetime(2013, 11, 3, 5, 30, tzinfo=UTC), datetime(2013, 11, 3, 6, 30, tzinfo=UTC)
    assert first.astimezone(NEW_YORK.zone).hour == second.astimezone(NEW_YORK.zone).hour == 1
    assert NEW_YORK.key_of(first) == NEW_YORK.key_of(second) == "2013-11-03"


def test_hourly_keys_are_hours_of_real_time() -> None:
    assert HOURS.size == 365 * 24
    assert HOURS.key_at(25) == "2013-01-02T01"
    assert HOURS.instant("2013-11-03T06") == datetime(2013, 11, 3, 6, tzinfo=UTC)
    assert HOURS.key_of(datetime(2013, 11, 3, 1, 59, tzinfo=NEW_YORK.zone)) == "2013-11-03T05"
    assert HOURS.key_of(datetime(2013, 11, 3, 1, 59, fold=1, tzinfo=NEW_YORK.zone)) == "2013-11-03T06"


def test_a_batch_starts_when_the_previous_one_arrived() -> None:
    arrivals = {"0001": datetime(2020, 5, 1, tzinfo=UTC), "0002": datetime(2020, 5, 4, tzinfo=UTC)}
    right_after = BATCHES.instant("0003", arrivals.__getitem__)
    assert right_after == arrivals["0002"] + timedelta(microseconds=1), "the previous batch is seen completely"
    assert BATCHES.instant("0001") < arrivals["0001"]
    some = {**arrivals, "0003": None}
    assert BATCHES.instant("0004", some.__getitem__) == right_after, (
        "a batch without a row arrived with the previous one"
    )
    assert BATCHES.instant("0002", lambda key: None) == BATCHES.instant("0001")
    with pytest.raises(KeyProblem, match="arrival_of"):
        BATCHES.instant("0003")


@pytest.mark.parametrize(
    ("width", "label_delay", "keys"),
    [
        (None, 0, ("0001", "0002", "0003", "0004")),
        (None, 1, ("0001", "0002", "0003")),
        (2, 0, ("0003", "0004")),
        (2, 1, ("0003",)),
        (99, 1, ("0001", "0002", "0003")),
        (1, 1, ()),
        (None, 9, ()),
    ],
)
def test_window_ends_where_labels_are_missing(width: int | None, label_delay: int, keys: tuple[str, ...]) -> None:
    assert BATCHES.window("0005", width=width, label_delay=label_delay) == keys


def test_lookback_is_cut_at_the_first_key() -> None:
    assert BATCHES.with_lookback(("0003", "0004"), 1) == ("0002", "0003", "0004")
    assert BATCHES.with_lookback(("0002",), 9) == ("0001", "0002")
    assert BATCHES.with_lookback((), 3) == ()


@pytest.mark.parametrize(
    ("grain", "key"),
    [
        (NEW_YORK, "2014-01-01"),
        (NEW_YORK, "2012-12-31"),
        (NEW_YORK, "20130301"),
        (NEW_YORK, "2013-02-29"),
        (NEW_YORK, ""),
        (HOURS, "2013-03-01"),
        (HOURS, "2013-3-1T5"),
        (HOURS, "2013-03-01T24"),
        (HOURS, "2014-01-01T00"),
        (BATCHES, "0000"),
        (BATCHES, "0701"),
        (BATCHES, "1"),
        (BATCHES, "-001"),
        (BATCHES, "٠٠٠١"),
    ],
)
def test_foreign_keys_are_refused_with_the_key_in_the_message(grain: Grain, key: str) -> None:
    assert not grain.contains(key)
    with pytest.raises(KeyProblem, match=f"{key!r}"):
        grain.index(key)


def test_backward_ranges_and_positions_outside_are_refused() -> None:
    with pytest.raises(KeyProblem, match="backwards"):
        BATCHES.span("0004", "0003")
    for position in (-1, 700):
        with pytest.raises(KeyProblem, match="no key at position"):
            BATCHES.key_at(position)
    with pytest.raises(KeyProblem):
        NEW_YORK.shift("2013-12-31", 1)


def test_moments_without_a_zone_are_refused() -> None:
    for grain in (NEW_YORK, HOURS):
        with pytest.raises(ValueError, match="time zone"):
            grain.key_of(datetime(2013, 3, 1))  # noqa: DTZ001 - naive is what is refused


def test_a_grain_validates_its_arguments() -> None:
    with pytest.raises(KeyProblem):
        DailyGrain(start="2013-01-32")
    with pytest.raises(KeyProblem):
        HourlyGrain(start="2013-01-02T00", end="2013-01-01T00")
    with pytest.raises(ValueError, match="count"):
        BatchGrain(count=10_000)
    assert DailyGrain(start="2013-01-01").size is None
    assert DailyGrain(start="2013-01-01").last is None


@given(positions())
def test_position_and_key_are_inverse_functions(drawn: tuple[Grain, int]) -> None:
    grain, position = drawn
    key = grain.key_at(position)
    assert grain.index(key) == position
    assert grain.contains(key)
    assert grain.shift(grain.first, position) == key
    assert len(grain.before(key)) == position


@given(positions(), st.integers(0, 80), st.one_of(st.none(), st.integers(1, 120)))
def test_a_window_is_the_tail_of_the_earlier_keys(drawn: tuple[Grain, int], delay: int, width: int | None) -> None:
    grain, position = drawn
    cutoff = grain.key_at(position)
    first = 0 if width is None else max(0, position - width)
    assert (
        grain.window(cutoff, width=width, label_delay=delay) == grain.before(cutoff)[first : max(0, position - delay)]
    )


@given(positions(), positions())
def test_text_order_is_key_order(one: tuple[Grain, int], other: tuple[Grain, int]) -> None:
    grain, position = one
    assert grain.size is not None
    another = other[1] % grain.size
    assert (grain.key_at(position) < grain.key_at(another)) == (position < another)


@given(st.sampled_from(ZONES), st.integers(1, 1700))
def test_a_day_begins_at_its_instant_and_not_a_microsecond_earlier(zone: str, position: int) -> None:
    grain = DailyGrain(start="2009-03-01", end="2013-12-31", time_zone=zone)
    key = grain.key_at(position)
    assert grain.key_of(grain.instant(key)) == key
    assert grain.key_of(grain.instant(key) - timedelta(microseconds=1)) == grain.key_at(position - 1)


@given(st.integers(0, HOURS.size - 1 if HOURS.size else 0), st.integers(0, 3599))
def test_an_hour_contains_its_seconds(position: int, second: int) -> None:
    key = HOURS.key_at(position)
    assert HOURS.key_of(HOURS.instant(key) + timedelta(seconds=second)) == key
