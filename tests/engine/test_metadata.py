"""An asset page shows the result, the findings, then the plumbing, with numbers rounded for readers."""

import math

import dagster as dg
import pytest

from platform_assets.engine.metadata import MAX_RESULT, readable, rounded


def test_the_result_comes_first_and_plumbing_last() -> None:
    metadata = {"content_digest": "d", "run_keys": 3, "auc": 0.71, "is_memoised": True, "why": "late"}
    output = readable("AUC 0.71", metadata)
    assert list(output) == ["result", "auc", "why", "is_memoised", "content_digest", "run_keys"]
    assert output["result"] == "AUC 0.71"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.123456789, 0.1235),
        (0.0000123456, 0.00001235),
        (-12.34567, -12.35),
        (12345.678, 12345.7),
        (0.0, 0.0),
        (3214, 3214),
        (True, True),
        ("0.123456", "0.123456"),
        (None, None),
        ({"share": 1 / 3, "rows": 7}, {"share": 0.3333, "rows": 7}),
        ([1 / 3, (2 / 3,)], [0.3333, [0.6667]]),
    ],
)
def test_floats_have_four_digits_and_nothing_else_changes(value: object, expected: object) -> None:
    assert rounded(value) == expected
    assert type(rounded(value)) is type(expected)


def test_a_long_result_is_cut_at_a_word_and_digests_at_twelve_letters() -> None:
    output = readable("word " * 100, {"content_digest": "a" * 64, "bundle_sha256": "b" * 64})
    assert len(str(output["result"])) <= MAX_RESULT
    assert str(output["result"]).endswith("word …")
    assert (output["content_digest"], output["bundle_sha256"]) == ("a" * 12, "b" * 64), (
        "a release is requested by digest"
    )


def test_numbers_that_are_not_finite_stay() -> None:
    assert math.isnan(rounded(math.nan))
    assert rounded(math.inf) == math.inf


def test_values_of_dagsters_types_are_unchanged() -> None:
    value = dg.MetadataValue.json({"distance": 0.123456789})
    assert rounded(value) is value
