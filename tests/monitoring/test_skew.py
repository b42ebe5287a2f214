"""Served features against our own: by entity and moment, field by field."""

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from platform_assets.monitoring import skew
from platform_assets.product.spec import Field
from platform_assets.store.records.decisions import Skew
from platform_assets.store.records.performance import Differing

FIELDS = (
    Field(name="speed", dtype="float", description="Speed."),
    Field(name="is_new", dtype="bool", description="New.", is_nullable=True),
    Field(name="maker", dtype="category", description="Maker.", is_nullable=True),
)
NOON = datetime.fromisoformat("2020-01-05T12:00:00+00:00")


def frame(*rows: tuple[Any, ...]) -> pl.DataFrame:
    names = ("entity", "speed", "is_new", "maker")
    types = {"entity": pl.String, "speed": pl.Float64, "is_new": pl.Boolean, "maker": pl.String}
    result = pl.DataFrame(rows, schema={name: types[name] for name in names}, orient="row")
    return result.with_columns(pl.lit(NOON, dtype=pl.Datetime("us", "UTC")).alias("asked_at"))


OURS = frame(("a", 1.5, True, "x"), ("b", None, None, None), ("c", 0.1, False, "y"))


def test_equal_means_equal_to_the_model():
    served = frame(("a", 1.5, True, "x"), ("b", None, None, "z"), ("c", 0.1 + 1e-12, False, "y"))
    result = skew.compare(served, OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.share) == (3, 2, pytest.approx(2 / 3))
    assert result.fields == [
        Differing(
            field="maker",
            rows=1,
            share=pytest.approx(1 / 3),
            entity="b",
            asked_at=NOON.isoformat(),
            served="z",
            ours=None,
        )
    ]


@pytest.mark.parametrize("served", [("b", 0.0, None, "x"), ("b", None, False, "x"), ("a", None, True, "x")])
def test_null_equals_only_null(served):
    assert skew.compare(frame(served), OURS, FIELDS).rows_equal == 0


def test_an_entity_or_a_moment_that_we_do_not_have_is_not_equal():
    later = frame(("a", 1.5, True, "x")).with_columns(pl.col("asked_at") + timedelta(hours=5))
    rows = frame(("d", 1.5, True, "x"), ("a", 1.5, True, "x"), ("b", None, None, None))
    result = skew.compare(pl.concat([later, rows]), OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.rows_unknown, result.fields) == (2, 0, 2, [])
    assert skew.classify(rows, OURS, FIELDS).rows() == [(True, False, False), (True, True, True), (False, True, False)]


def test_an_entity_counts_once_however_often_it_is_requested():
    rows = frame(("a", 1.5, True, "x"), ("c", 0.1, False, "y"))
    result = skew.compare(pl.concat([rows, *[frame(("a", 9.0, True, "x"))] * 1_000]), OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.share) == (2, 1, 0.5)
    assert [(entry.field, entry.rows, entry.share) for entry in result.fields] == [("speed", 1, 0.5)]
    assert skew.judge(result, 0.5) == Skew(rows=2, share=0.5, limit=0.5, is_skewed=False)
    assert skew.judge(result, 0.51).is_skewed
    assert skew.judge(None, 0.99) == Skew(rows=0, share=None, limit=0.99, is_skewed=False)


def test_rows_logged_without_inputs_are_left_out_and_without_rows_there_is_no_share():
    result = skew.compare(frame(("a", None, None, None)), OURS, FIELDS)
    assert (result.rows, result.share) == (0, None)


def test_the_fields_that_differ_most_come_first():
    result = skew.compare(frame(("a", 2.5, True, "x"), ("c", 0.2, False, "q")), OURS, FIELDS)
    assert [(entry.field, entry.rows) for entry in result.fields] == [("speed", 2), ("maker", 1)]


def test_two_of_our_rows_for_one_moment_are_an_error():
    with pytest.raises(ValueError, match="hold one entity and moment twice"):
        skew.compare(OURS, pl.concat([OURS, OURS]), FIELDS)
    with pytest.raises(ValueError, match="the served rows lack maker"):
        skew.compare(OURS.drop("maker"), OURS, FIELDS)


def test_images_are_compared_by_their_grey_levels() -> None:
    fields = (Field(name="photo", dtype="image", description="", shape=(1, 2)),)
    rows = pl.DataFrame({"entity": ["a", "b"], "asked_at": [NOON, NOON], "photo": [b"\x00\x01", b"\x02\x03"]})
    result = skew.compare(rows.with_columns(photo=pl.Series([b"\x00\x01", b"\x02\xff"])), rows, fields)
    assert (result.rows, result.rows_equal) == (2, 1)
    (field,) = result.fields
    assert (field.field, field.entity) == ("photo", "b")
    assert field.served.startswith("2 bytes, sha256 ")
    assert field.served != field.ours
