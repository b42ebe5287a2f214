"""A cursor is read and written back alike; one of another shape counts as empty."""

import json
from dataclasses import replace
from typing import Any

import dagster as dg
import msgspec
import pytest

from platform_assets.sensors import (
    alerts,
    freshness,
    landings,
    orphaned_pods,
    pools,
    releases,
    retrain,
    run_failures,
    ticks,
)
from tests.doubles import recorded

pytestmark = pytest.mark.slow

OPEN = {
    "id": "a1",
    "product": "recorded",
    "step": "train",
    "fingerprint": "f" * 64,
    "cutoff": "2020-01-05",
    "run_id": "5c0c",
    "launcher": "kubernetes",
    "profile": "cpu_small",
    "is_spot": False,
    "memory_gb": 4,
    "usd_per_hour": 0.08,
    "on_demand_usd_per_hour": 0.08,
    "priced_on": "2026-11-01",
    "requested_at_utc": "2026-11-24T07:12:31.935241+00:00",
}
EPISODE = {"first": "2020-01-03", "is_alerted": True, "model": "0" * 64}
PLACE = {
    "done": 1,
    "failures": 1,
    "since_s": 1577836800.5,
    "lasting": {"a1": ""},
    "repeated_at": "2026-12-01T22:00:00+00:00",
}
WRITTEN: dict[str, tuple[ticks.Sensor[Any], list[Any]]] = {
    "alerts": (alerts.watch, [{"done": 2, "places": {"alertmanager": PLACE}}]),
    "freshness": (
        freshness.watch,
        [
            {
                "requested": 3,
                "behind": {
                    "features": {"idle_since_s": 90.5, "is_alerted": False, "since": "2020-01-04", "since_s": 80.0}
                },
                "closed": "2020-01-04",
                "expected": {"features": "2020-01-05", "outcomes": "2020-01-02"},
                "files": {
                    "marks": {"plans 2020-01-02": ["12-34-56", True], "readings 2020-01-03": ["1-2-3", False]},
                    "since_s": 310.5,
                    "message": "changed since they were taken in: plans 2020-01-02",
                },
                "fresh": {"outcomes": "2020-01-03"},
            },
            {"requested": 0, "behind": {}, "closed": None, "expected": {}, "files": {"since_s": 1.0}, "fresh": {}},
        ],
    ),
    "landings": (
        landings.watch,
        [
            {
                "requested": 2,
                "closed": "2020-01-04",
                "consumed": 7,
                "episode": "0123456789ab",
                "given_up": {"2020-01-02": "12-34-56"},
                "is_alerted": True,
                "labelled": ["2020-01-01", "2020-01-03"],
                "looks": {
                    "readings 2020-01-05": ["12-34-56", 1577836800.5, 1577836700.0],
                    "plans 2020-01-05": ["12-34-56 1-2-3", None],
                    "plans 2020-01-06": ["12-34-56 1-2-3", "is not what its manifest says"],
                },
                "takes": 8,
                "since_s": 1577836800.5,
            },
            {"closed": "2020-01-30"},
        ],
    ),
    "orphaned_pods": (orphaned_pods.watch, [{"open": {"a1": OPEN}, "read": 3}]),
    "releases": (releases.watch, [{"reason": "release 2 is live", "settled": 2}]),
    "retrain": (
        retrain.watch,
        [
            {
                "requested": 1,
                "pending": [{"cutoff": "2020-01-04", "key": "2020-01-03"}],
                "read": "2020-01-03",
                "running": {"decay": EPISODE, "unlabelled": {**EPISODE, "model": None}},
                "reason": "2020-01-03: retrain, the last training is 14 keys old.",
                "since_s": 1577836800.5,
            },
            {
                "pending": [],
                "read": "2020-01-03",
                "running": {},
                "reason": "2020-01-03: wait, it is not a decision key.",
            },
        ],
    ),
}
"""By sensor, states per product: in the middle of its work, and initially."""
CASES = [(name, state) for name, (_, states) in WRITTEN.items() for state in states]


def passed_on(sensor: ticks.Sensor[Any], cursor: str) -> tuple[Any, str | None]:
    """Return the state passed to a sensor's look, and the cursor when the look returns it unchanged."""
    values: list[Any] = []

    def look(_: ticks.Tick, state: Any) -> ticks.Result[Any]:
        values.append(state)
        return ticks.Result(state=msgspec.json.decode(msgspec.json.encode(state)), reason="looked")

    context = dg.build_sensor_context(cursor=cursor)
    single_look = replace(sensor, look=look, is_patient=False, jobs=None).build([recorded.SPEC])
    result = single_look(context)
    assert isinstance(result, dg.SensorResult)
    return values[0], result.cursor


@pytest.mark.parametrize(("name", "state"), CASES)
def test_a_cursor_is_read_and_written_back_unchanged(name: str, state: dict[str, Any]) -> None:
    sensor = WRITTEN[name][0]
    states = {"gone": {"anything": 1}, "recorded": state} if name != "orphaned_pods" else {"recorded": state}
    values, cursor = passed_on(sensor, json.dumps(states))
    again, first = json.loads(cursor or ""), passed_on(sensor, "")[0]
    assert values != first, "it is not empty"
    assert {**again, "recorded": _without_defaults(again["recorded"], state)} == states


def _without_defaults(written: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Leave out members that are not in the state before: a missing member equals its default."""
    return {
        member: _without_defaults(value, before[member]) if member == "files" else value
        for member, value in written.items()
        if member in before
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_a_cursor_of_another_shape_counts_as_empty(name: str) -> None:
    sensor, (state, *_) = WRITTEN[name]
    empty, _ = passed_on(sensor, "")
    shapes = ["no JSON", "[]", "7", '{"recorded": []}', '{"recorded": "text"}']
    shapes += [json.dumps({"recorded": {**state, member: [[7]]}}) for member in state]
    assert [passed_on(sensor, cursor)[0] for cursor in shapes] == [empty] * len(shapes)


@pytest.mark.parametrize(
    ("sensor", "cursor", "state", "empty"),
    [(pools.watch, '["run 1","run 2"]', ["run 1", "run 2"], []), (run_failures.watch, "46", 46, run_failures.NEW)],
)
def test_cursors_that_are_not_per_product_are_read_too(sensor: Any, cursor: str, state: Any, empty: Any) -> None:
    assert passed_on(sensor, cursor) == (state, cursor)
    for shape in ("", "no JSON", "{}", '[{"a": 1}]'):
        assert passed_on(sensor, shape)[0] == empty
