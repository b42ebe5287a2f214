"""A process says what speaks against its model: invalid answers, and processes that died with it in hand."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow import model_faults
from platform_assets.serving.follow.alive import InHand, Mark
from platform_assets.serving.follow.model_faults import ModelFaults
from tests.doubles import models
from tests.serving.conftest import App

pytestmark = pytest.mark.slow


def release(app: App, graph: bytes | None = None, bias: float = 0.0) -> str:
    """Release a model, which the app follows; return its digest."""
    digest = app.release(bias=bias, graph=graph)
    app.middleware._look()
    assert app.follower.live.model.digest == digest
    return digest


def problem_of(app: App) -> str | None:
    status, body = app.probe("/readyz")
    assert status == 200, "the rows that it can answer are answered"
    problem: str | None = json.loads(body)["problem"]
    return problem


def metric(app: App, name: str) -> float:
    lines = app.metrics().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_invalid_answers_are_told_until_another_model_answers(app: App, caplog: pytest.LogCaptureFixture) -> None:
    digest = release(app, models.not_a_number(app.document))
    assert (problem_of(app), metric(app, "driftline_invalid_answers_total")) == (None, 0.0)
    hot, mild = models.row(features={"temp": 41.5}), models.row()
    with caplog.at_level(logging.WARNING, "bentoml.driftline"):
        statuses = [app.predict(row)[0] for row in [hot, mild, [mild, hot], *[hot] * 10]]
    assert statuses == [503, 200, *[503] * 11]
    problem = problem_of(app)
    assert problem is not None
    assert problem.startswith(f"model {digest} (release 1) gave no valid answer to 12 requests of this process")
    assert problem.endswith("`driftline rollback tiny` restores the model before it.")
    assert metric(app, "driftline_invalid_answers_total") == 12.0
    assert metric(app, "driftline_model_has_problem") == 1.0
    assert metric(app, "driftline_ready") == 1.0
    logged = [record.getMessage() for record in caplog.records if "no valid answer" in record.getMessage()]
    assert [text.partition("answer to ")[2].split()[0] for text in logged] == ["1", "10"], "not one line per request"
    release(app, bias=2.0)
    assert (problem_of(app), metric(app, "driftline_model_has_problem")) == (None, 0.0)
    assert metric(app, "driftline_invalid_answers_total") == 12.0


def test_a_model_that_fails_counts_as_one_without_an_answer(app: App) -> None:
    release(app, models.takes_2_gb_for_ten(app.document))
    app.follower.live.model._run = _fail
    assert app.predict(models.row())[0] == 503
    assert "gave no valid answer to 1 requests" in str(problem_of(app))


def _fail(*_: Any) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    raise Fail("[ONNXRuntimeError] : 1 : FAIL")


def test_other_refusals_say_nothing_about_the_model(app: App) -> None:
    assert app.predict(models.row(features={"seats": 901}))[0] == 422
    assert problem_of(app) is None


def test_one_invalid_answer_is_told_for_an_hour(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    release(app, models.not_a_number(app.document))
    app.predict(models.row(features={"temp": 41.5}))
    later = time.time() + model_faults.SHOWN_S + 1
    monkeypatch.setattr(model_faults.time, "time", lambda: later)
    assert problem_of(app) is None


SERVES = """
import asyncio, sys
from pathlib import Path
from tests.doubles import models
from tests.serving.test_model_faults import release, started

app = started(Path(sys.argv[1]))
release(app, models.divides_by_minus_one_for(app.document)) if app.follower.live.release is None else None
app.predict(models.row(features={"seats": 181}))
"""


def started(folder: Path) -> App:
    """Start a process's part of a service, as assembled; the folder is that of the machine's local copy."""
    app = App(folder)
    mark = Mark(folder / "kept")
    app.change(mark=mark, predictor=Predictor(app.log, ModelFaults(mark)))
    app.follower.taking = app.runtime.predictor.faults.note
    asyncio.run(app.middleware.load())
    app.middleware._following.stop()
    return app


def dies(folder: Path) -> None:
    """Have a process serve a model, and a caller send the row that ends it."""
    ended = subprocess.run([sys.executable, "-c", SERVES, str(folder)], cwd=REPOSITORY, capture_output=True)
    assert ended.returncode == -signal.SIGFPE, ended.stderr.decode()


def test_a_process_that_died_with_a_new_model_is_told_by_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dies(tmp_path)
    with caplog.at_level(logging.WARNING, "bentoml.driftline"):
        app = started(tmp_path)
    digest = app.follower.live.model.digest
    message = f"the process before this one died with model {digest} (release 1) in hand"
    assert str(problem_of(app)).startswith(message)
    assert [record for record in caplog.records if message in record.getMessage()]
    assert metric(app, "driftline_model_has_problem") == 1.0
    asyncio.run(app.middleware.close())

    release(app, bias=2.0)
    assert problem_of(app) is None, "another model is live"


@pytest.mark.costly
def test_deaths_in_a_row_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        dies(tmp_path)
    assert str(problem_of(started(tmp_path))).startswith("3 processes before this one died with model")


def test_a_process_that_is_stopped_or_lives_is_not_taken_for_dead(tmp_path: Path) -> None:
    app = started(tmp_path)
    release(app)
    neighbour = started(tmp_path)
    assert problem_of(neighbour) is None, "the first one lives"
    for each in (neighbour, app):
        asyncio.run(each.middleware.close())
    assert not list((tmp_path / "kept").glob("*.alive"))
    assert problem_of(started(tmp_path)) is None


def test_a_process_that_died_after_long_service_does_not_speak_against_its_model(tmp_path: Path) -> None:
    dies(tmp_path)
    (path,) = (tmp_path / "kept").glob("*.alive")
    long_after = time.time() + model_faults.SHOWN_S
    os.utime(path, (long_after, long_after))
    assert problem_of(started(tmp_path)) is None


def test_the_file_names_the_new_model_before_it_answers(tmp_path: Path) -> None:
    """With hundreds of requests a second the row that ends the process comes in the same millisecond."""
    app, seen = started(tmp_path), []
    note: Callable[..., None] = app.runtime.predictor.faults.note

    def taking(live: Any) -> None:
        note(live)
        (path,) = (tmp_path / "kept").glob("*.alive")
        seen.append((json.loads(path.read_bytes())["release"], app.follower.live.release))

    app.follower.taking = taking
    release(app, bias=2.0)
    assert seen == [(1, None)]


@pytest.mark.parametrize("content", [b"\xff{", b"", b"7\n", b'{"digest": ' + b"9" * 5000, b'{"digest": "1"}\n'])
def test_a_mark_that_cannot_be_read_is_a_death_without_a_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/7-7.alive").write_bytes(content)
    app = started(tmp_path)
    assert "died" not in str(problem_of(app))
    assert metric(app, "driftline_process_deaths_total") == 1.0
    assert not (tmp_path / "kept/7-7.alive").exists()


def test_a_shorter_model_in_hand_replaces_a_longer_one(tmp_path: Path) -> None:
    mark = Mark(tmp_path)
    mark.begin()
    for digest in ("b" * 64, "c"):
        mark.hold(InHand(digest=digest, release=1, since_s=1.0))
    (path,) = tmp_path.glob("*.alive")
    assert json.loads(path.read_bytes())["digest"] == "c"
    mark.end()
