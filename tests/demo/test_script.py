"""The demo on its way, without its servers: `tests/test_end_to_end.py` plays a whole one."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any, NoReturn

import dagster as dg
import pytest

from platform_assets.alerts.resource import AlertsResource
from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import replay, script, servers
from platform_assets.demo.processes import Children
from platform_assets.demo.replay import Outcome
from platform_assets.demo.replay.callers import Answer
from platform_assets.demo.replay.playing import Requests
from platform_assets.demo.script import DemoProblem
from platform_assets.engine import product_files
from platform_assets.monitoring.alert_kinds import Alert, Kind
from platform_assets.product.spec import FaultKind
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import DECISIONS, Decision
from platform_assets.store.records.faults import Indexed, Judgement
from tests.doubles import documents, recorded

pytestmark = pytest.mark.slow

KIND = FaultKind(name="lost", description="no file", source="plans", check="volume", deliver=lambda *_: None)
SPEC = replace(recorded.SPEC, history=replace(replay.history(recorded.SPEC), demo_until="2020-01-16", faults=(KIND,)))
QUESTION = RequestDocument(
    entity="l'été",
    service_time="2020-01-11T05:00:00Z",
    asked_at="2020-01-11T04:00:00Z",
    idempotency_key="first",
    features={"origin": None, "quote": '"; rm -r $HOME'},
)
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")
CUTOFF = replay.first_cutoff(SPEC)


def _no_check() -> None:
    return


def test_plan_starts_at_the_first_cutoff_and_ends_with_the_recording_or_the_budget(monkeypatch: pytest.MonkeyPatch):
    assert script.plan(SPEC).keys == KEYS
    monkeypatch.setattr(script, "MOST_KEYS", 3)
    assert script.plan(SPEC).keys == KEYS[:3]
    assert script.plan(SPEC, count=5).keys == KEYS[:5]
    text = f"Replaying 5 keys, {KEYS[0]} to {KEYS[4]}, of 6 in the recording (`--keys`), seed 1."
    assert script.replay_text(script.plan(SPEC, count=5)) == text


def test_recording_without_an_end_for_demos_gives_one_key():
    assert script.plan(replace(SPEC, history=replace(replay.history(SPEC), demo_until=None))).keys == KEYS[:1]


@pytest.mark.parametrize("count", [0, 7])
def test_counts_of_keys_out_of_range_are_refused(count: int):
    with pytest.raises(ValueError, match=rf"--keys is {count}; recorded has a recording for 1 to 6 keys"):
        script.plan(SPEC, count=count)


def test_default_demo_of_the_flights_has_a_fault_after_ten_keys_and_before_the_last_five():
    plan = script.plan(product_files.load("flight_delays"))
    assert plan.injected is not None
    assert set(plan.injected.keys) <= set(plan.keys[10:-5])


def test_the_same_options_go_on_and_others_are_refused(settings: Settings):
    for _ in range(2):
        script.go_on(settings, SPEC.name, script.plan(SPEC))
    with pytest.raises(ValueError, match=r'was started with .*"seed": 1}; it cannot go on with .*"seed": 2}'):
        script.go_on(settings, SPEC.name, script.plan(SPEC, seed=2))
    with pytest.raises(ValueError, match=r"start over with `rm -r .*state`, which removes all"):
        script.go_on(settings, SPEC.name, script.plan(SPEC, count=3))


def test_the_injected_fault_is_named_at_the_end():
    plan = replace(script.plan(SPEC), injected=replay.Injected(kind=KIND, keys=KEYS[2:4]))
    assert f"lost (no file), plans of {KEYS[2]}, {KEYS[3]}. Expected to be found by volume." in script.fault_text(plan)
    assert script.fault_text(replace(plan, injected=None)).startswith("No fault was injected: too few keys")


def test_files_are_landed_once_and_then_the_clock_is_set(settings: Settings, capsys: pytest.CaptureFixture[str]):
    product, history = ProductStore(SPEC, settings), replay.history(SPEC)
    script.land(product, CUTOFF)
    script.land(product, CUTOFF)
    first, second = capsys.readouterr().out.splitlines()
    count = int(first.split("landed ")[1].split()[0])
    days = len(SPEC.grain.span(history.demo_first, history.demo_last))
    assert count > days
    assert f"{count} files of {days} keys" in first and "0 existed already" in first
    assert f"{count} existed already" in second
    end = replay.end_of(SPEC, history.demo_last, replay.Reader(SPEC))
    assert clock.now(settings, SPEC.name, is_live=False) == end


def test_a_demo_defines_and_watches_no_other_product(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[Mapping[str, str]] = []

    def dagster(_settings: Settings, children: Children) -> NoReturn:
        environments.append(children.environment)
        raise DemoProblem("far enough")

    monkeypatch.setattr(servers, "dagster", dagster)
    others = set(product_files.names()) - {"flight_delays"}
    assert others
    with pytest.raises(DemoProblem, match="far enough"):
        script.run(ProductStore(product_files.load("flight_delays"), settings), is_staying=False, keys=1)
    for name, value in environments[0].items():
        monkeypatch.setenv(name, value)
    definitions = build_defs()
    assert {one.name.partition("__")[2] for one in definitions.jobs or ()} == {"flight_delays"}
    assert {spec.key.path[0] for spec in definitions.resolve_all_asset_specs()} == {"flight_delays"}
    assert {one.name.partition("__")[2] for one in definitions.schedules or ()} == {"flight_delays"}


def test_without_a_release_the_demo_ends_with_what_to_change_and_the_command(settings: Settings, tmp_path: Path):
    with Children({}, tmp_path) as children, pytest.raises(DemoProblem) as caught:
        script.serve(ProductStore(SPEC, settings), children, CUTOFF)
    message = str(caught.value)
    assert f"The model of cutoff {CUTOFF} was not released, and there is no earlier one." in message
    assert f"platform_assets/products/{SPEC.name}.py" in message
    assert f"dg launch --job retrain__{SPEC.name} --partition {CUTOFF}" in message


def test_a_request_is_printed_as_a_command_that_a_shell_takes_apart_again(capsys: pytest.CaptureFixture[str]):
    script.show_doors("http://ui", "http://127.0.0.1:3001", QUESTION)
    text = capsys.readouterr().out
    command = shlex.split(next(line for line in text.splitlines() if line.startswith("curl ")))
    assert command[:3] == ["curl", "-sS", "http://127.0.0.1:3001/predict"]
    assert json.loads(command[-1]) == QUESTION
    assert "http://ui/asset-groups" in text


@dg.asset(key=["tiny", "features"])
def features() -> None:
    return


@dg.asset(key=["tiny", "broken"])
def broken() -> None:
    raise dg.Failure("the landing is empty")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.mark.costly
def test_runs_of_sensors_are_shown_until_their_result_exists(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(script, "POLL_S", 0.0)
    job = dg.materialize([features], instance=instance).dagster_run.job_name
    earlier = instance.get_runs()[0].run_id
    todo = [broken, features]

    def is_over() -> bool:
        if not todo:
            return True
        dg.materialize([todo.pop(0)], instance=instance, tags={servers.SENSOR: "landings"}, raise_on_error=False)
        return False

    script.show_runs(instance, job, is_over, check=_no_check, about="data", ui="http://ui")
    text = capsys.readouterr().out
    assert earlier not in text, "it ended before"
    good, bad = (run.run_id for run in instance.get_runs()[:2])
    assert f"data, launched by landings: http://ui/runs/{bad}" in text
    assert f"! step tiny__broken: the landing is empty\nThe run and its log: http://ui/runs/{bad}" in text
    assert text.count("✓ ") == 1 and good in text


def test_a_run_that_made_the_result_is_awaited(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    job = dg.Definitions(assets=[features], jobs=[dg.define_asset_job("a")]).resolve_job_def("a")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            instance.report_run_canceled(run)

    monkeypatch.setattr(script, "POLL_S", 0.0)
    script.show_runs(instance, "a", lambda: True, check=check, about="data", ui="")
    assert len(looks) == 3


def test_the_platform_is_quiet_once_no_run_was_under_way_for_a_while(monkeypatch: pytest.MonkeyPatch):
    """Time passes by half a second per look; a run ends at the fourth."""
    passed, looks = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    def get_runs(limit: int) -> list[Any]:
        looks.append(passed[0])
        return [SimpleNamespace(is_finished=len(looks) >= 4)]

    monkeypatch.setattr(script, "time", SimpleNamespace(monotonic=lambda: passed[0], sleep=sleep))
    runs: Any = SimpleNamespace(get_runs=get_runs)
    script.wait_until_quiet(runs, _no_check)
    assert passed[0] - looks[2] == script.QUIET_S, "since it was last seen under way"


def test_a_demo_ends_when_the_platform_has_given_up(settings: Settings):
    product, alerts, at = ProductStore(SPEC, settings), AlertsResource(), datetime(2020, 1, 1, tzinfo=UTC)
    alerts.record(SPEC.name, Alert(id="stale-1", kind=Kind.STALE, text="It is stale."), at)
    script.raise_if_given_up(product)
    text = "advance is given up:  eight attempts."
    alerts.record(SPEC.name, Alert(id="advance-1", kind=Kind.GAVE_UP, text=text), at)
    with pytest.raises(DemoProblem, match=r"advance is given up:  eight attempts\. Dagster's UI"):
        script.raise_if_given_up(product)


@pytest.mark.parametrize(
    ("decision", "outcome", "text"),
    [
        ({"action": "wait", "reasons": ["too early."]}, None, "wait: too early."),
        ({"action": "alert_fault", "reasons": ["half is gone."]}, None, "fault: half is gone."),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="released", release=2, digest="d", reasons=()),
            "retrain: old. · release 2 of cutoff 0009",
        ),
        (
            {"action": "retrain", "cutoff": "0009", "reasons": ["old."]},
            Outcome(kind="kept_champion", release=1, digest="d", reasons=("Lost.",)),
            "retrain: old. · champion kept: Lost.",
        ),
    ],
)
def test_line_of_a_key_states_the_outcome(decision: dict[str, Any], outcome: Outcome | None, text: str):
    requests = Requests(requests=1_239, answered=1_234, refused=5)
    near = Indexed(mean_psi=0.1, limit=0.2, percentile=0.987, windows=9, keys=[])
    decided = DECISIONS.read(documents.decision("0008", **decision), "a place")
    line = script.line_of("0008", requests, Judgement(index=near), decided, outcome)
    assert line == f"0008  1,234 answered, 5 refused · drift 0.99 · {text}"


class _Asked(replay.Player):
    """Answers a key's requests without a service."""

    def __init__(self, settings: Settings, statuses: tuple[int, ...] = (422, 200, 200)) -> None:
        super().__init__(ProductStore(SPEC, settings), "http://127.0.0.1:9", check=_no_check)
        self.statuses, self.keys = statuses, list[str]()

    def ask(self, key: str, *, on_answer: Callable[[Answer], None] | None = None) -> Requests:
        self.keys.append(key)
        body = {"entity": key, "value": 1.0, "spread": 1.0, "unit": "C"}
        for status in self.statuses:
            if on_answer is not None:
                on_answer(Answer(request=QUESTION, status=status, body=body, latency_s=0.001))
        answered = self.statuses.count(200)
        refused = len(self.statuses) - answered
        return Requests(requests=len(self.statuses), answered=answered, refused=refused)

    def close(self, key: str, then: str | None = None) -> tuple[Decision, Outcome | None]:
        return DECISIONS.read(documents.decision(key), "a place"), None


