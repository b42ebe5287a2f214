"""A request must satisfy its contract; any other is refused with the field, the value and the expectation."""

import gc
import json
from typing import Any

import pytest

from platform_assets.serving.answer.contract import Contract, ContractProblem
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.answer.requests import Refused
from tests.doubles import models

CONTRACT = Contract(models.contract())
DECODING = Decoding(CONTRACT)
GOOD = json.dumps(models.row()).encode()


def refusal(body: bytes | Any) -> tuple[int, str | None, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        DECODING.decode(raw)
    return caught.value.status, caught.value.field, caught.value.sentence


def text_of(features: str) -> bytes:
    """Return a body whose feature `temp` is this raw JSON."""
    return json.dumps(models.row()).replace('"temp": 12.5', f'"temp": {features}').encode()


def test_a_row_and_a_list_decode_in_the_order_of_the_contract() -> None:
    request = DECODING.decode(json.dumps(models.row()).encode())
    assert not request.is_list
    assert request.rows[0].features.temp == 12.5
    assert [item.name for item in CONTRACT.numeric] == ["temp", "wind", "pressure", "seats", "stops", "is_holiday"]
    assert [item.name for item in CONTRACT.categorical] == ["carrier", "origin"]
    assert DECODING.decode(json.dumps([models.row("a"), models.row("b")]).encode()).rows[1].entity == "b"


@pytest.mark.parametrize(
    ("features", "field", "message"),
    [
        ({"temp": "1.5"}, "features.temp", "Expected `float | null`, got `str`"),
        ({"temp": True}, "features.temp", "Expected `float | null`, got `bool`"),
        ({"temp": [1]}, "features.temp", "Expected `float | null`, got `array`"),
        ({"temp": 60.001}, "features.temp", "Expected `float` <= 60.0"),
        ({"wind": -0.001}, "features.wind", "Expected `float` >= 0.0"),
        ({"wind": None}, "features.wind", "features.wind: Expected `float`, got `null`."),
        ({"seats": 1.5}, "features.seats", "Expected `float` that's a multiple of 1.0"),
        ({"seats": 900.5}, "features.seats", "Expected `float`"),
        ({"stops": 2.0**53}, "features.stops", "Expected `float` <= 9007199254740991.0"),
        ({"stops": 2**53}, "features.stops", "Expected `float` <= 9007199254740991.0"),
        ({"seats": True}, "features.seats", "got `bool`"),
        ({"seats": 901}, "features.seats", "Expected `float` <= 900.0"),
        ({"stops": 10**30}, "features.stops", "Expected `float` <= 9007199254740991.0"),
        ({"pressure": 1e39}, "features.pressure", "Expected `float` <= 3.40282346638528"),
        ({"pressure": 10**400}, "features.pressure", "Number out of range"),
        ({"is_holiday": 1}, "features.is_holiday", "Expected `bool | null`, got `int`"),
        ({"carrier": ""}, "features.carrier", "Expected `str` of length >= 1"),
        ({"carrier": "x" * 257}, "features.carrier", "Expected `str` of length <= 256"),
        ({"carrier": 3}, "features.carrier", "Expected `str`, got `int`"),
        ({"extra": 1}, "features.extra", "Object contains unknown field `extra`"),
    ],
)
def test_an_invalid_value_is_named_with_the_expectation(features: dict[str, Any], field: str, message: str) -> None:
    status, result, sentence = refusal(models.row(features=features))
    assert (status, result) == (422, field)
    assert message in sentence
    assert refusal([models.row(), models.row(features=features)])[1] == f"[1].{field}"


def test_missing_fields_are_named() -> None:
    for name in models.FEATURES:
        row = models.row()
        del row["features"][name]
        assert refusal(row)[1] == f"features.{name}"
    for name in ("entity", "service_time", "asked_at", "features"):
        row = models.row()
        del row[name]
        assert refusal(row)[1] == name


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000])
def test_no_number_that_is_not_finite_passes(number: str) -> None:
    assert refusal(text_of(number))[0] == 422


@pytest.mark.parametrize("number", ["01", "+1", ".5", "1.", "0x10", "1_000", "'1'"])
def test_numbers_outside_of_the_json_grammar_are_refused(number: str) -> None:
    assert refusal(text_of(number))[2].startswith("the body cannot be read: JSON is malformed: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cannot be read: Input data was truncated"),
        (b" \n", "cannot be read: Input data was truncated"),
        (b"[]", "the list is empty; expected 1 to 16 rows"),
        (b"{", "cannot be read"),
        (b"null", "the body: Expected `object`, got `null`"),
        (b'"text"', "the body: Expected `object`, got `str`"),
        (b"12", "the body: Expected `object`, got `int`"),
        (b"[1]", "[0]: Expected `object`, got `int`"),
        (b"[[]]", "[0]: Expected `object`, got `array`"),
        (b"\xef\xbb\xbf{}", "cannot be read"),
        (b'{"entity": "\xff"}', "cannot be read: "),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a":' * 100_000, "is longer than 29233 bytes; expected a shorter row"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "a: Object contains unknown field `a`"),
        (b'{"entity": "' + b"{" * 200, "cannot be read"),
        (b"{} {}", "entity: Object missing required field `entity`"),
        ("{}".encode("utf-16"), "cannot be read"),
        *((body, "") for body in (b"\x00", b"\xff\xfe", b"-", b"1e" + b"9" * 50_000, b"9" * 90_000, b"<xml/>")),
        *((body, "") for body in (b"a=1&b=2", b'{"entity": {"$ne": 1}}')),
        *((body, "") for body in (b'"' + b"a" * 90_000 + b'"', b"[" + b"null," * 15_000 + b"null]")),
        *((body, "") for body in (GOOD[:-1], GOOD + GOOD, GOOD.replace(b"{", b"{" + b" " * 60_000, 1) + b"x")),
        *((GOOD.replace(b"UA", text), "") for text in (b"\\ud800", b"\\x", b"\xed\xa0\x80")),
    ],
)
def test_a_body_that_is_not_a_request_is_refused_with_a_message(body: bytes, message: str) -> None:
    status, _, sentence = refusal(body)
    assert status == 422
    assert message in sentence
    assert sentence.endswith(".") and len(sentence) < 400


