"""The simulated month: exact cases, and the mean of many months against its closed form."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.chaos import r7_month
from tests.chaos.r7_month import Figures, Month, Outage, Span, Way
from tests.volume import draws

QUIET = Figures(losses=0, zone_losses=0, releases=0, drains=0, crashes=0)
LOSSES = replace(QUIET, losses=0.5)


def lost(replica: int, at_s: float, leaves_s: float = 10.0) -> Outage:
    return Outage(replica, at_s, at_s + leaves_s, at_s + leaves_s + 20)


def test_one_of_two_lost_replicas_fails_a_quarter_until_it_has_left() -> None:
    assert r7_month.judge([lost(0, 30)], [], 2) == Month(1, 2.5)
    assert r7_month.judge([lost(0, 55)], [], 2) == Month(2, 2.5)  # five seconds of each of two minutes
    assert r7_month.judge([lost(0, 30)], [], 2, 0.0) == Month(0, 0.0)


def test_a_minute_may_fail_a_thousandth() -> None:
    assert r7_month.judge([lost(0, 0, leaves_s=0.23)], [], 2).minutes == 0
    assert r7_month.judge([lost(0, 0, leaves_s=0.25)], [], 2).minutes == 1


def test_without_any_replica_everything_fails_also_through_the_proxy() -> None:
    both = [lost(0, 0), lost(1, 0)]
    assert r7_month.judge(both, [], 2) == r7_month.judge(both, [], 2, 0.0) == Month(1, 30.0)


def test_the_last_endpoint_is_the_lost_one_while_the_other_drains() -> None:
    drained = Outage(1, 100, 100, 110)
    assert r7_month.judge([drained], [], 2) == Month(0, 0.0)
    assert r7_month.judge([drained], [], 1) == Month(1, 10.0)
    lost_too = lost(0, 105)
    # 5 s of all requests, and then, with the drained one back, 5 s of a quarter.
    assert r7_month.judge([drained, lost_too], [], 2) == Month(1, 5 + 5 * 0.25)


def test_an_update_fails_what_was_measured() -> None:
    assert r7_month.judge([], [Span(0, 30, 0.01)], 2) == Month(1, pytest.approx(0.3))
    assert r7_month.judge([], [Span(0, 30, 0.0)], 2) == Month(0, 0.0)


def test_a_zone_takes_all_its_replicas() -> None:
    assert [list(members) for members in r7_month.zone_members(5, 3)] == [[0, 3], [1, 4], [2]]
    assert [list(members) for members in r7_month.zone_members(2, 3)] == [[0], [1]]
    one_zone = replace(QUIET, zone_losses=1.0, zones=1)
    outages, _ = r7_month.draw(one_zone, 3, random.Random(1))
    assert outages
    assert {outage.begun_s: sum(one.begun_s == outage.begun_s for one in outages) for outage in outages} == {
        outage.begun_s: 3 for outage in outages
    }


def test_a_drain_waits_for_a_replica_that_is_missing() -> None:
    figures = replace(QUIET, drains=200.0, start_s=2_000.0)
    outages, _ = r7_month.draw(figures, 2, random.Random(3))
    ordered = sorted(outages, key=lambda outage: outage.begun_s)
    assert len(ordered) > 300
    assert all(one.back_s <= other.begun_s for one, other in itertools.pairwise(ordered))


@given(st.floats(0.0, 300.0), st.floats(0.0, 1.0))
@settings(max_examples=draws(60), deadline=None)
def test_the_closed_form_of_one_event_is_the_mean_over_its_beginnings(duration_s: float, share: float) -> None:
    # At the limit itself the last bit of a sum decides, here and there differently.
    assume(abs(duration_s * share - 60 * r7_month.ALLOWED) > 1e-6)
    beginnings = 120
    counted = sum(
        r7_month.judge([], [Span(begin, begin + duration_s, share)], 2).minutes
        for begin in (60 * (number + 0.5) / beginnings for number in range(beginnings))
    )
    # Each of the two ends of a covered minute is off by at most one beginning.
    minutes = duration_s / 60 + 2
    assert counted / beginnings == pytest.approx(
        r7_month.minutes_per_event(duration_s, share), abs=2 * minutes / beginnings
    )


@given(st.integers(1, 6), st.integers(0, 2**32), st.floats(0.0, 0.2))
@settings(max_examples=15, deadline=None)
def test_the_proxy_never_fails_more_than_its_share_or_the_service_itself(
    replicas: int, seed: int, share: float
) -> None:
    losses = {"losses": 3.0, "zone_losses": 1.0, "crashes": 0.0}
    figures = replace(Figures(**losses), proxied_share=min(share, 1 / max(1, replicas) ** 2))
    bare, proxied = (r7_month.simulate(figures, replicas, way, months=3, seed=seed) for way in (Way.BARE, Way.LOCAL))
    assert proxied.per_million <= bare.per_million * (1 + 1e-9)
    assert proxied.mean <= bare.mean


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_the_mean_of_many_months_is_that_of_the_closed_form(replicas: int) -> None:
    months = 2_000
    expected = r7_month.expected_minutes(LOSSES, replicas)
    mean = r7_month.simulate(LOSSES, replicas, Way.BARE, months).mean
    # A loss costs one or two minutes, and losses of a month are independent: its variance is below 4 per loss.
    deviation = math.sqrt(4 * replicas * LOSSES.losses / months)
    assert mean == pytest.approx(expected, abs=4 * deviation)
    assert expected == pytest.approx(replicas * 0.5 * (50 + 60 - 2 * 0.06 * replicas**2) / 60)


def test_the_same_seed_simulates_the_same_months() -> None:
    one, same, other = (r7_month.simulate(Figures(losses=5), 3, Way.BARE, months=20, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("way", "rates", "per_month"),
    [
        (Way.BARE, {"crashes": 50.0}, 0.0),
        (Way.SERVICE, {"crashes": 50.0}, 2 * 50 * r7_month.minutes_per_event(2.0, 1 / 4)),
        (Way.LOCAL, {"crashes": 50.0}, 2 * 50 * r7_month.minutes_per_event(2.0, 1 / 2)),
        (Way.LOCAL, {"zone_losses": 0.0, "losses": 0.0}, 0.0),
    ],
)
def test_the_cost_of_lost_proxies_depends_on_how_callers_reach_them(
    way: Way, rates: dict[str, float], per_month: float
) -> None:
    months = 400
    result = r7_month.simulate(replace(QUIET, **rates), 3, way, months)
    assert result.mean == pytest.approx(per_month, abs=4 * math.sqrt(4 * 100 / months) if per_month else 0)


def test_a_lost_node_takes_a_quarter_through_two_proxies_behind_a_service() -> None:
    (drawn,) = {
        (span.ended_s - span.begun_s, span.share)
        for seed in range(40)
        for span in r7_month.draw_proxies(LOSSES, Way.SERVICE, random.Random(seed))
    }
    assert drawn == (pytest.approx(50.0), 0.25)
    assert r7_month.draw_proxies(LOSSES, Way.LOCAL, random.Random(1)) == []


def test_a_quiet_month_has_no_minute_below_the_target() -> None:
    assert set(r7_month.simulate(QUIET, 3, Way.BARE, months=5).months) == {Month(0, 0.0)}


@pytest.mark.parametrize(("replicas", "months"), [(0, 1), (2, 0)])
def test_nothing_to_simulate_is_refused(replicas: int, months: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1 each"):
        r7_month.simulate(QUIET, replicas, Way.LOCAL, months=months)


def test_the_table_has_a_line_per_case_replicas_and_way() -> None:
    lines = r7_month.table({"quiet": QUIET}, months=2)
    assert len(lines) == 2 + len(r7_month.REPLICAS) * len(Way)
    assert lines[2] == "| quiet | 2 | without a proxy | 0.0000 | 0 | 0.0000 |"
