"""Dagster's definitions are waited for, and runs without a process are cancelled before it starts."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.settings import Settings
from platform_assets.demo import processes, servers
from platform_assets.demo.processes import Children
from platform_assets.demo.servers import DagsterProblem
from platform_assets.instance import home
from platform_assets.operations.exporter.code_locations import LOADING

pytestmark = pytest.mark.slow


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, str | None] | ValueError) -> None:
    left = list(answers)

    def problems(_address: str) -> dict[str, str | None]:
        answer = left.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    monkeypatch.setattr(servers.code_locations, "problems", problems)
    monkeypatch.setattr(processes.time, "sleep", lambda _: None)


def _wait() -> None:
    servers.wait_for_definitions("http://dagster.test", check=lambda: None)


def test_definitions_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    _answering(monkeypatch, ValueError("busy"), {}, {"driftline": LOADING}, {"driftline": None})
    _wait()


def test_definitions_that_do_not_load_are_reported_with_their_error(monkeypatch: pytest.MonkeyPatch):
    _answering(monkeypatch, {"driftline": "no module"})
    with pytest.raises(DagsterProblem, match="the definitions do not load: no module"):
        _wait()


def test_runs_that_an_earlier_demo_left_under_way_are_cancelled(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    def _far_enough(*_: Any, **__: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(servers, "_dagster_dev", _far_enough)
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        started = dg.DagsterRunStatus.STARTED
        left = dg.DagsterRun(job_name="advance__tiny", status=started, tags={servers.SENSOR: "landings"})
        by_hand = dg.DagsterRun(job_name="advance__tiny", status=started)
        for run in (left, by_hand):
            instance.add_run(run)
        with Children({}, Path("unused")) as children, pytest.raises(InterruptedError):
            servers.dagster(settings, children).__enter__()
        runs = {run.run_id: run.status for run in instance.get_runs()}
    assert runs == {left.run_id: dg.DagsterRunStatus.CANCELED, by_hand.run_id: started}
