"""The demo's plan, its journal, and the results that are compared between demos."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

from platform_assets.automation.alerting import AlertsResource
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import journal, loop, replay, results, show
from platform_assets.demo.journal import Journal, RequestResults
from platform_assets.demo.replay import Outcome
from platform_assets.demo.replay.callers import Answer
from platform_assets.demo.replay.playing import Requests
from platform_assets.demo.runs import SENSOR, Run, RunFailed
from platform_assets.engine import product_files
from platform_assets.product.spec import FaultKind
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import DECISIONS, Decision
from platform_assets.store.records.judgements import Indexed, Judgement
from tests.doubles import documents, recorded, watched

KIND = FaultKind(name="lost", description="no file", source="plans", check="volume", deliver=lambda *_: None)
SPEC = replace(recorded.SPEC, history=replace(replay.history(recorded.SPEC), demo_until="2020-01-16", faults=(KIND,)))
QUESTION = RequestDocument(
    entity="first",
    service_time="2020-01-11T05:00:00Z",
    asked_at="2020-01-11T04:00:00Z",
    idempotency_key="first",
    features={"distance": 7, "speed": 1.5, "origin": None, "is_late": True},
)
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")


def _plan(count: int | None = None, most: int = 100, seed: int = 1) -> journal.Plan:
    return journal.plan(SPEC, count=count, most=most, seed=seed)


def _requests(requests: int = 3, refused: int = 1) -> Requests:
    answer = Answer(request=QUESTION, status=200, body={}, latency_s=0.001)
    return Requests(
        requests=requests,
        answered=requests - refused,
        refused=refused,
        latency_s=(0.001,) * requests,
        first=answer,
    )


# The plan ------------------------------------------------------------------------------------------------------------


def test_plan_starts_at_the_first_cutoff_and_ends_with_the_recording_or_the_budget():
    assert _plan().keys == KEYS
    assert _plan(most=3).keys == KEYS[:3]
    assert _plan(count=5, most=3).keys == KEYS[:5]
    assert _plan(most=3).available == len(KEYS)


def test_recording_without_an_end_for_demos_gives_one_key():
    bare = replace(SPEC, history=replace(replay.history(SPEC), demo_until=None))
    assert journal.plan(bare, count=None, most=9, seed=1).keys == KEYS[:1]


@pytest.mark.parametrize("count", [0, -1, 7])
def test_counts_of_keys_out_of_range_are_refused(count: int):
    with pytest.raises(ValueError, match=rf"--keys is {count}; recorded has a recording for 1 to 6 keys"):
        _plan(count=count)


# The journal ----------------------------------------------------------------------------------------------------------


def test_requests_are_noted_with_their_latency(settings: Settings):
    noted = Journal(settings, SPEC.name)
    assert noted.results_of(KEYS[0]) is None
    noted.note(KEYS[0], _requests())
    again = Journal(settings, SPEC.name)
    result = again.results_of(KEYS[0])
    assert result is not None
    assert (result.requests, result.answered, result.refused, result.first) == (3, 2, 1, QUESTION)
    assert result.latency_us == [1_000, 1_000, 1_000]


def test_the_same_plan_continues_and_another_is_refused(settings: Settings):
    noted = Journal(settings, SPEC.name)
    noted.begin(_plan())
    noted.begin(_plan())
    with pytest.raises(ValueError, match=r"was started with --seed 1 for keys 2020-01-11 to 2020-01-16 and cannot"):
        noted.begin(_plan(seed=2))
    with pytest.raises(ValueError, match=r"start over with `rm -r .*state`, which removes all"):
        noted.begin(_plan(count=3))


# The results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collected(settings: Settings) -> results.Results:
    watched.write(settings, SPEC, KEYS)
    noted = Journal(settings, SPEC.name)
    for key in KEYS:
        noted.note(key, _requests())
    drawn = replay.Injected(kind=KIND, keys=KEYS[2:4])
    return results.collect(ProductStore(SPEC, settings), replace(_plan(), injected=drawn), noted)


def test_results_have_every_key_release_and_fault(collected: results.Results):
    assert [row["key"] for row in collected.keys] == list(KEYS)
    assert tuple(collected.keys[0]) == collected.columns
    assert {"auc", "log_loss", "drift_percentile", "answers_percentile"} <= set(collected.columns)
    first, faulty, last = collected.keys[0], collected.keys[2], collected.keys[-1]
    assert (first["requests"], first["refused"], first["labelled"], first["decision"]) == (3, 1, watched.ROWS, "wait")
    assert (faulty["verdict"], faulty["decision"], faulty["drift_percentile"]) == ("alert_fault", "alert_fault", None)
    assert (last["labelled"], last["log_loss"]) == (0, None)
    assert [release["number"] for release in collected.releases] == [1]
    assert [(row["key"], row["kind"]) for row in collected.faults] == [(KEYS[2], "fault"), (KEYS[2], "null")]


def test_injected_fault_is_caught_only_on_keys_where_its_source_was_named(collected: results.Results):
    assert collected.checks_by_key() == {KEYS[2]: "volume", KEYS[3]: None}
    assert f"{KEYS[2]}: named by volume of plans" in collected.injection_text()
    assert f"{KEYS[3]}: not named; expected volume" in collected.injection_text()
    none = replace(collected, injected=None).injection_text()
    assert none.startswith("No fault was injected: too few keys are replayed, or the recording declares none")


def test_equal_results_have_the_same_sha256_whatever_was_measured(collected: results.Results, settings: Settings):
    Journal(settings, SPEC.name).note(KEYS[0], replace(_requests(), latency_s=(9.0,) * 3))
    drawn = replay.Injected(kind=KIND, keys=KEYS[2:4])
    again = results.collect(
        ProductStore(SPEC, settings), replace(_plan(), injected=drawn), Journal(settings, SPEC.name)
    )
    assert again.sha256 == collected.sha256
    Journal(settings, SPEC.name).note(KEYS[0], _requests(requests=4))
    other = results.collect(
        ProductStore(SPEC, settings), replace(_plan(), injected=drawn), Journal(settings, SPEC.name)
    )
    assert other.sha256 != collected.sha256


def test_sentences_are_not_part_of_the_sha256(collected: results.Results):
    worded = [{**fault, "why": "for another reason", "came": "7", "expected": "8"} for fault in collected.faults]
    assert replace(collected, faults=tuple(worded)).sha256 == collected.sha256
    assert replace(collected, injected=replace(collected.injected, description="another")).sha256 == collected.sha256
    other = [{**fault, "check": "another"} for fault in collected.faults]
    assert replace(collected, faults=tuple(other)).sha256 != collected.sha256
    assert b"for another reason" in replace(collected, faults=tuple(worded)).to_json(), "the written results keep them"


def test_results_are_written_as_json_and_their_keys_as_csv(collected: results.Results, settings: Settings):
    as_json, as_csv = collected.write(settings.state / "demo")
    assert json.loads(as_json.read_bytes())["keys"] == list(collected.keys)
    rows = list(csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"))))
    assert [row["key"] for row in rows] == list(KEYS)


# Lines and runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "outcome", "text"),
    [
        ({"action": "wait", "reasons": ["too early."]}, None, "wait: too early."),
        ({"action": "alert_fault", "reasons": ["half is gone."]}, None, "fault: half is gone."),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="released", release=2, digest="d", reasons=()),
            "release 2 of cutoff 0009",
        ),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="kept_champion", release=1, digest="d", reasons=("Lost.",)),
            "champion kept: Lost.",
        ),
    ],
)
def test_line_of_a_key_states_the_outcome(decision: dict[str, Any], outcome: Outcome | None, text: str):
    noted = RequestResults(requests=1_239, answered=1_234, refused=5, latency_us=[], first=None)
    near = Indexed(mean_psi=0.1, limit=0.2, percentile=0.987, windows=9, keys=[])
    decided = DECISIONS.read(documents.decision("0008", **decision), "a place")
    line = loop.line_of("0008", noted, Judgement(index=near), decided, outcome)
    assert line.startswith("0008  1,234 answered, 5 refused · drift 0.99 · ")
    assert text in line


class _Dagster:
    """A webserver on which one run appears and fails, and another one succeeds."""

    address = "http://dagster.test"

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.looked = 0

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        self.looked += 1
        count = min(self.looked, 3)
        return [
            Run(id=f"r{number}", job="advance__tiny", is_under_way=number > 0, tags={SENSOR: "landings"})
            for number in reversed(range(count))
        ]

    def run_address(self, run: str) -> str:
        return f"{self.address}/runs/{run}"

    def cancel(self, run: str) -> None:
        self.cancelled.append(run)

    def wait_for_run(self, run: str, check: Callable[[], None]) -> None:
        check()
        if run == "r1":
            raise RunFailed("step one: no file")


def _no_check() -> None:
    return


def test_runs_of_sensors_are_shown_until_their_result_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(show, "POLL_S", 0.0)
    dagster: Any = _Dagster()
    show.runs_until(dagster, "advance__tiny", lambda: dagster.looked > 3, check=_no_check, about="data")
    text = capsys.readouterr().out
    assert "runs/r0" not in text, "it ended before"
    assert "data, launched by landings: http://dagster.test/runs/r1" in text
    assert "step one: no file" in text
    assert "✓ advance__tiny (" in text
    assert dagster.cancelled == []


def test_interrupted_demo_cancels_the_run_it_follows():
    dagster: Any = _Dagster()

    def interrupted() -> None:
        if dagster.looked > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show.runs_until(dagster, "advance__tiny", lambda: False, check=interrupted, about="data")
    assert dagster.cancelled == ["r1"]


def test_waiting_ends_if_no_run_appears(monkeypatch: pytest.MonkeyPatch):
    dagster: Any = _Dagster()
    monkeypatch.setattr(show, "PATIENCE_S", -1.0)
    with pytest.raises(TimeoutError, match="data did not end within"):
        show.runs_until(dagster, "advance__tiny", lambda: False, check=_no_check, about="data")


def test_requests_of_closed_keys_are_not_sent_again(settings: Settings, capsys: pytest.CaptureFixture[str]):
    ledgers, noted = Ledgers(settings.root, SPEC.name), Journal(settings, SPEC.name)
    for key in KEYS[:2]:
        ledgers.create(naming.DECISIONS, key, documents.decision(key))
    noted.note(KEYS[0], _requests())
    sent: list[str] = []

    class Player(replay.Player):
        def ask(self, key, *, on_answer=None):
            sent.append(key)
            return _requests()

    with Player(ProductStore(SPEC, settings), "http://127.0.0.1:9", check=_no_check) as player:
        loop.replay_keys(ProductStore(SPEC, settings), player, noted, KEYS[:2])
    assert sent == [KEYS[1]]
    assert capsys.readouterr().out == "", "both were decided before"


class _Asked(replay.Player):
    """Answers a key's requests without a service."""

    def __init__(self, settings: Settings, answers: list[Answer]) -> None:
        super().__init__(ProductStore(SPEC, settings), "http://127.0.0.1:9", check=_no_check)
        self.answers, self.keys = answers, list[str]()

    def ask(self, key: str, *, on_answer: Callable[[Answer], None] | None = None) -> Requests:
        self.keys.append(key)
        for answer in self.answers:
            if on_answer is not None:
                on_answer(answer)
        first = next((answer for answer in self.answers if answer.status == 200), None)
        return replace(_requests(), first=first)

    def close(self, key: str, following: str | None) -> tuple[Decision, Outcome | None]:
        return DECISIONS.read(documents.decision(key), "a place"), None


