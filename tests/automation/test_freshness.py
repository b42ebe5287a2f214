"""Stale data raises an alert, then one when fixed; stale models request a decision; live products have policies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation import freshness_policies
from platform_assets.base import naming
from platform_assets.base.keys import DailyGrain
from platform_assets.base.settings import Settings
from platform_assets.data import unlabelled
from platform_assets.monitoring import staleness
from platform_assets.monitoring.staleness import BUSY_S, IDLE_S, Behind, Gaps, Plan, plan
from platform_assets.product.monitoring import Retraining
from platform_assets.sensors import freshness
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents, recorded
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

GRAIN = recorded.GRAIN
STAGES = ("validated_plans", "validated_readings", "features", "predictions", "outcomes", "decision")
SENSOR = freshness.watch.build([recorded.SPEC])


def planned(
    newest: str | None,
    behind: Any,
    *,
    now_s: float = 0.0,
    is_busy: bool = False,
    key: str = "2020-01-05",
    gap: tuple[str, ...] = (),
) -> Plan:
    first = GRAIN.first if newest is None else GRAIN.shift(newest, 1)
    after = GRAIN.span(first, key) if GRAIN.index(first) <= GRAIN.index(key) else ()
    result = Gaps(newest=newest, missing=(*gap, *after))
    return plan(GRAIN, {"features": key}, {"features": result}, behind, is_busy=is_busy, now_s=now_s)


def test_a_stage_that_has_the_expected_key_or_a_later_one_is_fresh() -> None:
    for newest in ("2020-01-05", "2020-01-06"):
        result = planned(newest, {})
        assert (result.behind, result.alerts) == ({}, ())
        assert result.reason == "every stage has 2020-01-05"


def test_staleness_raises_one_alert_after_a_few_idle_seconds_which_ends_when_fixed() -> None:
    behind: Any = {}
    notices = []
    for now_s in (900.0, 0.0, IDLE_S - 0.1, IDLE_S, IDLE_S + 30.0):  # first the clock is set back
        result = planned("2020-01-04", behind, now_s=now_s)
        behind = result.behind
        notices += [(now_s, notice.id) for notice in result.alerts]
    assert notices == [(IDLE_S, "stale-features-2020-01-05")]
    assert result.reason == "features lacks 2020-01-05"
    later = planned("2020-01-04", behind, key="2020-01-06")
    assert later.alerts == (), "it is still the same episode when the next key is overdue too"
    repaired = planned("2020-01-06", later.behind, key="2020-01-06")
    assert (repaired.alerts, repaired.ended) == ((), ("stale-features-2020-01-05",))
    assert planned("2020-01-06", repaired.behind).ended == ()


def test_a_gap_in_the_middle_is_stale_and_fixed_only_when_none_is_left() -> None:
    behind: Any = {}
    notices, ended = [], []
    courses = [("2020-01-02",)] * 5 + [("2020-01-02", "2020-01-04")] * 2 + [("2020-01-04",), ()]
    for place, gap in enumerate(courses):
        result = planned("2020-01-05", behind, gap=gap, now_s=place * IDLE_S / 4)
        behind = result.behind
        notices += [(notice.id, notice.text) for notice in result.alerts]
        ended.append(result.ended)
    assert notices == [
        ("stale-features-2020-01-02", "features is stale: 2020-01-02 is overdue, and the newest key is 2020-01-05.")
    ]
    assert ended == [()] * (len(courses) - 1) + [("stale-features-2020-01-02",)]


def test_a_given_up_gap_ends_the_alert() -> None:
    behind = Behind(since="2020-01-02", since_s=0.0, idle_since_s=0.0, is_alerted=True)
    result = Gaps(newest="2020-01-05", given_up=("2020-01-02",))
    ended = plan(
        GRAIN, {"outcomes": "2020-01-05"}, {"outcomes": result}, {"outcomes": behind}, is_busy=False, now_s=90.0
    )
    assert (ended.behind, ended.alerts, ended.ended) == ({}, (), ("stale-outcomes-2020-01-02",))


def test_gaps_are_found_in_one_read_and_not_searched_again_while_there_are_none(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(expected: str, **previous: str | None) -> Gaps:
        values = {"closed": None, "whole": None, "since": None, **previous}
        return staleness.find(ProductStore(recorded.SPEC, Settings.from_environment()), "outcomes", expected, **values)

    for key in ("2020-01-01", "2020-01-03", "2020-01-04", "2020-01-05", "2020-01-07"):
        world.tables.record("outcomes", key, content_digest="0", inputs={}, code="0")
    assert look("2020-01-04") == Gaps(newest="2020-01-07", missing=("2020-01-02",))
    unlabelled.give_up(
        world.tables, ["2020-01-02"], cutoff="2020-01-09", why="late", at=datetime(2020, 1, 9, tzinfo=UTC)
    )
    assert look("2020-01-04") == Gaps(newest="2020-01-07", whole="2020-01-05")
    assert look("2020-01-04", since="2020-01-02").given_up == ("2020-01-02",)
    assert look("2020-01-06", whole="2020-01-05").missing == ("2020-01-06",)
    unlabelled.give_up(
        world.tables, ["2020-01-08"], cutoff="2020-01-09", why="late", at=datetime(2020, 1, 9, tzinfo=UTC)
    )
    assert look("2020-01-08").missing == ("2020-01-06", "2020-01-08"), "without its newest key it is stale, too"
    monkeypatch.setattr(ProductStore, "tables", None)
    assert look("2020-01-04", whole="2020-01-05").whole == "2020-01-05", "nothing was read"


def test_labels_of_batches_are_expected_one_batch_after_they_were_due() -> None:
    def at(closed: str | None) -> dict[str, str]:
        return staleness.expected_keys(batches.SPEC, datetime(2100, 1, 1, tzinfo=UTC), {}, closed)

    assert (at(None), at("0003")) == ({}, {})
    assert (at("0004"), at("0010")) == ({"outcomes": "0001"}, {"outcomes": "0007"})


def test_work_under_way_is_waited_for_only_for_a_while() -> None:
    behind: Any = {}
    noticed_s = []
    for now_s in (0.0, IDLE_S, BUSY_S - 0.1, BUSY_S, BUSY_S + 30.0):
        result = planned(None, behind, is_busy=True, now_s=now_s)
        behind = result.behind
        noticed_s += [now_s for _ in result.alerts]
    assert noticed_s == [BUSY_S]
    assert planned("2020-01-05", {"features": Behind(since="2020-01-05", since_s=0.0, idle_since_s=0.0)}).alerts == ()


def test_a_key_is_expected_when_every_source_is_overdue_and_labels_later() -> None:
    def at(moment: str) -> dict[str, str]:
        return staleness.expected_keys(recorded.SPEC, datetime.fromisoformat(moment), {})

    assert at("2020-01-02T23:59:59+00:00") == {}
    first = at("2020-01-03T00:00:00+00:00")
    assert first == dict.fromkeys(set(STAGES) - {"outcomes"}, "2020-01-01")
    assert at("2020-01-04T00:00:00+00:00")["outcomes"] == "2020-01-01"
    assert at("2020-01-20T12:00:00+00:00")["features"] == "2020-01-18"
    assert at("2021-01-01T00:00:00+00:00")["decision"] == GRAIN.last
    hinted = staleness.expected_keys(recorded.SPEC, datetime(2020, 1, 20, tzinfo=UTC), {"decision": "2020-01-17"})
    assert hinted["decision"] == "2020-01-18"
    assert staleness.expected_keys(batches.SPEC, datetime(2100, 1, 1, tzinfo=UTC), {}) == {}


@pytest.mark.parametrize(
    ("newest", "live", "is_stale"),
    [
        ("2020-01-10", "2020-01-01", False),
        ("2020-01-15", "2020-01-06", False),
        ("2020-01-16", "2020-01-06", True),
        ("2020-01-31", "2020-01-06", False),
        ("2020-01-16", None, False),
        (None, "2020-01-06", False),
    ],
)
def test_a_model_is_stale_beyond_its_limit_and_one_decision(newest: str, live: str | None, is_stale: bool) -> None:
    policy = Retraining(max_age=7, decide_every=3)
    result = staleness.stale_model(GRAIN, policy, newest=newest, live_cutoff=live)
    assert (result is not None) is is_stale


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_ages_with_the_clock_and_raises_one_alert_until_fixed(world: Any, stage: str) -> None:
    def fill(key: str, *stages: str) -> None:
        for item in stages:
            if item == "decision":
                world.decide(key)
            else:
                world.tables.record(item, key, content_digest="0", inputs={}, code="0")

    world.move("2020-01-01T12:00:00+00:00")
    assert "no key is due yet" in world.reason(SENSOR)
    fill("2020-01-01", *STAGES)
    world.move("2020-01-04T00:00:00+00:00")
    fill("2020-01-02", *(item for item in STAGES if item != stage))
    world.move("2020-01-05T00:00:00+00:00")
    fill("2020-01-03", *(item for item in STAGES if item != stage))
    for waited_s in (0, IDLE_S, 30):
        world.wait(waited_s)
        assert f"{stage} lacks" in world.reason(SENSOR)
    (alert,) = world.alerts()
    assert (alert["kind"], alert["details"]["stage"], alert["details"]["newest"]) == ("stale", stage, "2020-01-01")
    for key in ("2020-01-02", "2020-01-03"):
        fill(key, stage)
    for _ in range(2):
        assert "every stage has 2020-01-03" in world.reason(SENSOR)
    assert (len(world.alerts()), world.ended()) == (1, [alert["id"]])


def test_a_stale_model_requests_one_decision_per_release(world: Any) -> None:
    spec = replace(recorded.SPEC, retraining=Retraining(max_age=7, decide_every=3))
    sensor = freshness.watch.build([spec])
    world.move("2020-01-01T12:00:00+00:00")
    for key in GRAIN.span("2020-01-01", "2020-01-15"):
        world.decide(key)
    world.ledgers.append(naming.RELEASES, documents.release("2020-01-06"))
    assert "keys old" not in world.reason(sensor)
    world.decide("2020-01-16")
    for _ in range(2):
        assert "the live model is 11 keys old; max_age is 7" in world.reason(sensor)
    world.cursors.clear()
    world.reason(sensor)
    ((_, request),) = world.ledgers.records(naming.REQUESTS)
    assert (request["kind"], request["key"], request["by"]) == ("decision", "2020-01-16", "freshness")
    world.ledgers.append(naming.RELEASES, documents.release("2020-01-07", previous=1))
    assert "keys old" not in world.reason(sensor)
    world.decide("2020-01-17")
    world.reason(sensor)
    assert len(list(world.ledgers.records(naming.REQUESTS))) == 2


def test_only_live_products_with_periods_get_policies_for_every_asset() -> None:
    assert freshness_policies.policies(recorded.SPEC) == {}
    assert freshness_policies.policies(replace(batches.SPEC, is_live=True)) == {}
    live = replace(recorded.SPEC, is_live=True, grain=DailyGrain(start="2020-01-01"), history=None)
    policies = freshness_policies.policies(live)
    day = timedelta(days=1)
    assert policies["recorded_data"] == dg.FreshnessPolicy.time_window(warn_window=2 * day, fail_window=3 * day)
    assert policies["recorded_training"] == dg.FreshnessPolicy.time_window(warn_window=35 * day, fail_window=36 * day)

    @dg.asset(group_name="recorded_data")
    def one() -> None: ...

    @dg.asset(group_name="recorded_elsewhere")
    def two() -> None: ...

    first, second = freshness_policies.apply([one, two], live)
    assert [spec.freshness_policy for spec in first.specs] == [policies["recorded_data"]]
    assert [spec.freshness_policy for spec in second.specs] == [None]
    assert freshness_policies.apply([one], recorded.SPEC) == [one]