def test_each_key_has_its_line_and_the_first_answer_its_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(script, "perf_counter", lambda: 165.0)
    with _Asked(settings) as player:
        script.replay_keys(ProductStore(SPEC, settings), player, KEYS[:2], started_s=100.0)
    assert player.keys == list(KEYS[:2])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"  first answer after 65 s: {KEYS[0]} ")
    assert [line.partition(" · ")[0] for line in lines] == [f"{key}      2 answered, 1 refused" for key in KEYS[:2]]


def test_requests_of_decided_keys_are_not_sent_again(settings: Settings, capsys: pytest.CaptureFixture[str]):
    Ledgers(settings.root, SPEC.name).create(naming.DECISIONS, KEYS[0], documents.decision(KEYS[0]))
    with _Asked(settings) as player:
        script.replay_keys(ProductStore(SPEC, settings), player, KEYS[:2], started_s=perf_counter())
    assert player.keys == [KEYS[1]]
    assert KEYS[0] not in capsys.readouterr().out


def test_a_demo_whose_requests_are_all_refused_ends_with_the_key(settings: Settings):
    with (
        _Asked(settings, (422,)) as player,
        pytest.raises(DemoProblem, match=r"none of 1 request for 2020-01-11 was answered; .*service\.log says why"),
    ):
        script.replay_keys(ProductStore(SPEC, settings), player, KEYS, started_s=perf_counter())