def _answered(status: int, value: float = 0.0) -> Answer:
    body = {"entity": "first", "value": value, "spread": 1.0, "unit": "C"} if status == 200 else {}
    return Answer(request=QUESTION, status=status, body=body, latency_s=0.001)


def test_the_first_answer_is_shown_once_with_its_time_and_asked_for_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(loop, "perf_counter", lambda: 165.0)
    noted = Journal(settings, SPEC.name)
    answers = [_answered(422), _answered(200, 1.0), _answered(200, 2.0)]
    for _ in range(2):
        with _Asked(settings, answers) as player:
            question = loop.first_key(player, noted, KEYS[0], started_s=100.0)
        assert question == QUESTION
    assert player.keys == [], "the second demo goes on where the first one was"
    text = capsys.readouterr().out
    assert text.count("first answer after 65 s: first ") == 1
    assert f"sent 3 requests for {KEYS[0]}, one by one" in text


def test_a_demo_whose_requests_are_all_refused_ends_with_the_key(settings: Settings):
    with (
        _Asked(settings, [_answered(422)]) as player,
        pytest.raises(
            loop.DemoProblem, match=r"none of \d+ requests? for 2020-01-11 was answered; .*service\.log says why"
        ),
    ):
        loop.first_key(player, Journal(settings, SPEC.name), KEYS[0], started_s=perf_counter())


