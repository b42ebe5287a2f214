"""The month of row R7: one event against a count over all its beginnings, and the sums of cases done by hand."""

from dataclasses import replace

import pytest

from proof.chaos.r7_month import ALLOWED, Figures, Way, minutes, minutes_per_event, per_million

QUIET = Figures(losses=0, zone_losses=0, releases=0, drains=0, crashes=0)
LOSSES = replace(QUIET, losses=0.5)


@pytest.mark.parametrize("duration_s", [0.05, 0.2, 2.0, 50.0, 70.0, 300.0])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.002, 0.04, 0.25, 1.0])
def test_one_event_costs_the_mean_over_its_beginnings(duration_s: float, share: float) -> None:
    beginnings = [60 * (number + 0.5) / 240 for number in range(240)]
    covered = (
        min(begin + duration_s, 60 * (minute + 1)) - max(begin, 60 * minute)
        for begin in beginnings
        for minute in range(7)
    )
    counted = sum(max(0.0, seconds) * share > 60 * ALLOWED for seconds in covered) / len(beginnings)
    # Each end of a stretch is off by at most one beginning per minute that it covers.
    off = 2 * (duration_s / 60 + 2) / len(beginnings)
    assert minutes_per_event(duration_s, share) == pytest.approx(counted, abs=off)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_a_lost_node_takes_its_share_squared_until_it_has_left(replicas: int) -> None:
    expected = replicas * 0.5 * (50 + 60 - 2 * 0.06 * replicas**2) / 60
    assert minutes(LOSSES, replicas, Way.BARE) == pytest.approx(expected)
    assert per_million(LOSSES, replicas, Way.BARE) == pytest.approx(1e6 * 0.5 * 50 / replicas / (30 * 86_400))


def test_what_takes_all_replicas_lasts_until_they_are_replaced() -> None:
    alone = minutes(LOSSES, 1, Way.LOCAL)
    assert alone == 0.5 * minutes_per_event(70, 1.0)
    assert minutes(replace(QUIET, zone_losses=0.5, zones=1), 3, Way.BARE) == alone
    two_zones = minutes(replace(QUIET, zone_losses=1.0, zones=2), 3, Way.BARE)
    assert two_zones == minutes_per_event(50, 4 / 9) + minutes_per_event(50, 1 / 9)


@pytest.mark.parametrize(
    ("way", "rates", "expected"),
    [
        (Way.BARE, {"crashes": 50.0}, 0.0),
        (Way.SERVICE, {"crashes": 50.0}, 2 * 50 * minutes_per_event(2.0, 1 / 4)),
        (Way.LOCAL, {"crashes": 50.0}, 2 * 50 * minutes_per_event(2.0, 1 / 2)),
        (Way.SERVICE, {"losses": 0.5}, 2 * 0.5 * minutes_per_event(50.0, 1 / 4)),
        (Way.LOCAL, {"losses": 0.5}, 0.0),
        (Way.LOCAL, {"losses": 0.5, "proxied_share": 0.1}, 3 * 0.5 * minutes_per_event(50.0, 0.1)),
        (Way.BARE, {"releases": 2.0, "rolling_share": 0.01}, 2 * minutes_per_event(30.0, 0.01)),
        (Way.BARE, {"drains": 2.0, "draining_share": 0.01}, 6 * minutes_per_event(10.0, 0.01)),
        (Way.BARE, {}, 0.0),
    ],
)
def test_the_sum_depends_on_what_happens_and_on_how_callers_reach_replicas(
    way: Way, rates: dict[str, float], expected: float
) -> None:
    assert minutes(replace(QUIET, **rates), 3, way) == pytest.approx(expected)
