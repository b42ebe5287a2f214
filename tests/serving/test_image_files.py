"""A file as the body is answered like its row of JSON; missing query parameters are named, and damage is a 422."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from platform_assets.serving.answer import pictures
from tests.doubles import models
from tests.serving.picture_files import JPEG, PNG, text_of


@pytest.fixture
def app(make: Callable[..., Any]) -> Any:
    return make(models.image_contract(), starts=True)


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("", "entity", "entity: Object missing required field `entity`"),
        ("entity=a&service_time=2013-03-01T14:00:00Z", "asked_at", "missing required field `asked_at`"),
        ("entity=&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z", "entity", "`str` of length >= 1"),
        ("entity=a&service_time=noon&asked_at=2013-03-01T12:00:00Z", "service_time", "Invalid RFC3339"),
        ("entity=a&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01", "asked_at", "Invalid RFC3339"),
        (
            "entity=a&service_time=1713-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z",
            "service_time",
            "expected a UTC time",
        ),
        ("entity=a&entity=b", None, "the query string has a parameter twice"),
        ("features=a", None, "or one that is not its own"),
        ("entity=a&color=red", "color", "Object contains unknown field `color`"),
        ("entity=%ff", None, "the query string cannot be read (escapes that are not UTF-8)"),
        (
            "entity=é",
            None,
            "contains the raw byte 0xc3; expected characters beyond ASCII as percent-escaped UTF-8",
        ),
        ("&".join("entity=a" for _ in range(40)), None, "cannot be read (more than 16 parts)"),
        (
            "entity=a&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z&idempotency_key=",
            "idempotency_key",
            "`str` of length >= 1",
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


def test_a_file_under_another_content_type_is_refused_with_the_right_one(app: Any) -> None:
    kinds = ("image/gif", "image/svg+xml; a=b", "image/", "application/octet-stream", "text/plain")
    for kind in (*kinds, "application/x-www-form-urlencoded"):
        status, answer = app.predict_file(PNG, kind)
        assert status == 415
        assert answer["error"].startswith(f"the content type is {kind!r}; expected application/json in UTF-8 or")
        assert "image/png or image/jpeg with the rest of the row in the query string (/predict?" in answer["error"]
    for data, name in ((PNG, "PNG"), (JPEG, "JPEG")):
        status, answer = app.predict_file(data, "application/json")
        assert status == 415
        assert answer["error"].startswith(f"the body is a {name} file, but its content type does not say so; expected")
        assert f"`Content-Type: image/{name.lower()}` with the rest of the row in the query" in answer["error"]
    assert app.predict(PNG)[0] == 415
    status, answer = app.predict_file(JPEG, "image/jpg")
    assert (status, answer["probabilities"]) == (200, app.predict_file(JPEG, "image/jpeg")[1]["probabilities"])


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
