"""What a demo sets out to do, remembers, and hands over to be compared."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from platform_assets import naming, replay, specs
from platform_assets.demo import journal, loop, results, show, tables
from platform_assets.demo.journal import Journal, Noted
from platform_assets.demo.runs import SENSOR, Run, RunFailed
from platform_assets.handle import Product
from platform_assets.product.contract import RequestDocument
from platform_assets.records.decisions import DECISIONS
from platform_assets.records.judgements import Indexed, Judgement
from platform_assets.replay import Outcome
from platform_assets.replay.callers import Answer
from platform_assets.replay.playing import Requests
from platform_assets.settings import Settings
from platform_assets.specs.base import FaultKind
from platform_assets.storage.ledgers import Ledgers
from resources.alerts import AlertsResource
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


def _asked(requests: int = 3, refused: int = 1) -> Requests:
    said = Answer(request=QUESTION, status=200, body={}, latency_s=0.001)
    return Requests(
        requests=requests,
        answered=requests - refused,
        refused=refused,
        latency_s=(0.001,) * requests,
        first=said,
    )


def _console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200), text


# The plan ------------------------------------------------------------------------------------------------------------


def test_plan_goes_from_the_first_cutoff_as_far_as_the_recording_or_the_budget():
    assert _plan().keys == KEYS
    assert _plan(most=3).keys == KEYS[:3]
    assert _plan(count=5, most=3).keys == KEYS[:5]
    assert _plan(most=3).of == len(KEYS)


def test_recording_without_an_end_for_demos_gives_one_key():
    bare = replace(SPEC, history=replace(replay.history(SPEC), demo_until=None))
    assert journal.plan(bare, count=None, most=9, seed=1).keys == KEYS[:1]


@pytest.mark.parametrize("count", [0, -1, 7])
def test_more_or_fewer_keys_than_there_are_are_refused(count: int):
    with pytest.raises(ValueError, match=rf"--keys is {count}; recorded has a recording for 1 to 6 keys"):
        _plan(count=count)


# The journal ----------------------------------------------------------------------------------------------------------


def test_what_was_asked_is_remembered_with_its_latency(settings: Settings):
    kept = Journal(settings, SPEC.name)
    assert kept.asked(KEYS[0]) is None
    kept.note(KEYS[0], _asked())
    again = Journal(settings, SPEC.name)
    found = again.asked(KEYS[0])
    assert found is not None
    assert (found.requests, found.answered, found.refused, found.first) == (3, 2, 1, QUESTION)
    assert found.latency_us == [1_000, 1_000, 1_000]


def test_same_plan_goes_on_and_another_is_refused(settings: Settings):
    kept = Journal(settings, SPEC.name)
    kept.begin(_plan())
    kept.begin(_plan())
    with pytest.raises(ValueError, match=r"was started with --seed 1 for keys 2020-01-11 to 2020-01-16 and cannot"):
        kept.begin(_plan(seed=2))
    with pytest.raises(ValueError, match=r"start over with `rm -r .*state`, which removes all"):
        kept.begin(_plan(count=3))


# The results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def found(settings: Settings) -> results.Results:
    watched.write(settings, SPEC, KEYS)
    kept = Journal(settings, SPEC.name)
    for key in KEYS:
        kept.note(key, _asked())
    drawn = replay.Injected(kind=KIND, keys=KEYS[2:4])
    return results.collect(Product(SPEC, settings), replace(_plan(), injected=drawn), kept)


def test_results_hold_every_key_release_and_fault(found: results.Results):
    assert [row["key"] for row in found.keys] == list(KEYS)
    assert tuple(found.keys[0]) == found.columns
    assert {"auc", "log_loss", "drift_percentile", "answers_percentile"} <= set(found.columns)
    first, faulty, last = found.keys[0], found.keys[2], found.keys[-1]
    assert (first["requests"], first["refused"], first["labelled"], first["decision"]) == (3, 1, watched.ROWS, "wait")
    assert (faulty["verdict"], faulty["decision"], faulty["drift_percentile"]) == ("alert_fault", "alert_fault", None)
    assert (last["labelled"], last["log_loss"]) == (0, None)
    assert [release["number"] for release in found.releases] == [1]
    assert [(row["key"], row["kind"]) for row in found.faults] == [(KEYS[2], "fault"), (KEYS[2], "null")]


def test_injected_fault_is_caught_only_on_keys_where_its_source_was_named(found: results.Results):
    assert found.caught() == {KEYS[2]: "volume", KEYS[3]: None}
    console, text = _console()
    tables.show_injected(console, found)
    assert f"{KEYS[2]}: named by volume of plans" in text.getvalue()
    assert f"{KEYS[3]}: not named; expected volume" in text.getvalue()


def test_equal_results_have_one_sha256_and_measured_values_change_nothing(found: results.Results, settings: Settings):
    Journal(settings, SPEC.name).note(KEYS[0], replace(_asked(), latency_s=(9.0,) * 3))
    drawn = replay.Injected(kind=KIND, keys=KEYS[2:4])
    again = results.collect(Product(SPEC, settings), replace(_plan(), injected=drawn), Journal(settings, SPEC.name))
    assert again.sha256 == found.sha256
    Journal(settings, SPEC.name).note(KEYS[0], _asked(requests=4))
    other = results.collect(Product(SPEC, settings), replace(_plan(), injected=drawn), Journal(settings, SPEC.name))
    assert other.sha256 != found.sha256


def test_sentences_are_no_part_of_the_sha256(found: results.Results):
    worded = [{**fault, "why": "for another reason", "came": "7", "expected": "8"} for fault in found.faults]
    assert replace(found, faults=tuple(worded)).sha256 == found.sha256
    assert replace(found, injected=replace(found.injected, description="another")).sha256 == found.sha256
    other = [{**fault, "check": "another"} for fault in found.faults]
    assert replace(found, faults=tuple(other)).sha256 != found.sha256
    assert b"for another reason" in replace(found, faults=tuple(worded)).to_json(), "what is read keeps them"


def test_results_are_written_as_json_and_their_keys_as_csv(found: results.Results, settings: Settings):
    as_json, as_csv = found.write(settings.state / "demo")
    assert json.loads(as_json.read_bytes())["keys"] == list(found.keys)
    rows = list(csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"))))
    assert [row["key"] for row in rows] == list(KEYS)


def test_one_table_has_a_row_per_day_with_its_numbers_and_what_happened(found: results.Results):
    console, text = _console()
    tables.show_keys(console, found, SPEC.grain.kind)
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    rows = {line[0]: " ".join(line) for line in lines if line[0] in KEYS}
    assert list(rows) == list(KEYS)
    assert lines[0][:2] == ["day", "answered"]
    assert "release 1 live" in rows[KEYS[0]]
    assert f"{found.keys[0]['auc']:.4f}" in rows[KEYS[0]]
    assert "2 (1 refused)" in rows[KEYS[0]]
    assert "alert fault" in rows[KEYS[2]]
    assert "plans: volume; left out" in rows[KEYS[2]]


# Lines and runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "outcome", "words"),
    [
        ({"action": "wait", "reasons": ["too early."]}, None, "wait: [dim]too early."),
        ({"action": "alert_fault", "reasons": ["half is gone."]}, None, "fault[/]: half is gone."),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="released", release=2, digest="d", reasons=()),
            "release 2[/] of cutoff 0009",
        ),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="kept_champion", release=1, digest="d", reasons=("Lost.",)),
            "champion kept: Lost.",
        ),
    ],
)
def test_line_of_a_key_says_what_happened(decision: dict[str, Any], outcome: Outcome | None, words: str):
    asked = Noted(requests=1_239, answered=1_234, refused=5, latency_us=[], first=None)
    near = Indexed(mean_psi=0.1, percentile=0.987, windows=9, keys=[])
    decided = DECISIONS.read(documents.decision("0008", **decision), "a place")
    line = loop.line_of("0008", asked, Judgement(index=near), decided, outcome)
    assert line.startswith("0008  1,234 answered, 5 refused · drift 0.99 · ")
    assert words in line


class _Dagster:
    """A webserver on which one run appears, fails, and another one succeeds."""

    address = "http://dagster.test"

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.looked = 0

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        self.looked += 1
        count = min(self.looked, 3)
        return [
            Run(id=f"r{place}", job="advance__tiny", is_under_way=place > 0, tags={SENSOR: "landings"})
            for place in reversed(range(count))
        ]

    def steps(self, run: str) -> list[str]:
        return ["one", "two"]

    def run_address(self, run: str) -> str:
        return f"{self.address}/runs/{run}"

    def cancel(self, run: str) -> None:
        self.cancelled.append(run)

    def follow(self, run: str, check):
        check()
        if run == "r1":
            raise RunFailed("step one: no file")
        yield SimpleNamespace(message="epoch 1 of 2", dagster_event=None)


def _nothing() -> None:
    return


def test_runs_of_sensors_are_shown_until_what_they_are_for_is_there(monkeypatch):
    monkeypatch.setattr(show, "POLL_S", 0.0)
    dagster, (console, text) = _Dagster(), _console()
    show.runs_until(console, dagster, "advance__tiny", lambda: dagster.looked > 3, check=_nothing, about="data")
    assert "runs/r0" not in text.getvalue(), "it had ended before"
    assert "data, launched by landings: http://dagster.test/runs/r1" in text.getvalue()
    assert "step one: no file" in text.getvalue()
    assert "advance__tiny: 2 steps" in text.getvalue()
    assert dagster.cancelled == []


def test_interrupted_demo_cancels_the_run_it_follows():
    dagster, (console, _) = _Dagster(), _console()

    def interrupted() -> None:
        if dagster.looked > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show.runs_until(console, dagster, "advance__tiny", lambda: False, check=interrupted, about="data")
    assert dagster.cancelled == ["r1"]


def test_runs_that_never_come_end_the_wait(monkeypatch):
    monkeypatch.setattr(show, "PATIENCE_S", -1.0)
    with pytest.raises(TimeoutError, match="data did not end within"):
        show.runs_until(_console()[0], _Dagster(), "advance__tiny", lambda: False, check=_nothing, about="data")


def test_keys_that_are_closed_are_not_asked_about_again(settings: Settings):
    ledgers, kept = Ledgers(settings.root, SPEC.name), Journal(settings, SPEC.name)
    for key in KEYS[:2]:
        ledgers.create(naming.DECISIONS, key, documents.decision(key))
    kept.note(KEYS[0], _asked())
    asked: list[str] = []

    class Player(replay.Player):
        def ask(self, key, *, heard=None):
            asked.append(key)
            return _asked()

    console, text = _console()
    advanced: list[int] = []
    with Player(Product(SPEC, settings), "http://127.0.0.1:9", check=_nothing) as player:
        loop.replay_keys(Product(SPEC, settings), console, player, kept, KEYS[:2], advanced=lambda: advanced.append(1))
    assert (asked, len(advanced)) == ([KEYS[1]], 2)
    assert text.getvalue() == "", "both were decided before"


def test_default_demo_of_the_flights_has_a_fault_after_ten_keys_and_before_the_last_five():
    from platform_assets.demo import job

    flights = specs.load("flight_delays")
    wanted = journal.plan(flights, count=None, most=job.MOST_KEYS, seed=job.SEED)
    assert wanted.injected is not None
    assert set(wanted.injected.keys) <= set(wanted.keys[10:-5])


def test_a_demo_ends_when_the_platform_has_given_something_up(settings: Settings):
    check = loop.unless_given_up(Product(SPEC, settings), lambda: None)
    alerts, at = AlertsResource(), datetime(2020, 1, 1, tzinfo=UTC)
    alerts.record(SPEC.name, "stale-1", kind="stale", text="It is stale.", at=at)
    check()
    alerts.record(SPEC.name, "advance-1", kind="gave_up", text="advance is given up:  eight attempts.", at=at)
    with pytest.raises(loop.DemoProblem, match=r"advance is given up:  eight attempts\. Dagster's UI"):
        check()
