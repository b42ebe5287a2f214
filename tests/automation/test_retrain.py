"""Decisions are executed once per episode; a failed training is retried; each fault raises one alert."""

from typing import Any

import dagster as dg
import pytest

from platform_assets.base import naming
from platform_assets.monitoring import retraining
from platform_assets.product.monitoring import Retraining
from platform_assets.sensors import episodes, retrain
from platform_assets.sensors.episodes import Try, next_step
from platform_assets.store.records.decisions import DECISIONS, Decision
from tests.doubles import documents, empty_jobs, recorded

pytestmark = pytest.mark.slow

FAILURE, SUCCESS, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
CANCELED = dg.DagsterRunStatus.CANCELED
FAULT = {"source": "readings", "check": "volume", "came": "0 rows", "expected": "12 rows", "episode": "2020-01-02"}
SENSOR = retrain.watch.build([recorded.SPEC], empty_jobs.of("retrain", [recorded.SPEC]))


def attempts(*statuses: dg.DagsterRunStatus) -> list[Try]:
    return [Try(run_id=f"r{n}", attempt=n, status=status) for n, status in enumerate(statuses, start=1)]


@pytest.mark.parametrize(
    ("tries", "requested", "idle_s", "action", "attempt"),
    [
        ([], 0, 0, "launch", 1),
        (attempts(STARTED), 1, 0, "wait", 1),
        (attempts(FAILURE), 1, 0, "launch", 2),
        (attempts(CANCELED), 1, 0, "launch", 2),
        (attempts(FAILURE, FAILURE), 2, 0, "wait", 2),
        (attempts(FAILURE, FAILURE), 2, 14.9, "wait", 2),
        (attempts(FAILURE, FAILURE), 2, 15, "launch", 3),
        (attempts(FAILURE, FAILURE), 2, -900, "wait", 2),
        (attempts(FAILURE, FAILURE, FAILURE), 3, 45, "give_up", 3),
        (attempts(FAILURE, SUCCESS), 2, 0, "done", 2),
        (attempts(FAILURE), 2, 0, "wait", 2),
        (attempts(FAILURE), 2, episodes.VANISHED_S, "launch", 3),
        ([], 3, episodes.VANISHED_S, "give_up", 3),
        (attempts(FAILURE, FAILURE), 0, 15, "launch", 3),
    ],
)
def test_the_next_step_follows_from_the_tries_of_an_episode(
    tries: list[Try], requested: int, idle_s: float, action: str, attempt: int
) -> None:
    now_s = 1e9
    step = next_step(tries, requested=requested, since_s=now_s - idle_s, now_s=now_s, most=3, pauses_s=(0, 15))
    assert (step.action, step.attempt) == (action, attempt)
    assert step.reason
    assert step.since_s is None or step.since_s <= now_s, "a clock that was set back holds nothing up"


def close_until(world: Any, last: str, first: str = "2020-01-01") -> None:
    for key in recorded.GRAIN.span(first, last):
        world.decide(key)


def decide_training(world: Any) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    close_until(world, "2020-01-06")
    world.decide("2020-01-07", "retrain")


def decision(key: str, action: str, cutoff: str | None = None, **more: Any) -> Decision:
    reasons = [f"{key} says {action}."]
    return DECISIONS.read(documents.decision(key, action, cutoff=cutoff, reasons=reasons, **more), "a place")


def test_a_plan_takes_trainings_in_order_and_leaves_out_outdated_ones() -> None:
    decisions = [
        decision("2020-01-01", "retrain", "2020-01-02"),
        decision("2020-01-02", "wait", "2020-01-03"),
        decision("2020-01-03", "retrain", "2020-01-04"),
        decision("2020-01-04", "alert_fault", "2020-01-05", fault=FAULT),
        decision("2020-01-06", "retrain", None),
    ]
    result = retraining.plan(recorded.GRAIN, decisions, live_cutoff="2020-01-02")
    assert [item.cutoff for item in result] == ["2020-01-04"]
    assert len(retraining.plan(recorded.GRAIN, decisions, live_cutoff=None)) == 2


def test_a_backlog_of_decisions_to_wait_is_passed_over_in_one_tick(world: Any) -> None:
    assert "its clock has not been set" in world.reason(SENSOR)
    world.move("2020-01-21T00:00:00+00:00")
    assert "no decision yet" in world.reason(SENSOR)
    for key in recorded.GRAIN.span("2020-01-01", "2020-01-20"):
        world.decide(key, reasons=[f"{key} is not a decision key."])
    assert world.reason(SENSOR) == "recorded: 2020-01-20: wait, 2020-01-20 is not a decision key."


