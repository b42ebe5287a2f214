"""A request must satisfy its contract; any other is refused with the field, the value and the expectation."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.serving.contract import FLOAT_MAX, Contract, ContractProblem
from platform_assets.serving.requests import Refused
from tests.doubles import models
from tests.doubles.validators import agree
from tests.volume import draws

NESTED = "nested too deeply" if sys.version_info < (3, 12) else "entity is missing"
"""A thousand levels are too deep up to Python 3.11, and ten thousand from 3.12 on."""

CONTRACT = Contract(models.contract())


def refusal(body: bytes | Any) -> tuple[int, str | None, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        CONTRACT.decode(raw)
    return caught.value.status, caught.value.field, caught.value.sentence


def text_of(features: str) -> bytes:
    """Return a body whose feature `temp` is this raw JSON."""
    return json.dumps(models.row()).replace('"temp": 12.5', f'"temp": {features}').encode()


def test_a_row_and_a_list_decode_in_the_order_of_the_contract() -> None:
    request = CONTRACT.decode(json.dumps(models.row()).encode())
    assert not request.is_list
    assert request.rows[0].features.temp == 12.5
    assert [item.name for item in CONTRACT.numeric] == ["temp", "wind", "pressure", "seats", "stops", "is_holiday"]
    assert [item.name for item in CONTRACT.categorical] == ["carrier", "origin"]
    assert CONTRACT.decode(json.dumps([models.row("a"), models.row("b")]).encode()).rows[1].entity == "b"


def test_null_is_a_value_where_the_contract_allows_it() -> None:
    assert CONTRACT.decode(json.dumps(models.row(features={"temp": None, "origin": None})).encode()).rows
    assert refusal(models.row(features={"wind": None}))[1:] == (
        "features.wind",
        "features.wind is null; expected a number of at least 0.",
    )


@pytest.mark.parametrize(
    ("features", "field", "message"),
    [
        ({"temp": "1.5"}, "features.temp", 'is "1.5"; expected a number from -60 to 60, or null'),
        ({"temp": True}, "features.temp", "is true; expected a number"),
        ({"temp": [1]}, "features.temp", "is a list of 1"),
        ({"temp": 60.001}, "features.temp", "is 60.001; expected a number from -60 to 60"),
        ({"wind": -0.001}, "features.wind", "of at least 0"),
        ({"seats": 1.5}, "features.seats", "is 1.5; expected a whole number from 0 to 900"),
        ({"seats": 900.5}, "features.seats", "is 900.5; expected a whole number"),
        ({"stops": 2.0**53}, "features.stops", "expected a whole number within ±9007199254740991, or null"),
        ({"stops": 2**53}, "features.stops", "expected a whole number within ±9007199254740991, or null"),
        ({"seats": True}, "features.seats", "is true"),
        ({"seats": 901}, "features.seats", "is 901"),
        ({"stops": 10**30}, "features.stops", "expected a whole number within ±9007199254740991, or null"),
        ({"pressure": 1e39}, "features.pressure", "is 1e+39; expected a number that a float32 can hold"),
        ({"pressure": 10**400}, "features.pressure", f"is 1{59 * '0'}…; expected"),
        ({"is_holiday": 1}, "features.is_holiday", "expected true or false, or null"),
        ({"carrier": ""}, "features.carrier", 'is ""; expected text of 1 to 256 characters'),
        ({"carrier": "x" * 257}, "features.carrier", "expected text of 1 to 256 characters"),
        ({"carrier": 3}, "features.carrier", "is 3"),
        ({"extra": 1}, "features.extra", "is not in the contract"),
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
    assert refusal(text_of(number))[:2] == (422, "features.temp")


@pytest.mark.parametrize("number", ["01", "+1", ".5", "1.", "0x10", "1_000", "'1'"])
def test_numbers_outside_of_the_json_grammar_are_refused(number: str) -> None:
    assert "is not JSON" in refusal(text_of(number))[2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"[]", "the list is empty; expected 1 to 16 rows"),
        (b"{", "is not JSON"),
        (b"null", "the body is null"),
        (b'"text"', 'the body is "text"'),
        (b"12", "the body is 12"),
        (b"[1]", "[0] is 1; expected an object"),
        (b"[[]]", "[0] is a list of 0"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"entity": "\xff"}', "the body is not UTF-8: byte 0xff at offset 12"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "is longer than 29233 bytes; expected a shorter row"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "has more values than the contract has fields"),
        (b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}", NESTED),
        (b'{"[[[": "' + b"[" * 200 + b'", "a": ' + b"[" * 101 + b"]" * 101 + b"}", "entity is missing"),
        (b'{"entity": "' + b"{" * 200, "is not JSON"),
        (b"{} {}", "is not JSON"),
        ("{}".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_body_that_is_not_a_request_is_refused_with_a_message(body: bytes, message: str) -> None:
    status, _, sentence = refusal(body)
    assert status == 422
    assert message in sentence


def test_too_many_rows_are_refused() -> None:
    assert CONTRACT.decode(json.dumps([models.row()] * 16).encode()).rows
    assert "has more than 16 rows; expected at most 16" in refusal([models.row()] * 17)[2]


@pytest.mark.parametrize(
    "moment",
    ["2013-03-01T14:00:00", "2013-03-01", "2013-03-01T14:00:00+01:00", 5, None, "0001-01-01T00:00:00+23:59", "\ud800"],
)
def test_times_are_utc(moment: Any) -> None:
    assert refusal(models.row(service_time=moment))[:2] == (422, "service_time")


def test_a_duplicate_key_is_refused_at_any_depth() -> None:
    plain = json.dumps(models.row())
    assert refusal(plain.replace('"wind"', '"wind": 1, "wind"').encode())[1] == "features.wind"
    assert refusal(plain.replace('"entity"', '"entity": "b", "entity"').encode())[1] == "entity"
    assert refusal(plain.replace('"wind"', '"\\u0077ind": 1, "wind"').encode())[1] == "features.wind"
    assert refusal(plain.replace('"wind"', '"extra\\udcff": 1, "wind"').encode())[1] == "features.extra\\udcff"


def test_escapes_in_text_are_accepted() -> None:
    row = CONTRACT.decode(json.dumps(models.row('a "quoted" \\ ü 日本', {"carrier": "日本"})).encode()).rows[0]
    assert (row.entity, row.features.carrier) == ('a "quoted" \\ ü 日本', "日本")
    assert refusal(models.row("\ud800"))[:2] == (422, "entity")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "format=1; this service reads format 3"),
        ({"task": "binary"}, "task is 'binary'; expected an object whose kind is one of binary, multi_class, regr"),
        ({"task": {"kind": "ranking"}}, "expected an object whose kind is one of binary"),
        ({"task": {"kind": "binary", "threshold": 1}}, "threshold is 1; expected a probability between 0 and 1"),
        ({"task": {"kind": "multi_class", "classes": ["a", "a"]}}, "at least 2 different names"),
        ({"task": {"kind": "multi_class", "classes": "ab"}}, "task.classes is 'ab'"),
        ({"task": {"kind": "regression"}}, "task.unit is None; expected text"),
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


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.integers(-1, 901),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0.0, 60.0, -60.0, FLOAT_MAX, 1e300, "", "UA", "日本", "x" * 256, "x" * 257, "\ud800", "\u0000", [], {}]
    ),
    st.text(max_size=4),
)


@settings(max_examples=draws(300), deadline=None)
@given(st.dictionaries(st.sampled_from([*models.FEATURES]), VALUES, max_size=3), VALUES, st.booleans())
def test_the_fast_path_and_the_diagnosis_agree(features: dict[str, Any], key: Any, is_escaped: bool) -> None:
    row = models.row(features=features, idempotency_key=key)
    body = json.dumps(row, ensure_ascii=is_escaped).encode("utf-8", "surrogatepass")
    agree(CONTRACT, body)


@pytest.mark.parametrize(("number", "value"), [("180.0", 180), ("1.8e2", 180), ("-0.0", 0)])
def test_a_whole_number_may_have_a_point(number: str, value: int) -> None:
    """JSON Schema counts them among integers, and pandas writes a column with a null so."""
    body = json.dumps([models.row(features={"seats": "S"}), models.row()]).replace('"S"', number).encode()
    seats = CONTRACT.decode(body).rows[0].features.seats
    assert (seats, type(seats)) == (value, int)


def test_up_to_eight_bad_rows_of_a_list_are_named() -> None:
    bad = [models.row(features={"wind": -1.0 - number}) for number in range(16)]
    with pytest.raises(Refused) as caught:
        CONTRACT.decode(json.dumps([models.row(), *bad[:1], models.row(), *bad[1:13]]).encode())
    answer = json.loads(caught.value.body)
    assert [item["field"] for item in answer["problems"]] == [f"[{row}].features.wind" for row in (1, *range(3, 10))]
    assert answer["problems"][0] == {"error": answer["error"], "field": answer["field"]}
    with pytest.raises(Refused) as caught:
        CONTRACT.decode(json.dumps([models.row(), bad[0]]).encode())
    assert set(json.loads(caught.value.body)) == {"error", "field"}


@pytest.mark.parametrize("literal", ["NaN", "-Infinity", '"\\ud800"', "1" * 5000])
def test_the_row_that_makes_a_list_unreadable_is_named(literal: str) -> None:
    assert refusal(b"[" + json.dumps(models.row()).encode() + b", " + text_of(literal) + b"]")[1] == "[1].features.temp"


MARKS = st.text(alphabet='[]{},"\\:n', max_size=40)


@settings(max_examples=draws(200), deadline=None)
@given(MARKS, MARKS, st.booleans())
def test_marks_within_texts_do_not_count_as_values(entity: str, carrier: str, is_duplicate: bool) -> None:
    """Every row is diagnosed: its last time is not a time."""
    row = models.row("x" + entity * 6, {"carrier": "x" + carrier * 6}, asked_at="noon")
    body = json.dumps(row)
    if is_duplicate:
        body = body.replace(
            '"asked_at": "noon"', '"asked_at": "2013-03-01T12:00:00Z", "service_time": "2013-03-01T12:00:00Z"'
        )
    status, field, _ = refusal(body.encode())
    assert (status, field) == (422, "service_time" if is_duplicate else "asked_at")


@pytest.mark.parametrize(
    "body",
    [json.dumps([models.row(features={"wind": -1})] * 16).encode(), b"[" + b"{}," * 40 + b"{}]", b"[{} {}]", b"{"],
    ids=["bad rows", "too many rows", "not a list", "not JSON"],
)
def test_a_refusal_leaves_nothing_to_the_garbage_collector(body: bytes) -> None:
    """What a cycle holds, a body of megabytes among it, stays until the collector runs, which is seldom in a worker."""

    def refuse() -> None:
        try:
            CONTRACT.decode(body)
        except Refused:
            return
        raise AssertionError("it was accepted")

    refuse()
    gc.collect()
    gc.disable()
    try:
        refuse()
        assert gc.collect() == 0
    finally:
        gc.enable()
