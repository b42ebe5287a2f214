"""What a search may vary is declared by name; wrong declarations are refused, best values at an edge are named."""

from dataclasses import replace
from typing import Any

import pytest

from platform_assets.product.spec import Choice, Range, Setting
from platform_assets.training.changes import check_search, value_of, with_values
from tests.doubles import tiny_product as tiny

RATE = Range(name="learning_rate", low=1e-4, high=1e-2, is_log=True)
LEAVES = Range(name="learner.settings.num_leaves", low=1, high=101)
WIDTHS = Choice(name="settings.widths", values=((8,), (16, 16)))
SIZES = Choice(name="batch_size", values=(32, 64, 128))


@pytest.mark.parametrize(
    ("setting", "value", "edge"),
    [
        (RATE, 1e-3, None),
        (RATE, 1.2e-4, "learning_rate is 0.00012, at the lower end of its range (0.0001); move that end"),
        (RATE, 1e-2, "learning_rate is 0.01, at the upper end of its range (0.01); move that end"),
        (LEAVES, 7, None),
        (LEAVES, 6, "learner.settings.num_leaves is 6, at the lower end of its range (1)"),
        (WIDTHS, (8,), None),
        (SIZES, 64, None),
        (SIZES, 128, "batch_size is 128, the largest of its values; add one beyond it"),
    ],
)
def test_a_best_value_at_an_edge_is_named(setting: Setting, value: Any, edge: str | None) -> None:
    assert setting.has(value)
    sentence = setting.edge(value)
    assert sentence is None if edge is None else (sentence or "").startswith(edge)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"low": 2, "high": 2}, "Range 'epochs' is 2 to 2; expected"),
        ({"low": 0, "high": 2, "is_log": True}, "is_log=True and begins at 0; expected more than 0"),
        ({"low": "0", "high": 2}, "Range.low is '0'; expected a whole number or a number"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Range(name="epochs", **members)


def test_a_choice_needs_two_values_and_a_name_is_searched_once() -> None:
    with pytest.raises(ValueError, match="expected two or more different ones"):
        Choice(name="epochs", values=(3, 3))
    with pytest.raises(ValueError, match=r"search are .*no name twice"):
        replace(tiny.SPEC, search=(RATE, RATE))
    with pytest.raises(ValueError, match=r"tiny: search is .*expected a tuple of"):
        replace(tiny.SPEC, search=RATE)


def test_whole_ends_are_for_whole_numbers() -> None:
    assert LEAVES.has(3)
    assert not LEAVES.has(3.5)
    assert not RATE.has(1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Range(name="epoch", low=1, high=2), "search tries epoch=1: search names 'epoch', and Training has no 'epoch'"),
        (Range(name="learner.rounds", low=1, high=2), "Network has no 'rounds'"),
        (Range(name="epochs", low=0, high=2), "search tries epochs=0: Training.epochs is 0; expected more than 0"),
    ],
)
def test_a_search_for_what_the_product_refuses_is_named(setting: Setting, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_search(replace(tiny.SPEC, search=(setting,)))


def test_values_are_read_where_they_are_written() -> None:
    values = {"epochs": 9, "settings.widths": (4,), "settings.new": 1.5}
    spec = with_values(tiny.SPEC, values)
    assert {name: value_of(spec, name) for name in values} == values
    assert value_of(tiny.SPEC, "settings.new") is None
