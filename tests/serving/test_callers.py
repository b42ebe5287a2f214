"""Callers are known by a key or a trusted proxy, limited each, and never able to make a label of the metrics."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving import callers
from platform_assets.serving.callers import OTHER, Bucket, Callers, CallersProblem, TurnedAway
from tests.doubles import models

KEY, SECOND = "a key of the app", "its next key"
PROXY, STRANGER = "10.0.0.7", "10.0.0.8"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def write(folder: Path, more: str = "") -> Path:
    file = folder / "callers.toml"
    file.write_text(f'[app]\nsha256 = ["{sha256(KEY)}", "{sha256(SECOND)}"]\n[ana]\n{more}')
    return file


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def proxied(folder: Path, more: str = "") -> Callers:
    return Callers(write(folder, more), "X-Forwarded-User", [f"{PROXY}/32", "fd00::/8"])


def test_without_settings_everybody_may_ask() -> None:
    assert Callers().admit({b"authorization": b"Basic eA=="}, STRANGER) is None


@pytest.mark.parametrize("key", [KEY, SECOND])
def test_a_caller_is_known_by_any_of_its_keys(tmp_path: Path, key: str) -> None:
    caller = Callers(write(tmp_path)).admit(bearer(key), None)
    assert caller is not None and (caller.name, caller.label) == ("app", "app")


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
    with pytest.raises(TurnedAway) as turned:
        Callers(write(tmp_path)).admit(fields, PROXY)
    assert (turned.value.status, turned.value.header) == (401, (b"www-authenticate", b"Bearer"))


def test_a_trusted_proxy_names_the_caller_and_nobody_else_does(tmp_path: Path) -> None:
    admission, header = proxied(tmp_path), {b"x-forwarded-user": b"ana"}
    for address in (PROXY, "fd00::1"):
        caller = admission.admit(header, address)
        assert caller is not None and caller.label == "ana"
    for address in (STRANGER, None, "not an address"):
        with pytest.raises(TurnedAway, match="there is no API key"):
            admission.admit(header, address)
    caller = admission.admit(header | bearer(KEY), STRANGER)
    assert caller is not None and caller.name == "app", "a key counts wherever it comes from"


def test_callers_missing_from_the_file_are_labelled_other_in_metrics(tmp_path: Path) -> None:
    admission = proxied(tmp_path)
    labels = set()
    for number in range(2_000):
        caller = admission.admit({b"x-forwarded-user": b"user %d" % number}, PROXY)
        assert caller is not None and caller.name == f"user {number}"
        labels.add(caller.label)
    assert labels == {OTHER}


@pytest.mark.parametrize("value", [b"\xff", b"a\x00b", b"x" * 300, "\u202eana".encode()])
def test_a_name_that_cannot_be_read_is_turned_away(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(TurnedAway, match="the proxy's name for the caller cannot be read"):
        proxied(tmp_path).admit({b"x-forwarded-user": value}, PROXY)


def test_a_bucket_refills_and_a_list_may_overdraw_it() -> None:
    bucket = Bucket(rows_per_second=2.0, burst_rows=4.0, now_s=0.0)
    assert bucket.wait_s(0.0) == 0
    bucket.take(10)
    assert bucket.wait_s(0.0) == 3.5
    assert bucket.wait_s(3.0) == 0.5
    assert bucket.wait_s(3.5) == 0
    assert bucket.wait_s(1_000.0) == 0
    bucket.take(4)
    assert bucket.wait_s(1_000.0) == 0.5, "what is unused beyond the burst is lost"


def test_a_caller_over_its_limit_is_turned_away_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "monotonic", lambda: 100.0)
    admission = proxied(tmp_path, "rows_per_second = 0.25\nburst_rows = 2\n[other]\nrows_per_second = 1\n")
    for _ in range(2):
        admission.admit({b"x-forwarded-user": b"ana"}, PROXY)
    with pytest.raises(TurnedAway, match="ana has reached its limit; ask again in 4 s") as turned:
        admission.admit({b"x-forwarded-user": b"ana"}, PROXY)
    assert (turned.value.status, turned.value.header) == (429, (b"retry-after", b"4"))
    for _ in range(9):
        admission.admit(bearer(KEY), STRANGER)
    admission.admit({b"x-forwarded-user": b"b"}, PROXY)
    with pytest.raises(TurnedAway):
        admission.admit({b"x-forwarded-user": b"c"}, PROXY)  # those not listed share one limit


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("app = 1", "is not a file of callers"),
        ("[app", "is not a file of callers"),
        ('[app]\nkey = "x"', "is not a file of callers.*unknown field `key`"),
        (f'[app]\nsha256 = ["{KEY}"]', "is not a file of callers"),
        ("[app]\nrows_per_second = 0", "is not a file of callers"),
        ("[app]\nrows_per_second = nan", "is not a file of callers"),
        ("[app]\nburst_rows = 5", "burst_rows without rows_per_second"),
        ('["a b"]', "is not a caller's name"),
        (f'[a]\nsha256 = ["{"0" * 64}"]\n[b]\nsha256 = ["{"0" * 64}"]', "a sha256 is listed twice"),
        (f'[other]\nsha256 = ["{"0" * 64}"]', "has no key"),
        ("".join(f"[c{number}]\n" for number in range(1_001)), "lists 1001 callers; expected at most 1000"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(text)
    with pytest.raises(CallersProblem, match=problem):
        Callers(file)


def test_a_missing_file_and_half_a_proxy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallersProblem, match="DRIFTLINE_SERVING_CALLERS"):
        Callers(tmp_path / "nothing")
    with pytest.raises(CallersProblem, match="expected both or neither"):
        Callers(None, "X-User", [])
    with pytest.raises(CallersProblem, match="expected both or neither"):
        Callers(None, None, [PROXY])


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = write(tmp_path)
    admission = Callers(file)
    file.write_text(f'[new]\nsha256 = ["{sha256("new")}"]')
    admission.check()
    caller = admission.admit(bearer("new"), None)
    assert caller is not None and (caller.name, admission.problem) == ("new", None)
    with pytest.raises(TurnedAway):
        admission.admit(bearer(KEY), None)
    file.write_text("[new")
    for _ in range(2):
        admission.check()
        assert admission.problem is not None and "is not a file of callers" in admission.problem
        assert admission.admit(bearer("new"), None) is not None
    file.unlink()
    admission.check()
    assert admission.problem is not None
    write(tmp_path)
    admission.check()
    assert admission.problem is None
    assert admission.admit(bearer(KEY), None) is not None


@pytest.fixture
def closed(app: Any, tmp_path: Path) -> Any:
    """An app that answers the caller `app`, 3 rows and then none for a while."""
    more = f'[slow]\nsha256 = ["{sha256("slow")}"]\nrows_per_second = 0.001\nburst_rows = 3\n'
    app.change(callers=Callers(write(tmp_path, more)))
    return app


def ask(app: Any, key: str, body: Any) -> tuple[int, dict[str, str], Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    sent = json.dumps(body).encode()
    status, answered, content = app.call("POST", "/predict", sent, content_length=str(len(sent)), **headers)
    return status, answered, json.loads(content)


def test_the_log_and_the_metrics_name_the_caller(closed: Any) -> None:
    assert ask(closed, KEY, [models.row("1"), models.row("2")])[0] == 200
    assert ask(closed, "guess", models.row("3"))[:2][0] == 401
    assert ask(closed, "", models.row("4"))[1]["www-authenticate"] == "Bearer"
    assert [record["caller"] for record in closed.records()] == ["app", "app"]
    text = closed.probe("/metrics")[1].decode()
    assert 'driftline_caller_requests_total{caller="app",status="200"} 1.0' in text
    assert 'driftline_caller_predictions_total{caller="app"} 2.0' in text
    assert 'driftline_requests_total{status="401"} 2.0' in text
    assert "guess" not in text


def test_a_list_counts_by_its_rows(closed: Any) -> None:
    assert ask(closed, "slow", [models.row(str(number)) for number in range(5)])[0] == 200
    status, headers, answer = ask(closed, "slow", models.row())
    assert (status, answer["error"][:31]) == (429, "slow has reached its limit; ask")
    assert 1_900 < int(headers["retry-after"]) <= 3_000
    assert "connection" not in headers
    assert ask(closed, KEY, models.row())[0] == 200
    text = closed.probe("/metrics")[1].decode()
    assert 'driftline_caller_requests_total{caller="slow",status="429"} 1.0' in text


def test_callers_do_not_see_each_others_idempotency_keys(closed: Any) -> None:
    first, second = (ask(closed, key, models.row(idempotency_key="k"))[2] for key in (KEY, "slow"))
    assert first["prediction_id"] != second["prediction_id"]
    assert ask(closed, "slow", models.row("other", idempotency_key="k"))[0] == 422
    assert ask(closed, KEY, models.row(idempotency_key="k"))[2] == first


def test_a_record_without_a_caller_is_as_before(app: Any) -> None:
    app.predict(models.row())
    (record,) = app.records()
    assert "caller" not in record
