"""Decay, drift, skew, given-up labels and a stale model raise one alert per episode, even if a cursor is lost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.keys import DailyGrain
from platform_assets.monitoring import latency
from platform_assets.monitoring.decision_alerts import plan
from platform_assets.sensors import retrain
from platform_assets.store.records.decisions import DECISIONS, Decision
from tests.doubles import documents, empty_jobs, recorded

pytestmark = pytest.mark.slow

GRAIN = DailyGrain(start="2020-01-01", end="2020-12-31")
FAILING = {
    "keys": 14,
    "log_loss": 0.52,
    "expected": 0.49,
    "excess": 0.03,
    "p_value": 0.001,
    "tests": {},
    "failing": ["ranking"],
}
SKEWED = {"rows": 1200, "share": 0.95, "limit": 0.99, "is_skewed": True}
HOLDS: dict[str, dict[str, Any]] = {
    "decay": {"performance": FAILING},
    "drift": {"verdict": "drift", "drift_percentile": 1.0, "answers_percentile": 0.4},
    "skew": {"skew": SKEWED},
    "unlabelled": {"is_newest": True, "given_up_now": ["2020-01-01"]},
    "stale_model": {"is_newest": True, "overdue_keys": 3, "training_age_keys": 38, "max_age_keys": 28},
}
CLEAR: dict[str, dict[str, Any]] = {
    "decay": {"performance": {**FAILING, "failing": []}},
    "drift": {"verdict": "fine", "drift_percentile": 0.5, "answers_percentile": None},
    "skew": {"skew": {**SKEWED, "share": 1.0, "is_skewed": False}},
    "unlabelled": {"is_newest": True, "given_up_now": []},
    "stale_model": {"is_newest": True, "overdue_keys": None},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "decay": {"performance": None},
    "drift": {"verdict": "alert_fault", "drift_percentile": None, "answers_percentile": None},
    "skew": {"skew": {**SKEWED, "share": None, "is_skewed": False}},
    "unlabelled": {**HOLDS["unlabelled"], "is_newest": False},
    "stale_model": {**HOLDS["stale_model"], "is_newest": False},
}
NUMBERS = {"+": HOLDS, "-": CLEAR, "?": UNKNOWN}


def decision(index: int, numbers: dict[str, Any], *, action: str = "wait", live: str = "a", **members: Any) -> Decision:
    key, cutoff = GRAIN.key_at(index), GRAIN.key_at(index + 1)
    reasons = ["labels of 2 keys have not landed."]
    numbers = {"live_digest": live, **numbers}
    result = documents.decision(key, action, cutoff=cutoff, reasons=reasons, numbers=numbers, **members)
    return DECISIONS.read(result, "a place")


def alert_ids(decisions: list[Decision]) -> list[str]:
    return [alert.id for alert in plan("orders", decisions, {}).alerts]


def history(kind: str, course: str) -> list[Decision]:
    """Return one decision per letter: `+` it holds, `-` it does not, `?` unknown."""
    return [decision(index, NUMBERS[letter][kind]) for index, letter in enumerate(course)]


@pytest.mark.parametrize("kind", list(HOLDS))
@pytest.mark.parametrize(
    ("course", "firsts"),
    [("---", []), ("-+++", [1]), ("-+-+", [1, 3]), ("-+?+", [1]), ("?+?-+", [1, 4]), ("???", []), ("?+?+", [1])],
)
def test_an_episode_raises_one_alert_named_by_its_first_key(kind: str, course: str, firsts: list[int]) -> None:
    expected = [f"{kind}-{GRAIN.key_at(index)}" for index in firsts]
    assert alert_ids(history(kind, course)) == expected


@given(st.dictionaries(st.sampled_from(list(HOLDS)), st.text("+-?", max_size=14)), st.integers(0, 14))
def test_it_does_not_matter_where_a_tick_ends(courses: dict[str, str], cut: int) -> None:
    decisions = [
        decision(
            index,
            {
                name: value
                for kind, course in courses.items()
                if index < len(course) and course[index] in NUMBERS
                for name, value in NUMBERS[course[index]][kind].items()
            },
        )
        for index in range(14)
    ]
    uninterrupted = plan("orders", decisions, {})
    first = plan("orders", decisions[:cut], {})
    second = plan("orders", decisions[cut:], first.running)
    assert [*first.alerts, *second.alerts] == list(uninterrupted.alerts)
    assert second.running == uninterrupted.running
    assert len({alert.id for alert in uninterrupted.alerts}) == len(uninterrupted.alerts)


@pytest.mark.parametrize("kind", ["decay", "drift"])
def test_another_live_model_is_another_episode(kind: str) -> None:
    decisions = [decision(0, HOLDS[kind]), decision(1, HOLDS[kind], live="b"), decision(2, HOLDS[kind], live="b")]
    assert alert_ids(decisions) == [f"{kind}-2020-01-01", f"{kind}-2020-01-02"]


def test_an_episode_of_given_up_labels_continues_while_the_newest_are_missing() -> None:
    given_up, nothing_new = HOLDS["unlabelled"], {**CLEAR["unlabelled"], "lacks_newest": True}
    assert alert_ids([decision(0, given_up), decision(1, nothing_new), decision(2, given_up)]) == [
        "unlabelled-2020-01-01"
    ]


def test_a_stale_model_in_training_raises_no_alert_until_the_training_fails() -> None:
    stale = HOLDS["stale_model"]
    decisions = [decision(0, stale, action="retrain"), decision(1, stale), decision(2, stale)]
    (alert,) = plan("orders", decisions, {}).alerts
    assert alert.id == "stale_model-2020-01-01"
    assert alert.details["decision"]["key"] == "2020-01-02"


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("decay", ["fails ranking", "0.5200", "0.4900", "driftline rollback orders", "labels of 2 keys"]),
        ("drift", ["features at percentile 1.000 and answers at percentile 0.400", "retrain__orders", "2020-01-02"]),
        ("skew", ["95.00% of 1,200 entities", "at least 99.00% is expected", "served_features_equal"]),
        ("unlabelled", ["the labels of 2020-01-01", "from cutoff 2020-01-02", "repair__orders"]),
        ("stale_model", ["38 keys old", "3 keys beyond max_age (28)", "labels of 2 keys", "driftline status"]),
    ],
)
def test_a_text_has_the_fact_the_numbers_and_the_remedy(kind: str, parts: list[str]) -> None:
    (alert,) = plan("orders", [decision(0, HOLDS[kind])], {}).alerts
    assert alert.kind.recorded == kind
    for part in ("orders at 2020-01-01: ", *parts):
        assert part in alert.text
    assert alert.text.count("keys old") <= 1, "the age is said once"


def answering(index: int, *, requests: int, slow: int) -> Decision:
    counts = {"limit_ms": 100.0, "requests": requests, "slow": slow, "stalls": slow}
    result = latency.judge([(GRAIN.key_at(index), counts)], 100.0)
    assert result is not None
    return decision(index, {}, measured={"spent_usd": 0.0, "next_usd": 0.0, "latency": result.document()})


def test_slow_answers_raise_one_alert_until_fast_again_and_chance_raises_none() -> None:
    course = [(5_000, 10), (5_000, 60), (900, 0), (5_000, 400), (5_000, 5), (5_000, 60)]
    alerts = plan("orders", [answering(path, requests=n, slow=k) for path, (n, k) in enumerate(course)], {}).alerts
    assert [alert.id for alert in alerts] == ["slow_answers-2020-01-02", "slow_answers-2020-01-06"]
    assert "1.20% of 5,000 requests on 2020-01-02 took longer than 100 ms" in alerts[0].text
    assert "Service.latency_ms" in alerts[0].text


def test_the_sensor_raises_the_alerts_and_a_lost_cursor_repeats_none(world: Any) -> None:
    sensor = retrain.watch.build([recorded.SPEC], empty_jobs.of("retrain", [recorded.SPEC]))
    world.move("2020-01-20T00:00:00+00:00")
    fault = {"source": "readings", "check": "volume", "episode": "2020-01-05"}
    for index in range(10):
        numbers = {"live_digest": "a"}
        for kind in HOLDS:
            numbers |= (HOLDS if 2 <= index < 5 or index > 7 else CLEAR)[kind]
        more = {"action": "alert_fault", "fault": fault} if index == 4 else {}
        world.decide(recorded.GRAIN.key_at(index), numbers=numbers, **more)
        world.tick(sensor)
    ids = [alert["id"] for alert in world.alerts()]
    assert sorted(ids) == sorted(
        ["fault-2020-01-05-readings-volume", *(f"{kind}-2020-01-{day}" for kind in HOLDS for day in ("03", "09"))]
    )
    ended = world.ended()
    assert sorted(ended) == sorted(f"{kind}-2020-01-03" for kind in HOLDS)
    world.cursors.clear()
    world.tick(sensor)
    assert ([alert["id"] for alert in world.alerts()], world.ended()) == (ids, ended)
    assert {alert["details"]["decision"]["key"] for alert in world.alerts() if alert["kind"] == "skew"} == {
        "2020-01-03",
        "2020-01-09",
    }