def test_too_many_rows_are_refused() -> None:
    assert DECODING.decode(json.dumps([models.row()] * 16).encode()).rows
    assert "has more than 16 rows" in refusal([models.row()] * 17)[2]


@pytest.mark.parametrize(
    "moment",
    ["2013-03-01T14:00:00", "2013-03-01", "2013-03-01T14:00:00+01:00", 5, None, "0001-01-01T00:00:00+23:59", "\ud800"],
)
def test_times_are_utc(moment: Any) -> None:
    assert refusal(models.row(service_time=moment))[0] == 422


def test_a_duplicate_key_is_refused_at_any_depth() -> None:
    plain = json.dumps(models.row())
    for name, twice in (
        ('"wind"', '"wind": 1, "wind"'),
        ('"entity"', '"entity": "b", "entity"'),
        ('"wind"', '"\\u0077ind": 1, "wind"'),
    ):
        assert "a name that appears twice" in refusal(plain.replace(name, twice).encode())[2]


def test_escapes_in_text_are_accepted() -> None:
    row = DECODING.decode(json.dumps(models.row('a "quoted" \\ ü 日本', {"carrier": "日本"})).encode()).rows[0]
    assert (row.entity, row.features.carrier) == ('a "quoted" \\ ü 日本', "日本")
    assert refusal(models.row("\ud800"))[0] == 422


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "format=1; this service reads format 3"),
        ({"task": "binary"}, "Expected `object`, got `str` - at `$.task`"),
        ({"task": {"kind": "ranking"}}, "Invalid value 'ranking' - at `$.task.kind`"),
        ({"task": {"kind": "binary", "threshold": 1}}, "Expected `float` < 1.0 - at `$.task.threshold`"),
        ({"task": {"kind": "multi_class", "classes": ["a", "a"]}}, "a class appears twice - at `$.task`"),
        ({"task": {"kind": "regression"}}, "Object missing required field `unit` - at `$.task`"),
        ({"service_time": None}, "the contract cannot be read"),
        ({"asked_at": {"from": "2013-01-01T00:00:00Z"}}, "the contract cannot be read"),
        ({"asked_at": {"from": "noon", "before": "2013-01-01T00:00:00Z"}}, "the contract cannot be read"),
        ({"clock_within_s": "a week"}, "the contract cannot be read"),
        ({"clock_within_s": 1e300}, "the contract cannot be read"),
        ({"fields": [models.field("photo", "image", shape=[1, 2])] * 2}, "has 2 images, photo, photo"),
        ({"fields": [models.field("photo", "image")]}, "'photo' has dtype 'image', shape=None"),
        ({"fields": [models.field("photo", "image", shape=[1, 2], is_nullable=True)]}, "no nullable images"),
        ({"fields": [models.field("sound", "audio")]}, "'sound' has dtype 'audio'; this service reads float"),
    ],
)
def test_a_contract_that_this_code_cannot_serve_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractProblem) as caught:
        Contract(models.contract(**changes))
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("number", "value"), [("180.0", 180), ("1.8e2", 180), ("-0.0", 0)])
def test_a_whole_number_may_have_a_point(number: str, value: int) -> None:
    """JSON Schema counts them among integers, and pandas writes a column with a null so."""
    body = json.dumps([models.row(features={"seats": "S"}), models.row()]).replace('"S"', number).encode()
    seats = DECODING.decode(body).rows[0].features.seats
    assert (seats, type(seats)) == (value, int)


def test_up_to_eight_bad_rows_of_a_list_are_named() -> None:
    bad = [models.row(features={"wind": -1.0 - number}) for number in range(16)]
    with pytest.raises(Refused) as caught:
        DECODING.decode(json.dumps([models.row(), *bad[:1], models.row(), *bad[1:13]]).encode())
    answer = json.loads(caught.value.body)
    assert [item["field"] for item in answer["problems"]] == [f"[{row}].features.wind" for row in (1, *range(3, 10))]
    assert answer["problems"][0] == {"error": answer["error"], "field": answer["field"]}
    with pytest.raises(Refused) as caught:
        DECODING.decode(json.dumps([models.row(), bad[0]]).encode())
    assert set(json.loads(caught.value.body)) == {"error", "field"}


@pytest.mark.parametrize(
    "body",
    [json.dumps([models.row(features={"wind": -1})] * 16).encode(), b"[" + b"{}," * 40 + b"{}]", b"[{} {}]", b"{"],
    ids=["bad rows", "too many rows", "not a list", "not JSON"],
)
def test_a_refusal_leaves_nothing_to_the_garbage_collector(body: bytes) -> None:
    """What a cycle holds, a body of megabytes among it, stays until the collector runs, which is seldom in a worker."""

    def refuse() -> None:
        try:
            DECODING.decode(body)
        except Refused:
            return
        raise AssertionError("it was accepted")

    def garbage() -> int:
        gc.collect()
        refuse()
        return gc.collect()

    refuse()
    gc.disable()
    try:
        assert 0 in (garbage() for _ in range(5)), "once is another thread's"
    finally:
        gc.enable()
