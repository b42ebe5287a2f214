"""A first product is guessed from what the columns hold; what cannot become one is refused in a sentence."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.naming import snake_case
from platform_assets.scaffold import columns
from platform_assets.scaffold.guess import NoGuess, ends, guess
from tests.scaffold.orders import orders


def test_orders_become_a_product() -> None:
    result = guess(orders(), label="returned", time="ordered_at")
    assert result.entity is not None and result.entity.name == "order_id"
    assert (result.task, result.positive, result.first) == ("binary", None, "2024-01-01")
    assert result.label_delay == 8  # returned_at says so
    fields = {one.name: (one.dtype, one.low, one.high, one.is_nullable) for one in result.fields}
    assert fields == {
        "price": ("float", 0, 45, False),
        "month": ("int", 1, 12, False),
        "country": ("category", None, None, True),
    }
    assert result.left_out == {
        "ids": ("order_id", "customer_id"),
        "the same in all rows": ("shop",),
        "text, or with too many values": ("remark",),
        "known only after the label, by the name": ("return_reason", "label_copy"),
        "later than the row": ("returned_at",),
        "known only after the label, because it alone tells it": ("code",),
    }
    past = result.past
    assert past is not None and past.by is not None and past.by.name == "customer_id"
    assert past.days == 7


def test_without_a_time_there_is_no_past() -> None:
    result = guess(orders().drop("ordered_at"), label="returned", time=None)
    assert (result.time, result.past, result.label_delay, result.keys) == (None, None, 0, 30)


@pytest.mark.parametrize(
    ("values", "task", "positive", "classes"),
    [
        (["0", "1"], "binary", None, ()),
        (["no", "yes"], "binary", "yes", ()),
        (["a", "b", "a", "a"], "binary", "b", ()),
        (["1", "2"], "binary", "1", ()),
        (["a", "b", "c"], "multi_class", None, ("a", "b", "c")),
        (["0", "1", "2"], "multi_class", None, ("0", "1", "2")),
        (["0.5", "1", "2"], "regression", None, ()),
        ([str(number) for number in range(30)], "regression", None, ()),
    ],
)
def test_the_label_tells_the_task(values: list[str], task: str, positive: str | None, classes: tuple[str, ...]) -> None:
    rows = pl.DataFrame(
        {"a": [str(row * 7 % 11) for row in range(60)], "y": [values[row % len(values)] for row in range(60)]}
    )
    result = guess(rows, label="y", time=None)
    assert (result.task, result.positive, result.classes) == (task, positive, classes)


def test_numbers_and_texts_of_parquet_are_guessed_alike() -> None:
    typed = orders().with_columns(
        pl.col("price").cast(pl.Float64),
        pl.col("month", "customer_id").cast(pl.Int64),
        pl.col("returned").cast(pl.Int8),
        pl.col("ordered_at", "returned_at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"),
    )
    first, second = (guess(rows, label="returned", time="ordered_at") for rows in (orders(), typed))
    assert [one.name for one in first.fields] == [one.name for one in second.fields]
    assert (first.task, first.positive, first.label_delay, first.left_out) == (
        second.task,
        second.positive,
        second.label_delay,
        second.left_out,
    )


@pytest.mark.parametrize(
    ("change", "label", "time", "sentence"),
    [
        (
            pl.lit("1").alias("returned"),
            "returned",
            "ordered_at",
            r"the label 'returned' is '1' in all rows that have one",
        ),
        (pl.lit(None, pl.String).alias("returned"), "returned", "ordered_at", r"is null in all rows"),
        ("price", "retruned", "ordered_at", r"--label is 'retruned', .* did you mean 'returned'\?"),
        ("price", "returned", "at", r"--time is 'at', and the table has no such column"),
        ("price", "returned", "country", r"--time is 'country', which holds no moments, such as 'DE'"),
        ("price", "remark", "ordered_at", r"the label 'remark' is text with 600 different values"),
        (
            pl.when(pl.int_range(pl.len()) % 4 == 0)
            .then(pl.lit("03/14/2024"))
            .otherwise(pl.lit("2024-03-14"))
            .alias("ordered_at"),
            "returned",
            "ordered_at",
            r"--time is 'ordered_at', which has two formats of dates: %Y-%m-%d and %m/%d/%Y",
        ),
        (pl.lit("2024-03-14").alias("ordered_at"), "returned", "ordered_at", r"the labelled rows are of 1 day"),
    ],
)
def test_what_no_product_can_be_made_of_is_refused(change: pl.Expr, label: str, time: str, sentence: str) -> None:
    with pytest.raises(NoGuess, match=sentence):
        guess(orders().with_columns(change), label=label, time=time)


def test_three_rows_are_refused() -> None:
    with pytest.raises(NoGuess, match=r"^the table has 3 rows; expected at least 20"):
        guess(orders().head(3), label="returned", time="ordered_at")


def test_ids_alone_are_no_fields() -> None:
    with pytest.raises(NoGuess, match=r"no column of the table can be a field: order_id, customer_id: ids"):
        guess(orders().select("order_id", "customer_id", "returned"), label="returned", time=None)


@given(st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)), min_size=2, max_size=20, unique=True))
def test_a_range_holds_what_was_found_and_little_more(values: list[float]) -> None:
    low, high = ends(columns.profile_column(pl.Series("a", values)))
    assert low <= min(values) and max(values) <= high
    span = max(values) - min(values)
    assert high - low <= max(4 * span, 2)


@given(st.text(max_size=80))
def test_any_name_becomes_one_of_a_field(name: str) -> None:
    from platform_assets.product.fields import Field

    assert Field(name=snake_case(name), dtype="float", description="").name == snake_case(name)
    assert snake_case(snake_case(name)) == snake_case(name)
