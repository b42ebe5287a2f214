"""For any input, the answer is JSON, never a 5xx for a caller's mistake, and never a non-finite number."""

import asyncio
import json
import math
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_assets.serving.answer import bodies
from platform_assets.serving.answer.contract import FLOAT_MAX
from tests.doubles import models
from tests.volume import draws

GOOD = json.dumps(models.row()).encode()


def test_a_row_is_answered_with_its_id_digest_and_probability(app: Any) -> None:
    status, answer = app.predict(models.row())
    assert status == 200
    assert answer["probability"] == pytest.approx(models.expected(0.0), abs=1e-6)
    assert answer == {
        "prediction_id": answer["prediction_id"],
        "digest": app.fallback_digest,
        "entity": "2013-03-01_UA_1_EWR",
        "probability": answer["probability"],
        "is_positive": True,
    }


def test_a_list_is_answered_in_its_order(app: Any) -> None:
    status, answers = app.predict(
        [models.row(str(number), {"carrier": carrier}) for number, carrier in enumerate(("AA", "ZZ", "日本"))]
    )
    assert status == 200
    assert [answer["entity"] for answer in answers] == ["0", "1", "2"]
    expected = [models.expected(0.0, {**models.FEATURES, "carrier": carrier}) for carrier in ("AA", "ZZ", "日本")]
    assert [answer["probability"] for answer in answers] == pytest.approx(expected, abs=1e-6)
    assert len({answer["prediction_id"] for answer in answers}) == 3


def test_nulls_are_values(app: Any) -> None:
    nulls = dict.fromkeys(("temp", "stops", "origin", "is_holiday"))
    status, answer = app.predict(models.row(features=nulls))
    assert (status, answer["probability"]) == (
        200,
        pytest.approx(models.expected(0.0, {**models.FEATURES, **nulls}), abs=1e-6),
    )


def test_an_unknown_category_is_refused_only_if_the_contract_says_so(app: Any) -> None:
    assert app.predict(models.row(features={"carrier": "never seen"}))[0] == 200
    status, answer = app.predict([models.row(), models.row(features={"origin": "XXX"})])
    assert (status, answer["field"]) == (422, "[1].features.origin")


def test_every_answer_is_in_the_log_with_its_features(app: Any) -> None:
    answers = [app.predict(models.row())[1], *app.predict([models.row("a"), models.row("b", idempotency_key="k")])[1]]
    records = app.records()
    assert [record["prediction_id"] for record in records] == [answer["prediction_id"] for answer in answers]
    assert [record["probability"] for record in records] == [answer["probability"] for answer in answers]
    assert records[0]["features"] == models.FEATURES
    assert records[0]["service_time"] == "2013-03-01T14:00:00Z"
    assert (records[0]["release"], records[0]["digest"]) == (None, app.fallback_digest)
    assert [record["idempotency_key"] for record in records] == [None, None, "k"]
    assert app.predict([models.row(), models.row(features={"wind": -1})])[0] == 422
    assert len(app.records()) == 3


def test_a_body_that_is_too_large_is_refused_by_its_length_alone(app: Any) -> None:
    status, headers, body = app.call("POST", "/predict", b"", content_length="10000000")
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body)["error"] == "the body has 10000000 bytes; expected at most 100000."


def test_a_large_body_without_a_length_is_not_read_completely(app: Any) -> None:
    status, _, body = app.call("POST", "/predict", [b" " * 60_000, b" " * 60_000, b" " * 60_000])
    assert status == 413
    assert "larger than 100000 bytes" in json.loads(body)["error"]


def test_a_body_in_parts_is_reassembled(app: Any) -> None:
    assert app.call("POST", "/predict", [GOOD[:10], b"", GOOD[10:50], GOOD[50:]])[0] == 200


def test_a_body_that_does_not_arrive_times_out(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.01)
    monkeypatch.setattr(bodies, "DRAIN_S", 0.01)
    sent: list[dict[str, Any]] = []

    async def never() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app.middleware({"type": "http", "method": "POST", "path": "/predict", "headers": []}, never, send))
    assert sent[0]["status"] == 408