def test_a_training_is_launched_once_and_losing_to_the_champion_raises_no_alert(world: Any) -> None:
    decide_training(world)
    request = world.request(SENSOR)
    assert (request.job_name, request.tags["dagster/partition"]) == ("retrain__recorded", "2020-01-08")
    assert request.run_key == "retrain__recorded:2020-01-08:1", "another product may have this cutoff too"
    assert request.run_config == {}, "only a person may exceed a budget; the SENSOR never passes a reason"
    run_id = world.run(request, STARTED)
    assert f"started (run {run_id})" in world.reason(SENSOR)
    world.instance.delete_run(run_id)
    world.run(request, SUCCESS)
    world.tables.record("onnx", "2020-01-08", content_digest="d" * 64, inputs={}, code="0")
    world.ledgers.create(naming.VERDICTS, "d" * 64, documents.verdict("d" * 64, False, reasons=["it is worse."]))
    assert "champion kept: it is worse." in world.reason(SENSOR)
    assert "champion kept" in world.reason(SENSOR), "the last outcome is still reported"
    assert world.alerts() == []


def test_a_training_waits_for_rows_that_are_about_to_change(world: Any) -> None:
    world.move("2020-01-05T00:00:00+00:00")
    close_until(world, "2020-01-03")
    world.decide("2020-01-04", "retrain")
    number = world.ledgers.append(naming.REQUESTS, documents.advance("2020-01-02", why="it was nulled"))
    assert "waits until request 1 is answered: it was nulled" in world.reason(SENSOR)
    world.ledgers.append(naming.ANSWERED, {"request": number, "outcome": "advanced", "at_utc": documents.AT})
    assert world.request(SENSOR).tags["dagster/partition"] == "2020-01-05"


def test_a_release_is_named_by_its_number(world: Any) -> None:
    decide_training(world)
    world.run(world.request(SENSOR), SUCCESS)
    world.ledgers.append(naming.RELEASES, documents.release("2020-01-08"))
    assert "2020-01-08: released as number 1" in world.reason(SENSOR)


def test_a_failing_training_is_retried_then_given_up_with_an_alert(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "PAUSES_S", (0,))
    assert recorded.SPEC.retraining == Retraining()
    decide_training(world)
    keys = []
    for _ in range(recorded.SPEC.retraining.max_attempts):
        request = world.request(SENSOR)
        keys.append(request.run_key)
        world.run(request, FAILURE)
    assert keys == [f"retrain__recorded:2020-01-08:{attempt}" for attempt in (1, 2, 3)]
    assert "no attempt is left (limit 3)" in world.reason(SENSOR)
    assert [(alert["kind"], alert["id"]) for alert in world.alerts()] == [("gave_up", "retrain-2020-01-08")]
    world.decide("2020-01-08", "retrain")
    request = world.request(SENSOR)
    assert request.tags["dagster/partition"] == "2020-01-09"
    world.run(request, SUCCESS)
    assert world.ended() == []
    world.reason(SENSOR)
    assert world.ended() == ["retrain-2020-01-08"]


def test_faults_raise_alerts_at_once_while_a_training_is_under_way(world: Any) -> None:
    decide_training(world)
    world.run(world.request(SENSOR), STARTED)
    for key in ("2020-01-08", "2020-01-09"):
        world.decide(key, "alert_fault", fault=FAULT, reasons=["readings is faulty (volume)."])
    assert "retrain__recorded is started" in world.reason(SENSOR)
    (alert,) = world.alerts()
    assert (alert["kind"], alert["text"]) == ("fault", "readings is faulty (volume).")
    assert alert["details"]["decision"]["fault"] == FAULT


def test_a_lost_cursor_repeats_neither_trainings_nor_alerts(world: Any) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    world.decide("2020-01-01", "alert_fault", fault=FAULT)
    close_until(world, "2020-01-06", first="2020-01-02")
    world.decide("2020-01-07", "retrain")
    world.run(world.request(SENSOR), SUCCESS)
    assert "no verdict" in world.reason(SENSOR)
    world.cursors.clear()
    assert "no verdict" in world.reason(SENSOR)
    assert len(world.alerts()) == 1
    for run in world.instance.get_runs():
        world.instance.delete_run(run.run_id)
    for stage in ("onnx", "evaluation"):
        world.tables.record(stage, "2020-01-08", content_digest="d" * 64, inputs={}, code="0")
    world.cursors.clear()
    assert "no verdict" in world.reason(SENSOR), "judged before, so not trained again"