def test_each_key_that_is_decided_now_has_its_line(settings: Settings, capsys: pytest.CaptureFixture[str]):
    noted = Journal(settings, SPEC.name)
    with _Asked(settings, []) as player:
        loop.replay_keys(ProductStore(SPEC, settings), player, noted, KEYS[:2])
    assert player.keys == list(KEYS[:2])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{KEYS[0]}      2 answered, 1 refused · ")
    assert second.startswith(f"{KEYS[1]}      2 answered, 1 refused · ")


def test_the_platform_is_quiet_once_no_run_was_under_way_for_a_while(monkeypatch: pytest.MonkeyPatch):
    """Time passes by half a second per look; a run ends at the fourth."""
    passed, looks = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    class Runs(_Dagster):
        def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
            looks.append(passed[0])
            return [Run(id="r1", job="advance__tiny", is_under_way=len(looks) < 4, tags={})]

    runs: Any = Runs()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: passed[0], sleep=sleep))
    loop.wait_until_quiet(runs, _no_check)
    assert passed[0] - looks[2] == loop.QUIET_S, "since it was last seen under way"


def test_default_demo_of_the_flights_has_a_fault_after_ten_keys_and_before_the_last_five():
    from platform_assets.demo import job

    flights = product_files.load("flight_delays")
    plan = journal.plan(flights, count=None, most=job.MOST_KEYS, seed=job.SEED)
    assert plan.injected is not None
    assert set(plan.injected.keys) <= set(plan.keys[10:-5])


def test_a_demo_ends_when_the_platform_has_given_up(settings: Settings):
    check = loop.unless_given_up(ProductStore(SPEC, settings), lambda: None)
    alerts, at = AlertsResource(), datetime(2020, 1, 1, tzinfo=UTC)
    alerts.record(SPEC.name, "stale-1", kind="stale", text="It is stale.", at=at)
    check()
    alerts.record(SPEC.name, "advance-1", kind="gave_up", text="advance is given up:  eight attempts.", at=at)
    with pytest.raises(loop.DemoProblem, match=r"advance is given up:  eight attempts\. Dagster's UI"):
        check()
