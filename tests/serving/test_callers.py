"""Callers are known by a key, and a file that cannot be used starts no service."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.answer.callers import Callers, CallersProblem, Unknown
from tests.doubles import models

KEY, SECOND, OTHER = "a key of the app", "its next key", "a key of another"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def write(folder: Path) -> Path:
    file = folder / "callers.toml"
    file.write_text(f'app = ["{sha256(KEY)}", "{sha256(SECOND)}"]\nother = ["{sha256(OTHER)}"]\n')
    return file


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def test_without_a_file_everybody_may_ask() -> None:
    assert Callers().name_of({b"authorization": b"Basic eA=="}) is None


@pytest.mark.parametrize(("key", "name"), [(KEY, "app"), (SECOND, "app"), (OTHER, "other")])
def test_a_caller_is_known_by_any_of_its_keys(tmp_path: Path, key: str, name: str) -> None:
    assert Callers(write(tmp_path)).name_of(bearer(key)) == name


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Basic " + KEY.encode()},
        bearer(""),
        bearer(KEY + "x"),
        bearer(KEY[:-1]),
        bearer(sha256(KEY)),
        bearer("x" * 5_000),
        {b"authorization": b"Bearer \xff\xfe"},
        {b"x-forwarded-user": b"app"},
    ],
)
def test_an_unknown_caller_is_refused(tmp_path: Path, fields: dict[bytes, bytes]) -> None:
    with pytest.raises(Unknown, match="expected the header Authorization: Bearer KEY"):
        Callers(write(tmp_path)).name_of(fields)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("app = 1", "is not a file of callers"),
        ("[app", "is not a file of callers"),
        ("[app]", "is not a file of callers"),
        (f'app = ["{KEY}"]', "is not a file of callers"),
        ('"a b" = []', "is not a file of callers"),
        (f'a = ["{"0" * 64}"]\nb = ["{"0" * 64}"]', "lists a sha256 twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(text)
    with pytest.raises(CallersProblem, match=problem):
        Callers(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CallersProblem, match=r"DRIFTLINE_SERVING_CALLERS\) cannot be read: No such file"):
        Callers(tmp_path / "nothing")


@pytest.fixture
def closed(app: Any, tmp_path: Path) -> Any:
    """An app that answers two callers."""
    app.change(callers=Callers(write(tmp_path)))
    return app


def ask(app: Any, key: str, body: Any) -> tuple[int, dict[str, str], Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    sent = json.dumps(body).encode()
    status, answered, content = app.call("POST", "/predict", sent, content_length=str(len(sent)), **headers)
    return status, answered, json.loads(content)


def test_the_log_names_the_caller(closed: Any) -> None:
    assert ask(closed, KEY, [models.row("1"), models.row("2")])[0] == 200
    assert ask(closed, "guess", models.row("3"))[0] == 401
    headers = ask(closed, "", models.row("4"))[1]
    assert headers["www-authenticate"] == "Bearer"
    assert "connection" not in headers, "the caller may ask again, with a key"
    assert [record["caller"] for record in closed.records()] == ["app", "app"]
    assert 'driftline_requests_total{release="none",status="401"} 2.0' in closed.probe("/metrics")[1].decode()


def test_callers_do_not_see_each_others_idempotency_keys(closed: Any) -> None:
    first, second = (ask(closed, key, models.row(idempotency_key="k"))[2] for key in (KEY, OTHER))
    assert first["prediction_id"] != second["prediction_id"]
    assert ask(closed, OTHER, models.row("other", idempotency_key="k"))[0] == 422
    assert ask(closed, KEY, models.row(idempotency_key="k"))[2] == first


def test_a_record_without_a_caller_is_as_before(app: Any) -> None:
    app.predict(models.row())
    (record,) = app.records()
    assert "caller" not in record
