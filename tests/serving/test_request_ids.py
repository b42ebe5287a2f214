"""`X-Request-ID` and `traceparent` come back and are logged; absent and malformed ones are replaced."""

import json
import re
from typing import Any

import pytest

from platform_assets.serving.answer.request_ids import RequestIds
from tests.doubles import models

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
NEW = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")


def traced(value: str) -> str:
    return RequestIds().identify({b"traceparent": value.encode()})[1].decode()


@pytest.mark.parametrize("value", [GOOD, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-new"])
def test_a_valid_traceparent_is_kept(value: str) -> None:
    assert traced(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        GOOD.upper(),
        f"{GOOD}-more",
        GOOD[:-1],
        f"{GOOD}\n",
        f" {GOOD}",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 80}",
        f"cc-{TRACE}-{SPAN}-01-a b",
        f"0x-{TRACE}-{SPAN}-01",
    ],
)
def test_another_one_is_replaced(value: str) -> None:
    assert NEW.fullmatch(traced(value))


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"a\r\nset-cookie: x", b"\xff", b"a\x00"])
def test_a_malformed_request_id_is_replaced(value: bytes) -> None:
    assert re.fullmatch(rb"[0-9a-f]{32}", RequestIds().identify({b"x-request-id": value})[0])


def test_new_ids_differ() -> None:
    ids = RequestIds()
    assert len({part for _ in range(1_000) for part in ids.identify({})}) == 2_000


def test_ids_are_in_the_answer_and_in_each_record(app: Any) -> None:
    body = json.dumps([models.row("1"), models.row("2")]).encode()
    status, headers, _ = app.call("POST", "/predict", body, x_request_id="order-66", traceparent=GOOD)
    assert (status, headers["x-request-id"], headers["traceparent"]) == (200, "order-66", GOOD)
    assert [(record["request_id"], record["traceparent"]) for record in app.records()] == [("order-66", GOOD)] * 2


@pytest.mark.parametrize(("method", "content"), [("GET", b""), ("POST", b"{"), ("POST", b"x" * 2_000_000)])
def test_a_refused_request_has_ids_too(app: Any, method: str, content: bytes) -> None:
    _, headers, _ = app.call(method, "/predict", content, x_request_id="r1", content_length=str(len(content)))
    assert headers["x-request-id"] == "r1"
    assert NEW.fullmatch(headers["traceparent"])
