"""A file as the body is answered like its row of JSON; missing query parameters are named, and damage is a 422."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_assets.serving import diagnosis, pictures
from platform_assets.serving.contract import Contract
from tests.doubles import models
from tests.doubles.validators import agree
from tests.serving.picture_files import BAD_FILES, GREY, HEIGHT, JPEG, MOTION, PNG, WIDTH, file_of, text_of
from tests.volume import draws

IMAGES = Contract(models.image_contract())
MIXED = Contract(models.image_contract(models.MIXED_FIELDS))


@pytest.fixture
def app(make: Callable[..., Any]) -> Any:
    app = make(models.image_contract())
    app.follower.fall_back()
    return app


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("", "entity", "entity is missing in the query string; expected /predict?entity="),
        ("entity=a&service_time=2013-03-01T14:00:00Z", "asked_at", "asked_at is missing"),
        ("entity=&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z", "entity", 'entity is ""; expected'),
        ("entity=a&service_time=noon&asked_at=2013-03-01T12:00:00Z", "service_time", 'is "noon"; expected a UTC time'),
        ("entity=a&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01", "asked_at", "expected a UTC time"),
        ("entity=a&entity=b", "entity", "entity appears twice in the query string"),
        ("entity=a&color=red", "color", "color is not a parameter of the query string"),
        ("entity=%ff", None, "the query string cannot be read (escapes that are not UTF-8)"),
        (
            "entity=é",
            None,
            "contains the raw byte 0xc3; expected characters beyond ASCII as percent-escaped UTF-8",
        ),
        ("a%0A%1B%00=1", r"a\n\x1b\x00", r"a\n\x1b\x00 is not a parameter of the query string"),
        ("&".join("entity=a" for _ in range(40)), None, "cannot be read (more than 16 parts)"),
        (
            "entity=a&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z&idempotency_key=",
            "idempotency_key",
            'idempotency_key is ""; expected text',
        ),
    ],
)
def test_an_incomplete_query_is_refused(app: Any, query: str, field: str | None, message: str) -> None:
    status, _, raw = app.call("POST", f"/predict?{query}", PNG, content_type="image/png")
    answer = json.loads(raw)
    assert (status, answer["field"]) == (422, field)
    assert message in answer["error"]


def test_a_query_next_to_json_is_checked_too(app: Any) -> None:
    body = json.dumps(models.image_row()).encode()
    assert app.call("POST", "/predict?entity=a&color=red", body)[0] == 200
    for query, field in (("entity=", "entity"), ("service_time=noon", "service_time"), ("entity=%ff", None)):
        status, _, answer = app.call("POST", f"/predict?{query}", body)
        assert (status, json.loads(answer)["field"]) == (422, field)


def test_a_file_is_answered_like_its_row_of_json(app: Any) -> None:
    status, answer = app.predict_file(PNG, entity="日本 & co")
    assert (status, answer["entity"]) == (200, "日本 & co")
    app.predict(models.image_row(text_of(PNG), "日本 & co"))
    own = {"prediction_id": "", "answered_at_utc": "", "latency_us": 0, "request_id": "", "traceparent": ""}
    one, other = ({**record, **own} for record in app.records())
    assert one == other
    large = app.call("POST", "/predict", PNG, content_type="image/png", content_length="10000000")
    assert large[0] == 413


def test_a_file_under_another_content_type_is_refused_with_the_right_one(app: Any, make: Callable[..., Any]) -> None:
    kinds = ("image/gif", "image/svg+xml; a=b", "image/", "application/octet-stream", "text/plain")
    for kind in (*kinds, "application/x-www-form-urlencoded"):
        status, answer = app.predict_file(PNG, kind)
        assert status == 415
        assert answer["error"].startswith(f"the content type is {kind}; expected application/json in UTF-8 or")
        assert "image/png or image/jpeg with the rest of the row in the query string (/predict?" in answer["error"]
    for data, name in ((PNG, "PNG"), (JPEG, "JPEG")):
        status, answer = app.predict_file(data, "application/json")
        assert status == 415
        assert answer["error"].startswith(f"the body is a {name} file, but its content type does not say so; expected")
        assert f"`Content-Type: image/{name.lower()}` with the rest of the row in the query" in answer["error"]
    assert app.predict(PNG)[0] == 415
    status, answer = app.predict_file(JPEG, "image/jpg")
    assert (status, answer["probabilities"]) == (200, app.predict_file(JPEG, "image/jpeg")[1]["probabilities"])
    mixed = make(models.image_contract(models.MIXED_FIELDS))
    mixed.follower.fall_back()
    status, answer = mixed.predict(JPEG)
    assert (status, "has other fields too; expected JSON" in answer["error"]) == (415, True)


def test_a_name_in_json_is_shown_without_control_characters(app: Any) -> None:
    status, answer = app.predict({**models.image_row(), "a\n\u2028b日本\ud800": 1})
    assert (status, answer["field"]) == (422, r"a\n\u2028b日本\ud800")


def test_the_openapi_document_describes_how_to_send_a_picture(make: Callable[..., Any]) -> None:
    document = json.loads(make(models.image_contract()).call("GET", "/openapi.json")[2])
    post = document["paths"]["/predict"]["post"]
    assert list(post["requestBody"]["content"]) == ["application/json", "image/png", "image/jpeg"]
    assert [item["name"] for item in post["parameters"]] == ["entity", "service_time", "asked_at", "idempotency_key"]
    photo = document["components"]["schemas"]["Features"]["properties"]["photo"]
    text, lists = photo["anyOf"]
    assert text == {"type": "string", **pictures.TEXT_SCHEMA}
    assert all(re.search(text["pattern"], text_of(data)) for data in (PNG, JPEG))
    assert (lists["minItems"], lists["items"]["maxItems"]) == models.SHAPE
    mixed = json.loads(make(models.image_contract(models.MIXED_FIELDS)).call("GET", "/openapi.json")[2])
    assert list(mixed["paths"]["/predict"]["post"]["requestBody"]["content"]) == ["application/json"]
    assert "parameters" not in mixed["paths"]["/predict"]["post"]


LEVELS = st.integers(0, 255) | st.sampled_from([-1, 256, 1.0, True, None, "1", 10**30])
PHOTOS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=8),
    st.sampled_from(
        [text_of(PNG), text_of(JPEG), models.rows_of(), *(text_of(data) for data, _ in BAD_FILES.values())]
    ),
    st.binary(max_size=40).map(text_of),
    st.lists(st.lists(st.integers(0, 255), min_size=WIDTH, max_size=WIDTH), min_size=HEIGHT, max_size=HEIGHT),
    st.lists(st.lists(LEVELS, min_size=WIDTH, max_size=WIDTH), min_size=HEIGHT, max_size=HEIGHT),
    st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=6) | st.integers(), min_size=3, max_size=5),
)


@settings(max_examples=draws(200), deadline=None)
@given(PHOTOS, PHOTOS, st.booleans())
def test_the_fast_path_and_the_diagnosis_agree_about_pictures(one: Any, other: Any, is_escaped: bool) -> None:
    rows = [{**models.image_row(), "features": {"photo": photo}} for photo in (one, other)]
    for row in rows:
        agree(IMAGES, json.dumps(row, ensure_ascii=is_escaped).encode("utf-8", "surrogatepass"))
    features = {"weight": 1.5, "photo": one, "carrier": other if isinstance(other, str) else None}
    mixed = json.dumps({**models.image_row(), "features": features}, ensure_ascii=is_escaped)
    agree(MIXED, mixed.encode("utf-8", "surrogatepass"))


@settings(max_examples=draws(100), deadline=None)
@given(st.sampled_from([models.rows_of(), text_of(PNG), text_of(JPEG)]), st.sampled_from([None, "UA", "日本"]))
def test_a_good_picture_needs_no_diagnosis(photo: Any, carrier: str | None) -> None:
    features = {"carrier": carrier, "photo": photo, "weight": 2.5}
    body = json.dumps({**models.image_row(), "features": features}, ensure_ascii=False).encode()
    with patch.object(diagnosis, "check_row", side_effect=AssertionError):
        assert isinstance(MIXED.decode(body).rows[0].features.photo, bytes)


@settings(max_examples=draws(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([PNG, JPEG, MOTION, file_of(GREY.convert("P")), file_of(form="JPEG", progressive=True)]),
    st.lists(st.tuples(st.integers(0, 2_000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_any_damaged_file_is_answered_or_refused(app: Any, data: bytes, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for path, part in changes:
        path %= len(damaged)
        damaged[path : path + len(part)] = part
    status, answer = app.predict_file(bytes(damaged), "image/jpeg")
    assert status in (200, 422)
    if status == 422:
        assert answer["field"] == "features.photo"
        assert answer["error"].endswith(".")
        assert len(answer["error"]) < 300
    agree(IMAGES, json.dumps(models.image_row(text_of(bytes(damaged)))).encode())
