"""The only *now*: the wall clock for live products, a replayed moment for recordings."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from platform_assets.base import clock
from platform_assets.base.settings import Settings

MOMENT = datetime(2013, 3, 1, 5, tzinfo=UTC)


def test_moments_of_any_zone_are_stored_in_utc(settings: Settings) -> None:
    clock.move(settings, "tiny", MOMENT.astimezone(timezone(timedelta(hours=-5))))
    now = clock.now(settings, "tiny", is_live=False)
    assert (now, now.tzinfo) == (MOMENT, UTC)


def test_each_product_has_its_own_clock(settings: Settings) -> None:
    clock.move(settings, "tiny", MOMENT)
    with pytest.raises(LookupError, match="other is a recording and its clock has not been set"):
        clock.now(settings, "other", is_live=False)


def test_a_recordings_clock_stays_where_it_was_set_and_never_runs_backwards(settings: Settings) -> None:
    clock.move(settings, "tiny", MOMENT)
    clock.move(settings, "tiny", MOMENT)
    with pytest.raises(ValueError, match="tiny is already later"):
        clock.move(settings, "tiny", MOMENT - timedelta(seconds=1))
    assert clock.now(settings, "tiny", is_live=False) == MOMENT
    clock.move(settings, "tiny", MOMENT + timedelta(microseconds=1))
    assert clock.now(settings, "tiny", is_live=False) == MOMENT + timedelta(microseconds=1)


def test_a_moment_without_zone_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        clock.move(settings, "tiny", datetime(2013, 3, 1))  # noqa: DTZ001 - naive is what is refused


def test_a_replay_is_announced_per_product_and_moves_no_clock(settings: Settings) -> None:
    assert clock.announced(settings.state, "tiny") is None
    clock.announce(settings, "tiny", "2013-03-20")
    assert clock.announced(settings.state, "tiny") == "2013-03-20"
    assert clock.announced(settings.state, "other") is None
    with pytest.raises(LookupError, match="its clock has not been set"):
        clock.now(settings, "tiny", is_live=False)
