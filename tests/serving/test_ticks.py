"""Requests of one turn of the event loop share one run of the graph and one write, and nothing else."""

import asyncio
from typing import Any

import pytest

from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.slices_of_work import ROWS_AT_ONCE
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.sealed import ModelProblem
from tests.doubles import models


def ask(app: Any, *bodies: Any) -> list[tuple[int, Any]]:
    """Send requests that arrive in the same turn of the loop; return status and answer of each."""

    async def all_at_once() -> list[tuple[int, Any]]:
        return await asyncio.gather(*map(app.post, bodies))

    return asyncio.run(all_at_once())


class Counter:
    """Counter of the calls of a method, which it passes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, size: Any) -> None:
        self.sizes: list[int] = []
        real = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            self.sizes.append(size(arguments[1]))
            return real(*arguments)

        monkeypatch.setattr(owner, name, counting)


def test_requests_of_a_turn_share_one_run_and_one_write(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Counter(monkeypatch, Model, "predict", len)
    writes = Counter(monkeypatch, PredictionLog, "append", lambda lines: lines.count(b"\n"))
    answers = ask(
        app, *(models.row(str(number), {"wind": float(number)}) for number in range(8)), [models.row("8")] * 2
    )
    assert [status for status, _ in answers] == [200] * 9
    assert (runs.sizes, writes.sizes) == ([10], [10])
    assert [answer["entity"] for _, answer in answers[:8]] == [str(number) for number in range(8)]
    expected = [models.expected(0.0, {**models.FEATURES, "wind": float(number)}) for number in range(8)]
    assert [answer["probability"] for _, answer in answers[:8]] == pytest.approx(expected, abs=1e-6)
    assert len({record["prediction_id"] for record in app.records()}) == 10


def test_a_request_that_is_alone_waits_for_no_turn(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = ask(app, models.row("1"), models.row("2"))
    runs = Counter(monkeypatch, Model, "predict", len)
    app.runtime.predictor.tick.is_alone = lambda: True
    scheduled: list[Any] = []
    monkeypatch.setattr(app.runtime.predictor.tick, "_run", scheduled.append)
    alone = ask(app, models.row("1"), models.row("2"))
    assert (runs.sizes, scheduled) == ([1, 1], [])
    assert [answer["probability"] for _, answer in alone] == [answer["probability"] for _, answer in together]


def test_no_run_has_more_rows_than_a_slice(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Counter(monkeypatch, Model, "predict", len)
    sizes = [1, 9, 7, 15, 2, 16, *[1] * 20]
    answers = ask(app, *([models.row(str(number)) for number in range(size)] for size in sizes))
    assert [(status, len(answer)) for status, answer in answers] == [(200, size) for size in sizes]
    assert max(runs.sizes) <= ROWS_AT_ONCE
    assert (sum(runs.sizes), len(runs.sizes)) == (sum(sizes), 7)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (models.row("bad", {"wind": -1}), 422),
        (models.row("bad", {"origin": "never seen"}), 422),
        ([models.row("good"), models.row("bad", {"origin": "never seen"})], 422),
    ],
)
def test_a_bad_row_fails_alone(app: Any, bad: Any, status: int) -> None:
    answers = ask(app, models.row("1"), bad, models.row("2"))
    assert [status for status, _ in answers] == [200, status, 200]
    assert [record["entity"] for record in app.records()] == ["1", "2"]


@pytest.mark.parametrize("raises", [True, False], ids=["the graph fails", "an output is not valid"])
def test_a_row_without_an_answer_fails_alone(app: Any, monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    real = Model.predict

    def failing(self: Model, numeric: Any, *others: Any) -> Any:
        is_bad = (numeric == 666).any(axis=1)
        if raises and is_bad.any():
            raise ModelProblem("the graph fails")
        output = real(self, numeric, *others)
        output[is_bad] = float("nan")
        return output

    monkeypatch.setattr(Model, "predict", failing)
    answers = ask(app, models.row("1"), models.row("bad", {"wind": 666}), models.row("2"))
    assert [status for status, _ in answers] == [200, 503, 200]
    assert (answers[1][1]["error"] == "the graph fails; nothing was answered.") == raises
    assert [record["entity"] for record in app.records()] == ["1", "2"]


def test_two_models_in_one_turn_answer_their_own_requests(app: Any) -> None:
    other = models.write_bundle(ArtifactStore(str(app.folder / "fallback")), bias=3.0, document=app.document)
    second = Live(Model.load(app.fallback, other), None, "fallback")

    async def live() -> list[Any]:
        first = asyncio.create_task(app.post(models.row("1")))
        asyncio.get_running_loop().call_soon(setattr, app.follower, "live", second)
        later = asyncio.create_task(app.post(models.row("2")))
        return [(await task)[1] for task in (first, later)]

    answers = asyncio.run(live())
    assert [answer["digest"] for answer in answers] == [app.fallback_digest, other]
    assert [record["digest"] for record in app.records()] == [app.fallback_digest, other]


def test_the_same_key_twice_in_a_turn_is_logged_once(app: Any) -> None:
    row = models.row("1", idempotency_key="k")
    (first, second), third = ask(app, row, row), ask(app, row)[0]
    assert first == second == third
    assert len(app.records()) == 1


def test_the_same_key_for_another_row_in_a_turn_is_refused(app: Any) -> None:
    answers = ask(app, models.row("1", idempotency_key="k"), models.row("2", idempotency_key="k"))
    assert [status for status, _ in answers] == [200, 422]
    assert [record["entity"] for record in app.records()] == ["1"]


def test_no_answer_of_a_turn_is_given_that_could_not_be_logged(app: Any) -> None:
    repeated = ask(app, models.row("known", idempotency_key="known"))
    app.log.close()
    (app.folder / "log").rename(app.folder / "away")
    (app.folder / "log").write_text("a file where the folder should be")
    row = models.row("1", idempotency_key="k")
    answers = ask(app, row, row, models.row("2"), models.row("known", idempotency_key="known"))
    assert [status for status, _ in answers] == [503, 503, 503, 200]
    assert answers[3] == repeated[0], "an answer that is in the log is repeated"
    (app.folder / "log").unlink()
    (status, answer), *_ = ask(app, row)
    assert status == 200
    assert [record["prediction_id"] for record in app.records()] == [answer["prediction_id"]]


def test_a_caller_that_leaves_takes_no_other_request_along(app: Any) -> None:
    async def live() -> list[Any]:
        calls = [app.post(models.row(str(n))) for n in range(3)]
        tasks = [asyncio.create_task(call) for call in calls]
        asyncio.get_running_loop().call_soon(tasks[1].cancel)
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(live())
    assert (first[0], third[0]) == (200, 200)
    assert isinstance(second, asyncio.CancelledError)
    assert [record["entity"] for record in app.records()] == ["0", "2"]
    assert app.runtime.predictor._underway == {}


def test_a_bug_ends_the_requests_of_its_turn_and_no_later_one(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PredictionLog, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(app, models.row("1"))
    assert ask(app, models.row("2"))[0][0] == 200
    assert [record["entity"] for record in app.records()] == ["2"]
