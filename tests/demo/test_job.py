"""What a demo prints and refuses on its way, without its servers: `tests/test_end_to_end.py` plays a whole one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import job, journal, replay
from platform_assets.demo.loop import DemoProblem
from platform_assets.demo.processes import Children
from platform_assets.engine import product_files
from platform_assets.store.product_store import ProductStore
from tests.doubles import recorded

SPEC = replace(recorded.SPEC, history=replace(replay.history(recorded.SPEC), demo_until="2020-01-16"))
CUTOFF = replay.first_cutoff(SPEC)


def test_files_are_landed_once_and_then_the_clock_is_set(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    product, history = ProductStore(SPEC, settings), replay.history(SPEC)
    job.land(product, CUTOFF)
    job.land(product, CUTOFF)
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

    monkeypatch.setattr(job.servers, "dagster", dagster)
    others = set(product_files.names()) - {"flight_delays"}
    assert others
    with pytest.raises(DemoProblem, match="far enough"):
        job.run(ProductStore(product_files.load("flight_delays"), settings), is_staying=False, keys=1)
    for name, value in environments[0].items():
        monkeypatch.setenv(name, value)
    definitions = build_defs()
    assert {one.name.partition("__")[2] for one in definitions.jobs or ()} == {"flight_delays"}
    assert {spec.key.path[0] for spec in definitions.resolve_all_asset_specs()} == {"flight_delays"}
    assert {one.name.partition("__")[2] for one in definitions.schedules or ()} == {"flight_delays"}


def test_without_a_release_the_demo_ends_with_what_to_change_and_the_command(
    settings: Settings, tmp_path: Path
) -> None:
    with Children({}, tmp_path) as children, pytest.raises(DemoProblem) as caught:
        job.serve(ProductStore(SPEC, settings), children, CUTOFF)
    message = str(caught.value)
    assert f"The model of cutoff {CUTOFF} was not released, and there is no earlier one." in message
    assert f"platform_assets/products/{SPEC.name}.py" in message
    assert f"dg launch --job retrain__{SPEC.name} --partition {CUTOFF}" in message


def test_a_request_is_printed_as_a_command_that_a_shell_takes_apart_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = RequestDocument(
        entity="l'été",
        service_time="2020-01-11T05:00:00Z",
        asked_at="2020-01-11T04:00:00Z",
        idempotency_key="first",
        features={"origin": None, "quote": '"; rm -r $HOME'},
    )
    command = shlex.split(job.curl("http://127.0.0.1:3001", request))
    assert command[:3] == ["curl", "-sS", "http://127.0.0.1:3001/predict"]
    assert json.loads(command[-1]) == request
    job._show_doors("http://ui", "http://127.0.0.1:3001", request)
    text = capsys.readouterr().out
    assert job.curl("http://127.0.0.1:3001", request) in text
    assert "http://ui/asset-groups" in text


def test_a_shortened_replay_says_how_many_keys_there_are() -> None:
    whole = journal.plan(SPEC, count=None, most=job.MOST_KEYS, seed=1)
    assert job._how_many(whole) == f"Replaying {len(whole.keys)} keys, {whole.keys[0]} to {whole.keys[-1]}, seed 1."
    cut = replace(whole, keys=tuple(whole.keys[:1]) * job.MOST_KEYS, available=90)
    assert job._how_many(cut).endswith("45 of 90 fit into ten minutes on two cores (--keys 90 for all).")


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), DemoProblem("the service ended")])
def test_servers_stay_until_ctrl_c_or_until_one_of_them_ends(
    problem: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter((None, None, problem))

    def check() -> None:
        if (ended := next(looks)) is not None:
            raise ended

    monkeypatch.setattr(job.time, "sleep", lambda _: None)
    children: Any = SimpleNamespace(check=check)
    if isinstance(problem, KeyboardInterrupt):
        job.stay(children)
    else:
        with pytest.raises(DemoProblem, match="the service ended"):
            job.stay(children)
    assert next(looks, "none") == "none"
