"""A retry with its key gets the first answer; the key used for another request is refused."""

from collections.abc import Callable
from typing import Any

from platform_assets.serving.answer.answer_records import BinaryAnswer
from platform_assets.serving.answer.idempotency import Answers
from tests.doubles import models


def test_a_repeated_key_gets_the_first_answer_and_is_logged_once(app: Any) -> None:
    first = app.predict(models.row(idempotency_key="k"))
    assert first[0] == 200
    assert app.predict(models.row(idempotency_key="k")) == first
    assert app.predict([models.row("b"), models.row(idempotency_key="k")])[1][1] == first[1]
    assert [record["entity"] for record in app.records()] == [first[1]["entity"], "b"]


def test_the_first_answer_outlives_a_release(app: Any) -> None:
    first = app.predict(models.row(idempotency_key="k"))
    models.write_bundle(app.store, bias=3.0)
    app.follower.live = None
    app.follower._fallback, app.follower._fallback_digest = app.store, models.write_bundle(app.store, bias=3.0)
    app.follower.fall_back()
    assert app.predict(models.row())[1]["digest"] != first[1]["digest"]
    assert app.predict(models.row(idempotency_key="k")) == first


def test_a_key_with_another_request_is_refused(app: Any) -> None:
    assert app.predict(models.row(idempotency_key="k"))[0] == 200
    status, answer = app.predict([models.row("c"), models.row("other", idempotency_key="k")])
    assert (status, answer["field"]) == (422, "[1].idempotency_key")
    assert app.predict([models.row("x", idempotency_key="n"), models.row("y", idempotency_key="n")])[0] == 422
    assert len(app.records()) == 1


def test_one_key_twice_in_a_list_is_one_prediction(app: Any) -> None:
    status, answers = app.predict([models.row(idempotency_key="k")] * 3)
    assert status == 200
    assert answers[0] == answers[1] == answers[2]
    assert len(app.records()) == 1


def test_another_worker_assigns_the_same_id(make: Callable[..., Any], tmp_path: Any) -> None:
    one, other = make(), make()
    for app in (one, other):
        app.follower.fall_back()
    request = models.row(idempotency_key="k")
    assert one.predict(request)[1] == other.predict(request)[1]
    assert one.predict(models.row())[1]["prediction_id"] != other.predict(models.row())[1]["prediction_id"]


def test_old_keys_are_forgotten() -> None:
    answers = Answers(size=2)
    for name in "abc":
        answers.add(name, BinaryAnswer(name, "d", "e", 0.5, True))
    assert answers.find("a", "a", "idempotency_key") is None
    assert answers.find("c", "c", "idempotency_key") == BinaryAnswer("c", "d", "e", 0.5, True)
