"""Decisions are executed once per episode; a failed training is retried; each fault raises one alert."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.sensors import episodes, retrain
from platform_assets.automation.sensors.episodes import Try, next_step
from platform_assets.base import naming
from platform_assets.product.monitoring import Retraining
from platform_assets.store.records.decisions import DECISIONS, Decision
from tests.doubles import documents, empty_jobs, recorded

FAILURE, SUCCESS, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
CANCELED = dg.DagsterRunStatus.CANCELED
FAULT = {"source": "readings", "check": "volume", "came": "0 rows", "expected": "12 rows", "episode": "2020-01-02"}


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return retrain.watch.build([recorded.SPEC], empty_jobs.of("retrain", [recorded.SPEC]))


def attempts(*statuses: dg.DagsterRunStatus) -> list[Try]:
    return [Try(run_id=f"r{n}", attempt=n, status=status) for n, status in enumerate(statuses, start=1)]


@pytest.mark.parametrize(
    ("tries", "requested", "ticks", "action", "attempt"),
    [
        ([], 0, 0, "launch", 1),
        (attempts(STARTED), 1, 0, "wait", 1),
        (attempts(FAILURE), 1, 0, "launch", 2),
        (attempts(CANCELED), 1, 0, "launch", 2),
        (attempts(FAILURE, FAILURE), 2, 0, "wait", 2),
        (attempts(FAILURE, FAILURE), 2, 3, "launch", 3),
        (attempts(FAILURE, FAILURE, FAILURE), 3, 9, "give_up", 3),
        (attempts(FAILURE, SUCCESS), 2, 0, "done", 2),
        (attempts(FAILURE), 2, 0, "wait", 2),
        (attempts(FAILURE), 2, episodes.VANISHED_TICKS, "launch", 3),
        ([], 3, episodes.VANISHED_TICKS, "give_up", 3),
        (attempts(FAILURE, FAILURE), 0, 3, "launch", 3),
    ],
)
def test_the_next_step_follows_from_the_tries_of_an_episode(
    tries: list[Try], requested: int, ticks: int, action: str, attempt: int
) -> None:
    step = next_step(tries, requested=requested, ticks=ticks, most=3, pauses=(0, 3))
    assert (step.action, step.attempt) == (action, attempt)
    assert step.reason


def close_until(world: Any, last: str, first: str = "2020-01-01") -> None:
    for key in recorded.GRAIN.span(first, last):
        world.decide(key)


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
    result = retrain.plan(recorded.GRAIN, decisions, live_cutoff="2020-01-02")
    assert [item.cutoff for item in result.trainings] == ["2020-01-04"]
    assert [item.key for item in result.alerts] == ["2020-01-04"]
    assert len(retrain.plan(recorded.GRAIN, decisions, live_cutoff=None).trainings) == 2
    assert retrain.plan(recorded.GRAIN, [], live_cutoff=None) == retrain.Plan(trainings=(), alerts=())


def test_one_alert_per_episode() -> None:
    first = retrain.alert_of(decision("2020-01-02", "alert_fault", fault=FAULT))
    later = retrain.alert_of(decision("2020-01-03", "alert_fault", fault=FAULT))
    assert first.alert_id == later.alert_id == "fault-2020-01-02-readings-volume"
    assert first.kind == "fault"
    other = retrain.alert_of(decision("2020-01-03", "alert_fault", fault={**FAULT, "check": "frozen columns"}))
    assert other.alert_id != first.alert_id


def test_a_backlog_of_decisions_to_wait_is_passed_over_in_one_tick(world: Any, sensor: dg.SensorDefinition) -> None:
    assert "its clock has not been set" in world.reason(sensor)
    world.move("2020-01-21T00:00:00+00:00")
    assert "no decision yet" in world.reason(sensor)
    for key in recorded.GRAIN.span("2020-01-01", "2020-01-20"):
        world.decide(key, reasons=[f"{key} is not a decision key."])
    assert world.reason(sensor) == "recorded: 2020-01-20: wait, 2020-01-20 is not a decision key."


def test_a_training_is_launched_once_and_losing_to_the_champion_raises_no_alert(
    world: Any, sensor: dg.SensorDefinition
) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    close_until(world, "2020-01-06")
    world.decide("2020-01-07", "retrain")
    request = world.request(sensor)
    assert (request.job_name, request.tags["dagster/partition"]) == ("retrain__recorded", "2020-01-08")
    assert request.run_key == "retrain__recorded:2020-01-08:1", "another product may have this cutoff too"
    assert request.run_config == {}, "only a person may exceed a budget; the sensor never passes a reason"
    run_id = world.run(request, STARTED)
    assert f"started (run {run_id})" in world.reason(sensor)
    world.instance.delete_run(run_id)
    world.run(request, SUCCESS)
    world.tables.record("onnx", "2020-01-08", content_digest="d" * 64, inputs={}, code="0")
    world.ledgers.create(naming.VERDICTS, "d" * 64, documents.verdict("d" * 64, False, reasons=["it is worse."]))
    assert "champion kept: it is worse." in world.reason(sensor)
    assert "champion kept" in world.reason(sensor), "the last outcome is still reported"
    assert world.alerts() == []


def test_a_training_waits_for_rows_that_are_about_to_change(world: Any, sensor: dg.SensorDefinition) -> None:
    world.move("2020-01-05T00:00:00+00:00")
    close_until(world, "2020-01-03")
    world.decide("2020-01-04", "retrain")
    number = world.ledgers.append(naming.REQUESTS, documents.advance("2020-01-02", why="it was nulled"))
    assert "waits until request 1 is answered: it was nulled" in world.reason(sensor)
    world.ledgers.append(naming.ANSWERED, {"request": number, "outcome": "advanced", "at_utc": documents.AT})
    assert world.request(sensor).tags["dagster/partition"] == "2020-01-05"


def test_a_release_is_named_by_its_number(world: Any, sensor: dg.SensorDefinition) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    close_until(world, "2020-01-06")
    world.decide("2020-01-07", "retrain")
    world.run(world.request(sensor), SUCCESS)
    world.ledgers.append(naming.RELEASES, documents.release("2020-01-08"))
    assert "2020-01-08: released as number 1" in world.reason(sensor)


def test_a_failing_training_is_retried_then_given_up_with_an_alert(
    world: Any, sensor: dg.SensorDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain, "PAUSES", (0,))
    assert recorded.SPEC.retraining == Retraining()
    world.move("2020-01-08T00:00:00+00:00")
    close_until(world, "2020-01-06")
    world.decide("2020-01-07", "retrain")
    keys = []
    for _ in range(recorded.SPEC.retraining.max_attempts):
        request = world.request(sensor)
        keys.append(request.run_key)
        world.run(request, FAILURE)
    assert keys == [f"retrain__recorded:2020-01-08:{attempt}" for attempt in (1, 2, 3)]
    assert "no attempt is left (limit 3)" in world.reason(sensor)
    assert [(alert["kind"], alert["id"]) for alert in world.alerts()] == [("gave_up", "retrain-2020-01-08")]
    world.decide("2020-01-08", "retrain")
    request = world.request(sensor)
    assert request.tags["dagster/partition"] == "2020-01-09"
    world.run(request, SUCCESS)
    assert world.ended() == []
    world.reason(sensor)
    assert world.ended() == ["retrain-2020-01-08"]


def test_faults_raise_alerts_at_once_while_a_training_is_under_way(world: Any, sensor: dg.SensorDefinition) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    close_until(world, "2020-01-06")
    world.decide("2020-01-07", "retrain")
    world.run(world.request(sensor), STARTED)
    for key in ("2020-01-08", "2020-01-09"):
        world.decide(key, "alert_fault", fault=FAULT, reasons=["readings is faulty (volume)."])
    assert "retrain__recorded is started" in world.reason(sensor)
    (alert,) = world.alerts()
    assert (alert["kind"], alert["text"]) == ("fault", "readings is faulty (volume).")
    assert alert["details"]["decision"]["fault"] == FAULT


def test_a_lost_cursor_repeats_neither_trainings_nor_alerts(world: Any, sensor: dg.SensorDefinition) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    world.decide("2020-01-01", "alert_fault", fault=FAULT)
    close_until(world, "2020-01-06", first="2020-01-02")
    world.decide("2020-01-07", "retrain")
    world.run(world.request(sensor), SUCCESS)
    assert "no verdict" in world.reason(sensor)
    world.cursors.clear()
    assert "no verdict" in world.reason(sensor)
    assert len(world.alerts()) == 1
    for run in world.instance.get_runs():
        world.instance.delete_run(run.run_id)
    for stage in ("onnx", "evaluation"):
        world.tables.record(stage, "2020-01-08", content_digest="d" * 64, inputs={}, code="0")
    world.cursors.clear()
    assert "no verdict" in world.reason(sensor), "judged before, so not trained again"
