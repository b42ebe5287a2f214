"""Which answers count: repeating a question with any moment, features, digest or time changes no rows of a key."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.data import answer_rows
from platform_assets.monitoring import answers, skew
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary

TASK = Binary()
FIELDS = (
    Field(name="speed", dtype="float", description="Speed.", is_nullable=True),
    Field(name="maker", dtype="category", description="Maker.", is_nullable=True),
)
NOON = datetime(2020, 1, 5, 12, tzinfo=UTC)
ENTITIES = "abcdef"
SCHEMA = answer_rows.schema(FIELDS, TASK)


def ours() -> pl.DataFrame:
    rows = [(entity, NOON, float(index), "x") for index, entity in enumerate(ENTITIES)]
    types = {"entity": pl.String(), "asked_at": answer_rows.MOMENT, "speed": pl.Float64(), "maker": pl.String()}
    return pl.DataFrame(rows, schema=types, orient="row")


def answer(entity: str, **changes: Any) -> dict[str, Any]:
    """Return an ingested answer to our features of an entity, with changes."""
    mine = {"speed": float(ENTITIES.find(entity)), "maker": "x"}
    about = {
        "prediction_id": f"honest-{entity}",
        "digest": "d",
        "release": 1,
        "entity": entity,
        "service_time": NOON,
        "asked_at": NOON,
        "answered_at_utc": NOON,
        "latency_us": 1,
        answer_rows.LATE: False,
        "probability": 0.5,
    }
    return {**about, **mine, **changes}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA).sort(answer_rows.ORDER)


def counted_rows(rows: pl.DataFrame, **options: Any) -> pl.DataFrame:
    return answers.select(answers.in_time(rows, TASK), ours(), FIELDS, **options)


FEATURES = st.fixed_dictionaries(
    {}, optional={"speed": st.none() | st.floats(0, 9, width=32), "maker": st.sampled_from(["x", "q", "", None])}
)
EXTRA = st.fixed_dictionaries(
    {
        "entity": st.sampled_from([*ENTITIES, "g", "H"]),
        "asked_at": st.sampled_from([NOON, NOON + timedelta(seconds=1), NOON - timedelta(hours=5)]),
        "later_s": st.integers(1, 10**6),
        "digest": st.sampled_from("de"),
        "probability": st.floats(0, 1),
        answer_rows.LATE: st.booleans(),
        "changes": FEATURES,
    }
)


def extras(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        answer(
            item["entity"],
            prediction_id=f"extra-{index:03d}",
            answered_at_utc=NOON + timedelta(seconds=item["later_s"]),
            **{name: item[name] for name in ("asked_at", "digest", "probability", answer_rows.LATE)},
            **item["changes"],
        )
        for index, item in enumerate(drawn)
    ]


ORIGINAL = [answer(entity) for entity in ENTITIES]
NO_INPUTS = {"speed": None, "maker": None}
WITHOUT_INPUTS = [answer(entity, **NO_INPUTS) for entity in ENTITIES]


@cache
def counted_before(*, has_inputs: bool = True, is_compared: bool = True) -> pl.DataFrame:
    return counted_rows(frame(*(ORIGINAL if has_inputs else WITHOUT_INPUTS)), is_compared=is_compared)


@given(st.lists(EXTRA, max_size=30), st.booleans())
def test_further_answers_do_not_change_which_rows_count(drawn: list[dict[str, Any]], is_compared: bool):
    counted = counted_rows(frame(*ORIGINAL, *extras(drawn)), is_compared=is_compared)
    assert counted.equals(counted_before(is_compared=is_compared))


def test_all_rows_count_by_default():
    assert counted_rows(frame(*ORIGINAL)).height == len(ENTITIES)


@given(st.lists(EXTRA, max_size=30))
def test_without_logged_inputs_further_answers_do_not_change_which_rows_count(drawn: list[dict[str, Any]]):
    original = WITHOUT_INPUTS
    further = [{**row, **NO_INPUTS} for row in extras(drawn)]
    assert counted_rows(frame(*original, *further)).equals(counted_before(has_inputs=False))
    without_ours = answers.select(answers.in_time(frame(*original, *further), TASK), None, FIELDS)
    assert without_ours["entity"].is_unique().all()


@given(st.lists(EXTRA, max_size=30))
def test_an_entity_counts_only_if_requested_with_our_features(drawn: list[dict[str, Any]]):
    rows = counted_rows(frame(*extras(drawn)))
    assert rows.select(skew.WHO).is_unique().all()
    if any(row["speed"] is not None or row["maker"] is not None for row in extras(drawn) if not row[answer_rows.LATE]):
        assert rows["speed"].to_list() == [float(ENTITIES.find(entity)) for entity in rows["entity"]]
        assert set(rows["entity"]) <= set(ENTITIES)


@given(st.lists(EXTRA, min_size=1, max_size=10), st.integers(2, 50))
def test_the_share_does_not_depend_on_how_often_a_request_is_repeated(drawn: list[dict[str, Any]], times: int):
    original = [answer(entity) for entity in ENTITIES]
    once = skew.compare(frame(*original, *extras(drawn)), ours(), FIELDS)
    again = [{**row, "prediction_id": f"{row['prediction_id']}-{n}"} for row in extras(drawn) for n in range(times)]
    often = skew.compare(frame(*original, *again), ours(), FIELDS)
    counts = ("rows", "rows_equal", "rows_unknown", "share")
    assert often.members(counts) == once.members(counts)
    assert [(item.field, item.rows) for item in often.fields] == [(item.field, item.rows) for item in once.fields]


def test_the_first_answer_with_our_features_counts_whatever_the_bundle():
    rows = frame(
        answer("a", prediction_id="1", speed=9.0, answered_at_utc=NOON),
        answer("a", prediction_id="2", digest="e", answered_at_utc=NOON + timedelta(seconds=2)),
        answer("a", prediction_id="3", answered_at_utc=NOON + timedelta(seconds=1)),
    )
    assert counted_rows(rows)["prediction_id"].to_list() == ["3"]
    assert counted_rows(rows, is_compared=False)["prediction_id"].to_list() == ["1"]


def test_an_entity_counts_once_per_moment_of_our_features():
    later = NOON + timedelta(hours=1)
    twice = pl.concat([ours(), ours().with_columns(pl.lit(later, dtype=answer_rows.MOMENT).alias("asked_at"))])
    rows = frame(answer("a"), answer("a", prediction_id="later", asked_at=later))
    assert answers.select(rows, twice, FIELDS)["prediction_id"].to_list() == ["honest-a", "later"]


def test_answers_of_older_tables_count_as_on_time():
    rows = frame(answer("a", **{answer_rows.LATE: None}), answer("b", **{answer_rows.LATE: True}))
    assert answers.in_time(rows, TASK)["entity"].to_list() == ["a"]
    assert answers.in_time(answer_rows.align(rows.drop(answer_rows.LATE), SCHEMA), TASK).height == 2


@pytest.mark.parametrize(("digests", "order"), [("aab", ["b", "a"]), ("ab", ["a", "b"]), ("", [])])
def test_the_main_bundle_comes_last(digests: str, order: list[str]):
    rows = frame(*(answer(entity, digest=digest) for entity, digest in zip(ENTITIES, digests, strict=False)))
    assert answers.digests(rows) == order


def test_internal_columns_do_not_clash_with_field_names():
    names = ("place", "is_known", "is_logged", "is_equal", "rows")
    fields = tuple(Field(name=name, dtype="float", description="A number.") for name in names)
    mine = frame(answer("a")).drop("speed", "maker").with_columns(pl.lit(1.0).alias(name) for name in names)
    features = mine.select(*skew.WHO, *names)
    assert answers.select(mine, features, fields).equals(mine)
    assert answers.digests(mine) == ["d"]
    assert skew.compare(mine, features, fields).share == 1.0
