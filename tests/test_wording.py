"""Counts, nouns and ranges of keys in sentences."""

import pytest

from platform_assets.base.wording import NOUNS, counted, plural, span, span_in_short


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("key", "keys"),
        ("landed key", "landed keys"),
        ("day", "days"),
        ("try", "tries"),
        ("delivery", "deliveries"),
        ("batch", "batches"),
        ("process", "processes"),
        ("labelled row", "labelled rows"),
    ],
)
def test_a_noun_has_its_plural(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_one_is_singular_and_thousands_are_separated() -> None:
    assert [counted(count, "more key") for count in (0, 1, 2, 1_200)] == [
        "0 more keys",
        "1 more key",
        "2 more keys",
        "1,200 more keys",
    ]
    assert [counted(2, noun) for noun in NOUNS.values()] == ["2 days", "2 hours", "2 batches"]


def test_keys_are_named_by_their_ends_and_one_key_by_itself() -> None:
    assert (span(["a", "b", "c"]), span(["a"]), span(("a", "a"))) == ("a to c", "a", "a")


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2013-03-02", "2013-03-02", "2013-03-02"),
        ("2013-03-02", "2013-03-09", "2013-03-02…09"),
        ("2013-03-29", "2013-04-02", "2013-03-29…04-02"),
        ("2013-12-31", "2014-01-02", "2013-12-31…2014-01-02"),
        ("2013-01-01T06", "2013-01-01T11", "2013-01-01T06…11"),
        ("2013-01-01T06", "2013-01-02T05", "2013-01-01T06…02T05"),
        ("0009", "0011", "0009…0011"),
    ],
)
def test_a_range_in_short_says_what_its_ends_do_not_share(first: str, last: str, expected: str) -> None:
    assert span_in_short(first, last) == expected
