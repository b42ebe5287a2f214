"""Lines of the log become rows, one per id, in any order, pieces and repetitions."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from platform_assets.base.keys import BatchGrain
from platform_assets.data import answer_rows
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary

FIELDS = (
    Field(name="speed", dtype="float", description="Speed."),
    Field(name="seats", dtype="int", description="Seats.", is_nullable=True),
    Field(name="is_new", dtype="bool", description="New."),
    Field(name="maker", dtype="category", description="Maker.", is_nullable=True),
)
NOON = datetime(2020, 1, 5, 12, tzinfo=UTC)


def record(number: int, *, repeat: int = 0, **changes: Any) -> bytes:
    members = {
        "prediction_id": f"p{number}",
        "digest": "d",
        "release": None,
        "entity": f"e{number % 7}",
        "service_time": NOON.isoformat(),
        "asked_at": (NOON - timedelta(minutes=number % 3)).isoformat(),
        "idempotency_key": None,
        "probability": 0.25,
        "answered_at_utc": (NOON + timedelta(seconds=repeat)).isoformat(),
        "latency_us": 500 + repeat,
        "features": {"speed": 0.1 + number, "seats": None, "is_new": True, "maker": "x"},
    }
    return json.dumps({**members, **changes}).encode() + b"\n"


def rows(data: bytes) -> pl.DataFrame:
    return answer_rows.parse(data, FIELDS, Binary(), file="f", offset=0).rows


NOTHING = pl.DataFrame(schema=answer_rows.schema(FIELDS, Binary()))


def test_a_record_keeps_its_types_and_values():
    result = rows(record(3))
    assert dict(result.schema) == answer_rows.schema(FIELDS, Binary())
    assert result.row(0, named=True) | {"service_time": None} == {
        "prediction_id": "p3",
        "digest": "d",
        "release": None,
        "entity": "e3",
        "service_time": None,
        "asked_at": NOON,
        "probability": 0.25,
        "answered_at_utc": NOON,
        "latency_us": 500,
        answer_rows.LATE: None,
        "speed": 3.1,
        "seats": None,
        "is_new": True,
        "maker": "x",
    }


def test_a_record_that_names_its_caller_and_request_gives_the_same_row():
    """The log says who asked; the table of answers does not."""
    named = record(3, caller="app", request_id="r1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    parsed = answer_rows.parse(named, FIELDS, Binary(), file="f", offset=0)
    assert_frame_equal(parsed.rows, rows(record(3)))
    assert parsed.left_out == ()


def test_of_two_answers_with_one_id_the_one_before_closing_is_kept_in_any_order():
    late = rows(record(1)).with_columns(pl.lit(True).alias(answer_rows.LATE))
    in_time = rows(record(1, repeat=1)).with_columns(pl.lit(False).alias(answer_rows.LATE))
    for first, second in ((late, in_time), (in_time, late)):
        assert answer_rows.merge(answer_rows.merge(NOTHING, first), second).equals(in_time)


def test_times_of_any_zone_are_the_same_moment():
    assert rows(record(0, service_time="2020-01-05T07:00:00-05:00"))["service_time"][0] == NOON


def test_removed_fields_are_ignored_and_new_ones_are_null():
    result = answer_rows.parse(record(0, features={"speed": 1, "gone": 2}), FIELDS, Binary(), file="f", offset=0)
    assert result.rows.select("speed", "maker").row(0) == (1.0, None)
    assert result.left_out == ()


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[1]\n", b'{"prediction_id": \n', b"\x80\n", record(1)[:40] + b"\n", b"[" * 5_000 + b"\n"],
)
def test_a_line_that_is_not_a_prediction_is_listed_with_its_offset(line):
    result = answer_rows.parse(record(0) + line + record(2), FIELDS, Binary(), file="7-1.jsonl", offset=100)
    assert result.rows["prediction_id"].to_list() == ["p0", "p2"]
    (left_out,) = result.left_out
    assert (left_out.file, left_out.offset) == ("7-1.jsonl", 100 + len(record(0)))
    assert left_out.reason.startswith("not a prediction: ")
    assert result.locations == (("7-1.jsonl", 100), ("7-1.jsonl", 100 + len(record(0)) + len(line)))


def test_only_complete_lines_are_read():
    assert answer_rows.whole_lines(b"") == answer_rows.whole_lines(b"abc") == 0
    assert answer_rows.whole_lines(b"a\nbc") == 2
    assert rows(record(0) + record(1)[:-1])["prediction_id"].to_list() == ["p0"]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
)
def test_any_order_any_pieces_and_any_repetition_give_the_same_rows(given_lines, random, pieces):
    lines = [record(number, repeat=repeat) for number, repeat in given_lines]
    at_once = answer_rows.merge(NOTHING, rows(b"".join(lines)))
    again = lines + random.sample(lines, len(lines) // 2)
    random.shuffle(again)
    merged = NOTHING
    for piece in range(pieces):
        merged = answer_rows.merge(merged, rows(b"".join(again[piece::pieces])))
    assert_frame_equal(merged, at_once)
    assert merged["prediction_id"].is_unique().all()
    assert set(merged["prediction_id"]) == {f"p{number}" for number, _ in given_lines}
    first = {f"p{number}": 500 + min(r for n, r in given_lines if n == number) for number, _ in given_lines}
    assert dict(merged.select("prediction_id", "latency_us").iter_rows()) == first
    assert merged.equals(merged.sort(answer_rows.ORDER))


def test_rows_of_an_older_product_file_are_aligned():
    older = pl.DataFrame({"prediction_id": ["p"], "speed": [1], "gone": [2]})
    assert answer_rows.align(older, {"speed": pl.Float64(), "maker": pl.String()}).rows() == [(1.0, None)]


def test_a_batch_is_current_until_its_last_row_has_arrived():
    grain = BatchGrain(count=4)
    arrivals = {"0002": NOON + timedelta(hours=2), "0001": NOON, "0003": NOON + timedelta(hours=1)}
    hours = (-1, 0, 1, 2, 3)
    result = answer_rows.keys_by_arrival(grain, [NOON + timedelta(hours=hour) for hour in hours], arrivals)
    assert result == ["0001", "0001", "0002", "0002", "0004"]
    arrivals["0004"] = NOON + timedelta(hours=4)
    assert answer_rows.keys_by_arrival(grain, [NOON + timedelta(hours=5)], arrivals) == [None]
    assert answer_rows.keys_by_arrival(grain, [NOON], {}) == ["0001"]


STRANGE = [
    {"service_time": "0001-01-01T00:00:00+01:00"},
    {"service_time": "0001-01-01T00:00:00Z"},
    {"asked_at": "9999-12-31T23:59:59-01:00"},
    {"answered_at_utc": "1600-01-01T00:00:00Z"},
    {"latency_us": 10**30},
    {"latency_us": 2**63},
    {"release": -(2**63) - 1},
    {"entity": "\ud800"},
    {"features": {"speed": 1.0, "seats": 2**64, "is_new": True, "maker": "x"}},
]


@pytest.mark.parametrize("changes", STRANGE, ids=lambda changes: next(iter(changes)))
def test_a_value_that_no_column_can_hold_is_listed_and_the_rest_is_read(changes):
    result = answer_rows.parse(record(0) + record(1, **changes) + record(2), FIELDS, Binary(), file="f", offset=0)
    assert {"p0", "p2"} <= set(result.rows["prediction_id"])
    assert [line.offset for line in result.left_out] == [len(record(0))]
    assert [index for _, index in result.locations] == [
        index
        for index, name in ((0, "p0"), (len(record(0)), "p1"), (len(record(0) + record(1, **changes)), "p2"))
        if name in result.rows["prediction_id"]
    ]


def test_an_unexpected_error_is_isolated_to_its_line(monkeypatch: pytest.MonkeyPatch):
    """For a cause nobody anticipated, all other lines are still read."""
    real = answer_rows._frame

    def refusing(records, fields, task):
        if any(record.entity == "e3" for record in records):
            raise OverflowError("strange")
        return real(records, fields, task)

    monkeypatch.setattr(answer_rows, "_frame", refusing)
    result = answer_rows.parse(b"".join(record(number) for number in range(14)), FIELDS, Binary(), file="f", offset=0)
    assert [line.reason for line in result.left_out] == [
        f"prediction p{bad} does not fit a row: strange" for bad in (3, 10)
    ]
    assert result.rows["prediction_id"].to_list() == [f"p{n}" for n in range(14) if n % 7 != 3]
    assert len(result.locations) == result.rows.height