def test_a_compressed_body_is_refused(app: Any) -> None:
    assert app.call("POST", "/predict", GOOD, content_encoding="gzip")[0] == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_predict_accepts_only_post(app: Any, method: str) -> None:
    status, headers, _ = app.call(method, "/predict", GOOD)
    assert (status, headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path",
    ["/anything", "/livez", "/healthz", "/metrics", "/static_content/index.css", "/healthz/", "//"],
)
def test_other_paths_are_not_found(make: Callable[..., Any], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bento itself answers some of them."""
    app = make()
    monkeypatch.setattr(app.middleware, "_app", None)
    status, _, body = app.call("GET", path)
    assert status == 404
    assert json.loads(body)["error"] == (
        "there is nothing at this path; the paths are /predict, /api/predict, /, /docs.json, /openapi.json, /readyz, "
        "/schema.json."
    )


def test_nothing_is_ready_before_a_model_is_loaded(make: Callable[..., Any]) -> None:
    """The public port says only that, because anybody may read it."""
    app = make()
    assert app.probe("/readyz")[0] == 503
    assert app.call("GET", "/readyz")[0::2] == (503, b'{"is_ready":false}')
    assert app.probe("/healthz")[0] == 200
    assert app.predict(models.row()) == (
        503,
        {"error": "no model is loaded yet; /readyz on the port of probes says why.", "field": None},
    )
    app.follower.fall_back()
    status, state = app.ready()
    assert (status, state["source"]) == (200, "fallback")
    assert app.call("GET", "/readyz")[0::2] == (200, b'{"is_ready":true}')


def test_the_openapi_document_is_a_function_of_the_contract(app: Any) -> None:
    document = json.loads(app.call("GET", "/openapi.json")[2])
    schemas = document["components"]["schemas"]
    row, features = schemas["Row"], schemas["Features"]["properties"]
    assert sorted(features) == sorted(models.FEATURES)
    assert features["temp"] == {
        "description": "The temp. (a number from -60 to 60, or null)",
        "anyOf": [{"type": "number", "minimum": -60.0, "maximum": 60.0}, {"type": "null"}],
    }
    assert (features["pressure"]["minimum"], features["pressure"]["maximum"]) == (-FLOAT_MAX, FLOAT_MAX)
    assert row["required"] == ["entity", "service_time", "asked_at", "features"]


def test_the_service_is_not_ready_while_no_prediction_can_be_logged(app: Any) -> None:
    (app.folder / "log").write_text("a file where the folder should be")
    assert app.probe("/readyz")[0] == 200
    status, answer = app.predict(models.row())
    assert (status, "could not be logged, so it is not returned" in answer["error"]) == (503, True)
    for _ in range(2):
        status, state = app.ready()
        assert (status, state["is_ready"], state["digest"]) == (503, False, app.fallback_digest)
        assert "cannot be written" in state["problem"]
        assert "driftline_log_has_problem 1.0" in app.metrics()
        app.log.check()
    (app.folder / "log").unlink()
    app.log.check()
    assert app.probe("/readyz")[0] == 200
    assert "driftline_log_has_problem 0.0" in app.metrics()
    assert app.predict(models.row())[0] == 200


def test_unusual_but_valid_text_is_answered(app: Any) -> None:
    for text in ("\u0000", "a\u0000b", "💥", "\u202e", "'; DROP TABLE", "{{7*7}}", "x" * 256):
        assert app.predict(models.row(features={"carrier": text}))[0] == 200
    assert app.records()[0]["features"]["carrier"] == "\u0000"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def check(app: Any, body: bytes) -> None:
    status, _, answer = app.call("POST", "/predict", body)
    decoded = json.loads(answer, parse_constant=lambda name: pytest.fail(f"{name} in an answer"))
    assert status in (200, 413, 422), (status, decoded)
    if status == 200:
        for row in decoded if isinstance(decoded, list) else [decoded]:
            assert math.isfinite(row["probability"])


@settings(max_examples=draws(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, features=st.dictionaries(st.sampled_from([*models.FEATURES, "other"]), JSON, max_size=4))
def test_any_json_is_answered_or_refused(app: Any, document: Any, features: dict[str, Any]) -> None:
    check(app, json.dumps(document).encode())
    check(app, json.dumps([models.row(features=features), document]).encode())
    check(app, json.dumps(models.row(features=features)).encode())


CONTENT_TYPES = {
    "application/json": 200,
    "Application/JSON; charset=UTF-8": 200,
    'application/json;charset="utf-8"': 200,
    "": 200,
    "text/plain": 415,
    "application/x-www-form-urlencoded": 415,
    "application/json; charset=latin-1": 415,
    "application/jsonp": 415,
    "image/gif": 415,
    "multipart/form-data; boundary=x": 415,
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_json_requires_its_content_type(app: Any, content_type: str) -> None:
    status, _, body = app.call("POST", "/predict", GOOD, content_type=content_type)
    assert status == CONTENT_TYPES[content_type]
    if status == 415:
        assert "expected application/json in UTF-8" in json.loads(body)["error"]
        assert app.records() == []


def test_every_status_is_counted_on_every_path(app: Any) -> None:
    app.predict(models.row())
    app.predict(b"{")
    app.call("GET", "/predict")
    app.call("POST", "/predict", GOOD, content_type="text/plain")
    app.call("POST", "/predict", b"", content_length="10000000")
    app.call("POST", "/readyz")
    for stranger in range(3):
        app.call("GET", f"/wp-login-{stranger}.php")
    lines = app.metrics().splitlines()
    lines = [line for line in lines if not line.endswith(" 0.0")]
    counted = {line.split("{")[1] for line in lines if line.startswith("driftline_http_requests_total{")}
    assert counted == {
        'path="/predict",status="200"} 1.0',
        'path="/predict",status="422"} 1.0',
        'path="/predict",status="405"} 1.0',
        'path="/predict",status="415"} 1.0',
        'path="/predict",status="413"} 1.0',
        'path="/readyz",status="405"} 1.0',
        'path="other",status="404"} 3.0',
    }
    statuses = {line for line in lines if line.startswith("driftline_requests_total{")}
    assert statuses == {
        f'driftline_requests_total{{release="none",status="{code}"}} 1.0' for code in (200, 422, 405, 415, 413)
    }


def test_a_refused_request_is_timed_to_its_last_byte(app: Any) -> None:
    """The caller of a body that is too large takes .05 s to receive the answer; a good one is quicker."""

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0.05 if message["type"] == "http.response.body" else 0)

        headers = [(b"content-length", b"10000000")]
        await app.middleware({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, receive, send)

    asyncio.run(ask())
    text = app.metrics()
    assert 'driftline_request_seconds_bucket{le="0.02",release="none"} 0.0' in text
    assert 'driftline_request_seconds_count{release="none"} 1.0' in text


def test_an_answer_is_counted_before_its_last_byte_is_sent(app: Any) -> None:
    """A worker that is killed as soon as its caller has the answer has counted it."""
    counted: list[bytes] = []

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": GOOD, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                counted.append(app.probe("/metrics")[1])

        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(GOOD)).encode())]
        await app.middleware({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, receive, send)

    asyncio.run(ask())
    assert [b'driftline_requests_total{release="none",status="200"} 1.0' in text for text in counted] == [True]
    assert b'driftline_requests_total{release="none",status="200"} 1.0' in app.probe("/metrics")[1]


def test_an_internal_error_is_counted_as_the_servers_500(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.runtime.predictor, "steps", None)
    with pytest.raises(TypeError):
        app.predict(models.row())
    assert 'driftline_requests_total{release="none",status="500"} 1.0' in app.metrics()


def test_a_caller_that_disconnects_is_counted_and_not_timed(app: Any) -> None:
    async def disconnected() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(
        app.middleware({"type": "http", "method": "POST", "path": "/predict", "headers": []}, disconnected, None)
    )
    assert app.records() == []
    text = app.metrics()
    assert 'driftline_http_requests_total{path="/predict",status="gone"} 1.0' in text
    assert 'driftline_request_seconds_count{release="none"} 0.0' in text
    assert "driftline_in_flight_requests" in text


def test_requests_in_flight_are_counted_until_their_last_byte(app: Any) -> None:
    async def live() -> None:
        going, has_gone = asyncio.Event(), []

        async def receive() -> Any:
            await going.wait()
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        calls = [asyncio.create_task(app.middleware(scope, receive, has_gone.append)) for _ in range(12)]
        await asyncio.sleep(0)
        going.set()
        await asyncio.gather(*calls)

    asyncio.run(live())
    app.runtime.metrics.note_lag(0.0, 0)
    assert "driftline_in_flight_requests 12.0" in app.metrics(), "a peak between two looks"


def test_only_bundles_that_are_served_are_shown(app: Any) -> None:
    assert app.fallback_digest in app.metrics()
    other = models.write_bundle(app.fallback, bias=3.0, document=app.document)
    app.follower.live = app.follower._tried(app.fallback, other, None, "fallback")
    text = app.metrics()
    assert f'driftline_model_info{{digest="{other}",source="fallback"}} 1.0' in text
    assert app.fallback_digest not in text
    app.follower.live = None
    assert "driftline_model_info{" not in app.metrics()


def test_an_empty_or_missing_store_is_named_and_not_created(app: Any) -> None:
    assert not app.follower.look()
    assert app.follower.problem == (
        f"tiny has no release in the store at {app.folder / 'store'}; release a model, or check DRIFTLINE_ROOT."
    )
    shutil.rmtree(app.folder / "store")
    assert not app.follower.look()
    assert app.follower.problem == (
        f"the store at {app.folder / 'store'} cannot be read: the folder does not exist; "
        "check DRIFTLINE_ROOT, or create it."
    )
    assert not (app.folder / "store").exists()
    assert app.follower.live.source == "fallback"
