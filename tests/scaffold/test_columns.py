"""What a column holds is told alike from text and from typed values, whatever its file writes for null and for days."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from platform_assets.scaffold import columns

MOMENTS = st.datetimes(
    min_value=datetime.fromisoformat("1990-01-01"),
    max_value=datetime.fromisoformat("2068-12-31"),  # two digits mean 1969 to 2068
).map(lambda moment: moment.replace(microsecond=0, tzinfo=UTC))


def held(values: list[object], name: str = "a", **options: bool) -> columns.Column:
    return columns.profile_column(pl.Series(name, values), **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", None], "number"),
        (["00123", "00124", "00124", "00123"], "category"),
        (["yes", "no", "No"], "category"),
        (["yes", "no", "no"], "flag"),
        (["true", None, "false"], "flag"),
        ([True, False, None], "flag"),
        (["x", "x", "x"], "constant"),
        ([None, None], "empty"),
        (["NA", "", "?"], "empty"),
        (["a", "b", "a"], "category"),
        ([f"word {number}" * 8 for number in range(30)], "text"),
        ([f"o-{number}" for number in range(30)], "id"),
        ([str(number) for number in range(7, 40)], "id"),
        (["2024-03-01", "2024-03-02"], "moment"),
        ([date(2024, 3, 1), None], "moment"),
        ([[1], [2]], "text"),
    ],
)
def test_a_column_has_a_kind(values: list[object], kind: str) -> None:
    assert held(values).kind == kind


def test_numbers_have_range_decimals_and_nulls() -> None:
    column = held(["1.50", "-2", "NA", "", "10.25"])
    assert (column.low, column.high, column.decimals, column.nulls, column.null_words) == (-2, 10.25, 2, 2, ("NA",))
    assert not column.is_whole
    assert held(["1.23456", "2"]).decimals is None


def test_infinity_is_no_number_that_a_range_could_hold() -> None:
    column = held([1.0, float("inf"), float("nan"), 3.0])
    assert (column.kind, column.low, column.high, column.nulls) == ("number", 1, 3, 2)


@given(st.lists(MOMENTS, min_size=2, max_size=30, unique=True), st.sampled_from([*columns.FORMATS]))
def test_moments_come_back_from_every_format(moments: list[datetime], form: str) -> None:
    own = form.replace("%.f", "").replace("%#z", "+0000")
    texts = [moment.strftime(own) for moment in moments]
    column = held(texts, is_moment=True)
    assert column.kind == "moment"
    expected = [
        datetime.strptime(f"{text[: -5 if '+' in own else None]} +0000", f"{own.removesuffix('+0000')} %z")
        for text in texts
    ]
    if "/" in form and all(moment.day <= 12 for moment in moments):  # month and day could change places in all of them
        return
    assert columns.as_moments(pl.Series("a", texts), column).to_list() == expected


def test_a_day_after_the_twelfth_tells_it_from_the_month() -> None:
    assert held(["01/02/2024", "03/14/2024"]).format == "%m/%d/%Y"


def test_a_second_format_of_dates_is_told() -> None:
    column = held([*["2024-03-01"] * 10, *["03/14/2024"] * 4], is_moment=True)
    assert (column.format, column.other_format) == ("%Y-%m-%d", "%m/%d/%Y")
    assert held([*["2024-03-01"] * 10, "soon"], is_moment=True).other_format == "'soon'"


def test_digits_alone_are_moments_only_if_somebody_says_so() -> None:
    years = ["1980", "1981", "1980", "1987"]
    assert held(years).kind == "number"
    column = held(years, is_moment=True)
    assert (column.kind, column.format) == ("moment", "%Y")
    assert columns.as_moments(pl.Series("a", years), column)[3] == datetime(1987, 1, 1, tzinfo=UTC)


def test_a_zone_is_counted_and_nothing_else_is_shifted() -> None:
    column = held(["2024-03-01T01:00:00+02:00", "2024-03-02T01:00:00+02:00"])
    texts = pl.Series("a", ["2024-03-01T01:00:00+02:00"])
    assert columns.as_moments(texts, column).to_list() == [datetime(2024, 2, 29, 23, tzinfo=UTC)]
    naive = pl.Series("a", [datetime.fromisoformat("2024-03-01T01:00:00")])
    assert columns.as_moments(naive, columns.profile_column(naive))[0] == datetime(2024, 3, 1, 1, tzinfo=UTC)


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda value: round(value, 2))), min_size=2, max_size=40))
@example([0.0, -0.0])
def test_text_and_typed_numbers_give_one_range(values: list[float | None]) -> None:
    typed = columns.profile_column(pl.Series("a", values, dtype=pl.Float64))
    text = columns.profile_column(pl.Series("a", [None if value is None else str(value) for value in values]))
    assert (typed.low, typed.high, typed.nulls, typed.kind) == (text.low, text.high, text.nulls, text.kind)


@pytest.mark.parametrize("name", ["id", "order_id", "Customer ID", "customerId", "Order-Nr", "uuid", "rownames", ""])
def test_names_of_ids(name: str) -> None:
    assert columns.is_id_name(name)


@pytest.mark.parametrize("name", ["paid", "humid", "width", "grid", "income", "order"])
def test_names_that_only_end_alike(name: str) -> None:
    assert not columns.is_id_name(name)
