"""Keys close when their files have landed or are overdue; late files are taken in; one run per product, retried."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import naming
from platform_assets.data import closing, landed_marks
from platform_assets.data.closing import Findings, Plan, plan
from platform_assets.product import planned as planned_events
from platform_assets.sensors import episodes, landings, ticks
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.requests import AdvanceRequest
from tests.doubles import documents, empty_jobs, recorded, shipped
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

GRAIN = recorded.GRAIN
FAILURE, SUCCESS, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
SENSOR = landings.watch.build([recorded.SPEC], empty_jobs.of("advance", [recorded.SPEC]))


def span(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


def advance_request(first: str) -> AdvanceRequest:
    return AdvanceRequest(first=first, why="new file", by="a test", at_utc=None)


def planned(**findings: Any) -> Plan:
    next_run = plan(GRAIN, Findings(**findings))
    assert isinstance(next_run, Plan)
    return next_run


def test_late_labels_extend_the_range_back_and_alone_end_it_at_the_newest_closed_key() -> None:
    late = {"2020-01-03": "a", "2020-01-02": "b"}
    next_run = planned(newest="2020-01-04", ready=("2020-01-05",), late=late)
    assert (next_run.first, next_run.last) == ("2020-01-02", "2020-01-05")
    alone = planned(newest="2020-01-04", late=late)
    assert (alone.first, alone.last) == ("2020-01-02", "2020-01-04")
    assert alone.reason == "labels of 2020-01-02, 2020-01-03 arrived late"


def test_requests_extend_the_range_back_if_their_key_is_closed() -> None:
    next_run = planned(newest="2020-01-04", requests=((7, advance_request("2020-01-03")),))
    assert (next_run.first, next_run.last) == ("2020-01-03", "2020-01-04")
    assert "request 7" in next_run.reason
    for key in ("2020-01-20", "1999-01-01"):
        assert isinstance(plan(GRAIN, Findings(newest="2020-01-04", requests=((7, advance_request(key)),))), str)


def test_a_run_takes_the_oldest_keys_and_states_how_many_follow() -> None:
    ready = tuple(f"2020-01-{day:02d}" for day in range(5, 15))
    result = Findings(newest="2020-01-04", ready=ready, marks=tuple(f"plans {key} m" for key in ready))
    next_run = plan(GRAIN, result, 4)
    assert isinstance(next_run, Plan)
    assert (next_run.first, next_run.last, next_run.keys_left, next_run.rest) == (
        "2020-01-05",
        "2020-01-08",
        6,
        "2020-01-09",
    )
    assert next_run.reason == "2020-01-05 to 2020-01-08 can be closed; 6 keys follow"
    more = replace(result, ready=(*ready, "2020-01-15"), marks=(*result.marks, "plans 2020-01-15 m"))
    longer = plan(GRAIN, more, 4)
    assert isinstance(longer, Plan)
    assert longer.episode == next_run.episode, "files that land after the run's keys do not belong to it"
    request = plan(GRAIN, replace(result, requests=((3, advance_request("2020-01-09")),)), 4)
    assert isinstance(request, Plan)
    assert (request.rest, request.takes, request.episode) == (None, 0, next_run.episode), (
        "the request for the rest is open"
    )


def test_a_range_that_goes_back_too_far_is_cut_and_settles_only_the_requests_it_reaches() -> None:
    requests = ((4, advance_request("2020-01-02")), (5, advance_request("2020-01-20")))
    result = Findings(newest="2020-01-25", late={"2020-01-03": "a", "2020-01-22": "b"}, requests=requests)
    first = plan(GRAIN, result, 10)
    assert isinstance(first, Plan)
    assert (first.first, first.last, first.takes, first.rest) == ("2020-01-02", "2020-01-11", 4, "2020-01-12")
    assert (dict(first.late), first.keys_left) == ({"2020-01-03": "a"}, 14)
    swapped = replace(result, requests=((4, advance_request("2020-01-20")), (5, advance_request("2020-01-02"))))
    second = plan(GRAIN, swapped, 10)
    assert isinstance(second, Plan)
    assert (second.takes, second.rest) == (5, "2020-01-12"), "the rest is requested again, and covers request 4"


def test_the_same_files_are_the_same_episode_and_others_another() -> None:
    ready: dict[str, Any] = {"newest": "2020-01-04", "ready": ("2020-01-05",), "marks": ("plans 1",)}
    first = planned(**ready).episode
    assert planned(**ready).episode == first
    assert planned(**{**ready, "marks": ("plans 2",)}).episode != first
    assert planned(**ready, late={"2020-01-03": "a"}).episode != first
    assert planned(**ready, requests=((1, advance_request("2020-01-04")),)).episode != first


def test_a_key_waits_for_each_of_its_files_until_the_deadline() -> None:
    landed = {("sites", naming.UNPARTITIONED), ("plans", "2020-01-01"), ("readings", "2020-01-01")}
    landed.add(("plans", "2020-01-02"))

    def mark(source: Any, key: str) -> str | None:
        return "m" if (source.name, key) in landed else None

    def ready(now: datetime, after: str | None = None) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
        return closing.find(recorded.SPEC, after, now, mark, lambda *_: None)

    before = datetime(2020, 1, 3, 23, tzinfo=UTC)
    keys, waits, marks = ready(before)
    assert keys == ("2020-01-01",)
    assert "readings of 2020-01-02 has not landed; due 2020-01-04T00:00:00+00:00" in waits
    assert marks == ("plans 2020-01-01 m, readings 2020-01-01 m",)
    keys, waits, marks = ready(datetime(2020, 1, 4, tzinfo=UTC), "2020-01-01")
    assert keys == ("2020-01-02",)
    assert marks == ("plans 2020-01-02 m, readings 2020-01-02 missing",)
    landed.remove(("sites", naming.UNPARTITIONED))
    assert ready(before) == ((), "sites, which every key needs, has not landed", ())


def test_a_recording_ends_and_a_backlog_is_closed_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2021, 1, 1, tzinfo=UTC)
    keys, waits, _ = closing.find(recorded.SPEC, "2020-01-29", now, lambda source, key: "m", lambda *_: None)
    assert (keys, waits) == (("2020-01-30", "2020-01-31"), "the last key, 2020-01-31, is closed")
    monkeypatch.setattr(closing, "MOST_KEYS", 5)
    keys, waits, _ = closing.find(
        recorded.SPEC, None, now, lambda source, key: None if source is None else "m", lambda *_: None
    )
    assert len(keys) == 5 and "later runs take the rest" in waits


def test_batches_have_no_deadline_and_close_by_landing(settings: Any) -> None:
    batches.land_all(settings.root, "0001", "0002")
    mark = landed_marks.Marks(ProductStore(batches.SPEC, settings))
    keys, waits, _ = closing.find(batches.SPEC, None, datetime(2100, 1, 1, tzinfo=UTC), mark, lambda *_: None)
    assert (keys, waits) == (("0001", "0002"), "readings of 0003 has not landed")


def test_landed_keys_are_requested_once_and_again_when_the_run_failed(world: Any) -> None:
    world.move("2020-01-03T00:00:00+00:00")
    assert "sites, which every key needs, has not landed" in world.reason(SENSOR)
    world.land_key("2020-01-01", "2020-01-02")
    first = world.request(SENSOR)
    assert first.job_name == "advance__recorded"
    assert span(first) == ("2020-01-01", "2020-01-02")
    assert "has no run yet" in world.reason(SENSOR)
    assert '"since_s":null' not in world.cursors["landings"]
    world.run(first, STARTED)
    assert "advance__recorded is started" in world.reason(SENSOR)
    assert '"since_s":null' in world.cursors["landings"], "no pause is counted from before the run"
    world.instance.delete_run(world.instance.get_runs()[0].run_id)
    world.run(first, FAILURE)
    second = world.request(SENSOR)
    assert second.tags[naming.TAG_ATTEMPT] == "2"
    assert second.run_key != first.run_key
    world.run(second, SUCCESS)
    for key in ("2020-01-01", "2020-01-02"):
        world.decide(key)
    assert "plans of 2020-01-03 has not landed" in world.reason(SENSOR)


def test_a_success_is_found_among_any_number_of_newer_attempts(world: Any) -> None:
    tags = episodes.tags("the same files", 1)
    world.instance.add_run(dg.DagsterRun(job_name="advance__recorded", tags=tags, status=SUCCESS))
    for _ in range(60):
        world.instance.add_run(dg.DagsterRun(job_name="advance__recorded", tags=tags, status=FAILURE))
    seen = []

    @ticks.Sensor("counts", ticks.PerProduct(landings.State))
    def counts(tick: ticks.ProductTick, state: landings.State) -> ticks.Result[landings.State]:
        seen.extend(episodes.tries_of(tick, "advance", "the same files"))
        return ticks.Result(state=state, reason="counted")

    world.reason(counts.build([recorded.SPEC]))
    assert episodes.next_step(seen, requested=1, since_s=None, now_s=0.0, most=8, pauses_s=()).action == "done"


def use_up_attempts(world: Any, monkeypatch: pytest.MonkeyPatch, result: dg.DagsterRunStatus) -> None:
    """Land a key, and run both attempts that it has here."""
    monkeypatch.setattr(landings, "PAUSES_S", (0,))
    monkeypatch.setattr(landings, "MOST_ATTEMPTS", 2)
    world.move("2020-01-02T00:00:00+00:00")
    world.land_key("2020-01-01")
    for _ in range(2):
        world.run(world.request(SENSOR), result)


def test_the_sensor_gives_up_with_one_alert_until_a_file_changes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_up_attempts(world, monkeypatch, FAILURE)
    for _ in range(3):
        assert "no attempt is left (limit 2)" in world.reason(SENSOR)
    assert [alert["kind"] for alert in world.alerts()] == ["gave_up"]
    world.land("plans", "2020-01-01", "mended, and longer than before")
    request = world.request(SENSOR)
    assert (request.tags[naming.TAG_ATTEMPT], world.ended()) == ("1", [])
    world.run(request, SUCCESS)
    world.decide("2020-01-01")
    world.reason(SENSOR)
    assert world.ended() == [world.alerts()[0]["id"]]


def test_runs_that_succeed_and_close_nothing_come_to_an_end(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_up_attempts(world, monkeypatch, SUCCESS)
    for _ in range(2):
        assert "no attempt is left (limit 2)" in world.reason(SENSOR)
    assert (len(world.alerts()), world.ended()) == (1, [])


def close_until(world: Any, last: str, *, at: str) -> None:
    """Close the keys from the first one on, without files of any key."""
    world.move(f"{at}T00:00:00+00:00")
    world.land_key()
    for key in GRAIN.span("2020-01-01", last):
        world.decide(key)


def test_labels_that_land_late_are_taken_in_once_and_completely(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landings, "PAUSES_S", (0,))
    close_until(world, "2020-01-03", at="2020-01-04")
    assert "has not landed" in world.reason(SENSOR)
    world.land("results", "2020-01-02")
    request = world.request(SENSOR)
    assert span(request) == ("2020-01-02", "2020-01-03")
    world.run(request, FAILURE)
    inputs: dict[str, dict[str, str]] = {
        "raw_results": {},
        "outcomes": {},
        "performance": {"outcomes": "0"},
        "drift": {"validated_results": "0"},
    }
    for stage in inputs:
        again = world.request(SENSOR)
        assert span(again) == ("2020-01-02", "2020-01-03"), "a run was killed before it wrote this stage"
        world.run(again, FAILURE)
        world.tables.record(stage, "2020-01-02", content_digest="0", inputs=inputs[stage], code="0")
    assert "has not landed" in world.reason(SENSOR)
    assert '"labelled":["2020-01-02"]' in world.cursors["landings"]


def test_new_keys_are_closed_although_labels_cannot_be_taken_in(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landings, "MOST_ATTEMPTS", 1)
    world.move("2020-01-04T00:00:00+00:00")
    world.land_key()
    world.decide("2020-01-01")
    world.land("results", "2020-01-01", "broken")
    world.run(world.request(SENSOR), FAILURE)
    assert "labels of 2020-01-01 arrived late" in world.reason(SENSOR)
    world.land_key("2020-01-02")
    assert span(world.request(SENSOR)) == ("2020-01-02", "2020-01-02")
    world.land("results", "2020-01-01", "mended, and longer")
    assert span(world.request(SENSOR)) == ("2020-01-01", "2020-01-02")


def test_a_request_to_advance_keys_again_is_answered_by_one_run(world: Any) -> None:
    close_until(world, "2020-01-03", at="2020-01-04")
    world.ledgers.append(naming.REQUESTS, documents.decision_request("2020-01-03"))
    assert "has not landed" in world.reason(SENSOR)
    world.ledgers.append(naming.REQUESTS, documents.advance("2020-01-02", "2020-01-03"))
    request = world.request(SENSOR)
    assert span(request) == ("2020-01-02", "2020-01-03")
    world.run(request, SUCCESS)
    assert "has not landed" in world.reason(SENSOR)
    settled = world.ledgers.latest(naming.ANSWERED)
    assert settled is not None
    assert (settled[1]["request"], settled[1]["outcome"]) == (2, "advanced")
    world.cursors.clear()
    assert "has not landed" in world.reason(SENSOR), "answered requests are recorded, even if the cursor is lost"


def test_a_range_of_many_keys_becomes_runs_that_cover_it_in_order_even_without_a_cursor(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landings, "PAUSES_S", (0,))
    monkeypatch.setattr(planned_events, "MOST_EVENTS", 4 * planned_events.per_key(recorded.SPEC) + 3)
    close_until(world, "2020-01-10", at="2020-01-13")
    world.ledgers.append(naming.REQUESTS, documents.advance("2020-01-02"))
    world.land_key("2020-01-11", "2020-01-12")
    spans: list[tuple[str, str]] = []
    while True:
        result = world.tick(SENSOR)
        if not result.run_requests:
            break
        (request,) = result.run_requests
        spans.append(span(request))
        assert world.requests_open(), "trainings wait for the following runs"
        if len(spans) == 1:
            world.run(request, FAILURE)
            again = world.request(SENSOR)
            assert (span(again), again.tags[naming.TAG_EPISODE]) == (spans[0], request.tags[naming.TAG_EPISODE])
            request = again
        world.run(request, SUCCESS)
        for key in GRAIN.span(*spans[-1]):
            if world.ledgers.read(naming.DECISIONS, key) is None:
                world.decide(key)
        if len(spans) == 2:
            world.cursors.clear()
    assert spans[0] == ("2020-01-02", "2020-01-05")
    assert spans[-1][1] == "2020-01-12"
    assert {key for first, last in spans for key in GRAIN.span(first, last)} == set(
        GRAIN.span("2020-01-02", "2020-01-12")
    )
    assert len(spans) == 4, "one of three again, because the cursor was lost"
    assert world.requests_open() == ()


def test_runs_that_follow_a_given_up_one_are_given_up_too(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landings, "MOST_ATTEMPTS", 1)
    monkeypatch.setattr(planned_events, "MOST_EVENTS", 1)
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01", "2020-01-02")
    request = world.request(SENSOR)
    assert span(request) == ("2020-01-01", "2020-01-01")
    assert len(world.requests_open()) == 1, "trainings wait for the following runs"
    world.run(request, FAILURE)
    assert "no attempt is left (limit 1)" in world.reason(SENSOR)
    assert world.requests_open() == ()


def test_the_newest_closed_key_is_found_without_a_cursor_and_a_wrong_one_is_corrected(world: Any) -> None:
    world.move("2020-01-23T00:00:00+00:00")
    world.land_key("2020-01-22")
    for key in GRAIN.span("2020-01-01", "2020-01-21"):
        world.decide(key)
    assert span(world.request(SENSOR)) == ("2020-01-22", "2020-01-22")
    world.cursors["landings"] = '{"recorded": {"closed": "2020-01-30"}}'
    assert "has no run yet" not in world.tick(SENSOR).cursor
    world.cursors["landings"] = "no JSON"
    assert span(world.request(SENSOR)) == ("2020-01-22", "2020-01-22")


def test_an_unreadable_store_delays_no_other_product(world: Any, tmp_path: Path) -> None:
    other = replace(recorded.SPEC, name="other")
    sensor = landings.watch.build([recorded.SPEC, other], empty_jobs.of("advance", [recorded.SPEC, other]))
    world.move("2020-01-02T00:00:00+00:00")
    world.land_key("2020-01-01")
    path = tmp_path / "store" / "ledgers" / "other" / "decisions"
    path.mkdir(parents=True)
    (path / "2020-01-01.json").write_text("[]", encoding="utf-8")
    clock_of_other = tmp_path / "state" / "clock" / "other"
    clock_of_other.write_text("2020-01-01T00:00:00+00:00", encoding="utf-8")
    request = world.request(sensor)
    assert request.job_name == "advance__recorded"


def test_a_patient_tick_keeps_looking_until_there_is_a_run_to_request(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    @ticks.Sensor("waits", ticks.PerProduct(landings.State), is_patient=True)
    def waits(tick: ticks.ProductTick, state: landings.State) -> ticks.Result[landings.State]:
        looks.append(tick.spec.name)
        return ticks.Result(state=state, reason="not yet", requests=(dg.RunRequest(),) if len(looks) == 2 else ())

    sensor = waits.build([recorded.SPEC])
    monkeypatch.setenv("DRIFTLINE_SENSOR_PATIENCE_S", "60")
    world.request(sensor)
    monkeypatch.setenv("DRIFTLINE_SENSOR_PATIENCE_S", "0")
    world.reason(sensor)
    assert len(looks) == 3


# On a cluster --------------------------------------------------------------------------------------------------------


def test_on_a_cluster_a_key_waits_for_the_answers_of_its_processes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_ENV", "cluster")
    world.move("2020-01-03T00:00:00+00:00")
    world.land_key("2020-01-01", "2020-01-02")
    world.ledgers.append(naming.RELEASES, documents.release())
    assert world.reason(SENSOR).startswith("recorded: its caller has not announced the end of 2020-01-01")
    world.ledgers.create(naming.KEY_ENDS, "2020-01-01", {"at_utc": datetime.now(UTC).isoformat()})
    assert "2020-01-01 waits until" in world.reason(SENSOR)
    assert "for answers of any process of the service" in world.reason(SENSOR)
    at = datetime.now(UTC)
    shipped.ship(world.settings.root, at - timedelta(minutes=1), b"")
    shipped.ship(world.settings.root, at, b"")
    assert span(world.request(SENSOR)) == ("2020-01-01", "2020-01-01"), "the next key is not announced yet"


def test_a_silent_service_raises_one_alert_until_it_is_heard_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_ENV", "cluster")
    world.move("2020-01-01T12:00:00+00:00")
    cases = ["answers", "silent", "silent", "no_answers", "silent"]
    for day, case in enumerate(cases, start=1):
        key = f"2020-01-{day:02d}"
        world.ledgers.create(naming.ATTENDANCE, key, {"case": case, "ended_at_utc": "", "processes": 0})
        world.decide(key)
        world.reason(SENSOR)
    alerts = world.alerts()
    assert [(alert["kind"], alert["details"]["key"]) for alert in alerts] == [
        ("silent", "2020-01-02"),
        ("silent", "2020-01-05"),
    ]
    assert "no process of its service sent anything in 2020-01-02" in alerts[0]["text"]
    assert world.ended() == [alerts[0]["id"]]
