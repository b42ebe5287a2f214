"""Answers joined with outcomes: which rows count, the numbers of a window, and undefined numbers."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import answers as answers_of
from platform_assets.monitoring import measured
from platform_assets.product.tasks import Binary, probabilities
from platform_assets.store.records.performance import Interval

TASK = Binary()
MEASURES = measures_of(TASK)

COLUMNS = {"prediction_id": pl.String, "entity": pl.String, "asked_at": pl.Int64, "digest": pl.String}


def answers(*rows: tuple[str, str, float], site: str | None = "north") -> pl.DataFrame:
    """Return predictions of (entity, digest, probability), requested one after the other."""
    records = [
        (f"p{index}", entity, index, digest, probability, site)
        for index, (entity, digest, probability) in enumerate(rows)
    ]
    return pl.DataFrame(records, schema={**COLUMNS, "probability": pl.Float64, "site": pl.String}, orient="row")


def outcomes(**labels: int | None) -> pl.DataFrame:
    return pl.DataFrame(
        {"entity": list(labels), "label": list(labels.values())}, schema={"entity": pl.String, "label": pl.Int8}
    )


def joined(labels: list[int | None], probabilities: list[float], digests: str) -> pl.DataFrame:
    """Return joined rows, one per letter of `digests`."""
    rows = [
        (f"e{index}", digest, probability)
        for index, (digest, probability) in enumerate(zip(digests, probabilities, strict=True))
    ]
    delivered = {f"e{index}": label for index, label in enumerate(labels)}
    return answers_of.join(answers(*rows), outcomes(**delivered), None, ["site"], TASK)


def test_each_answer_gets_the_outcome_of_its_entity():
    predictions = answers(("a", "d", 0.1), ("b", "d", 0.2), ("a", "d", 0.3), ("c", "d", 0.4))
    rows = answers_of.join(predictions, outcomes(a=1, b=None, x=0), None, ["site"], TASK)
    assert rows.columns == [*answers_of.columns(TASK), "site"]
    assert rows["label"].to_list() == [1, None, 1, None]
    assert rows["probability"].to_list() == [0.1, 0.2, 0.3, 0.4]
    assert answers_of.join(predictions, None, None, [], TASK)["label"].to_list() == [None] * 4
    with pytest.raises(ValueError, match="entity 'a' has two outcomes in one key"):
        answers_of.join(predictions, pl.concat([outcomes(a=1), outcomes(a=1)]), None, [], TASK)


def test_slices_that_were_not_logged_come_from_our_features():
    ours = pl.DataFrame({"entity": ["a", "b"], "asked_at": [0, 9], "site": ["south", "south"]})
    predictions = answers(("a", "d", 0.1), ("b", "d", 0.2), site=None)
    assert answers_of.join(predictions, None, ours, ["site"], TASK)["site"].to_list() == ["south", None]
    assert answers_of.join(answers(("a", "d", 0.1)), None, ours, ["site"], TASK)["site"].to_list() == ["north"]


@pytest.mark.parametrize(("digests", "main"), [("aab", "a"), ("abb", "b"), ("ab", "b"), ("baab", "b"), ("a", "a")])
def test_the_main_bundle_has_the_most_answers_or_among_equals_the_last(digests: str, main: str):
    rows = joined([1] * len(digests), [0.5] * len(digests), digests)
    assert answers_of.main_digest(rows) == main
    assert set(answers_of.main_rows(rows)["digest"]) == {main}


def test_without_answers_or_labels_there_are_no_numbers():
    for rows in (joined([], [], ""), joined([None, None], [0.2, 0.3], "aa")):
        result = measured.measure(rows, MEASURES)
        assert [getattr(result, name) for name in ("quality", "decided", "expected_log_loss", "excess_log_loss")] == [
            None
        ] * 4
        assert (result.rows, result.labelled, result.labels) == (rows.height, 0, {})
        assert measured.window({"k": rows}, "a", MEASURES, confidence=0.95) is None
    assert answers_of.main_digest(joined([], [], "")) is None


def test_a_key_is_measured_on_its_main_rows_and_counts_all_rows():
    labels, given_, digests = [1, 0, 1, 0, 1], [0.9, 0.2, 0.6, 0.4, 0.1], "aaaab"
    result = measured.measure(joined(labels, given_, digests), MEASURES)
    assert (result.rows, result.labelled, result.labels, result.digest) == (5, 5, {"positives": 3}, "a")
    assert result.quality == MEASURES.quality(labels[:4], given_[:4])
    assert result.decided["accuracy"] == 1.0
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in given_[:4]) / 4
    assert result.expected_log_loss == pytest.approx(entropy)
    assert result.excess_log_loss == pytest.approx(probabilities.log_losses(labels[:4], given_[:4]).mean() - entropy)
    assert [(model["digest"], model["rows"], model["auc"]) for model in result.models] == [
        ("a", 4, 1.0),
        ("b", 1, None),
    ]


def test_a_window_of_one_key_has_values_and_no_interval():
    result = measured.window({"k": joined([1, 0], [0.9, 0.2], "aa")}, "a", MEASURES, confidence=0.95)
    assert result is not None
    assert result.quality["auc"] == Interval(value=1.0, low=None, high=None)
    assert result.quality["accuracy"].value == 1.0
    assert (result.model.keys, result.model.p_value, result.model.tests) == (1, None, {})


ROW = st.tuples(st.sampled_from([0, 1, None]), st.integers(1, 9), st.sampled_from("ab"))


@given(st.lists(st.lists(ROW, max_size=12), min_size=2, max_size=4))
def test_a_window_is_the_estimate_over_the_main_rows_of_its_keys(keys: list[list[tuple[Any, ...]]]):
    by_key = {
        f"k{index}": joined([row[0] for row in rows], [row[1] / 10 for row in rows], "".join(row[2] for row in rows))
        for index, rows in enumerate(keys)
    }
    result = measured.window(by_key, "a", MEASURES, confidence=0.9)
    mains = {key: main for key, rows in by_key.items() if (main := answers_of.main_rows(rows)).height}
    if not mains:
        assert result is None
        return
    assert result is not None
    rows, names = answers_of.stacked(mains)
    assert (result.keys, result.rows, result.first) == (len(mains), rows.height, min(mains))
    assert result.quality["log_loss"].value == pytest.approx(
        probabilities.log_losses(rows["label"], rows["probability"]).mean()
    )
    if len(mains) > 1:
        estimate = MEASURES.estimates(rows["label"], rows["probability"], names.to_numpy(), confidence=0.9)["log_loss"]
        assert result.quality["log_loss"] == Interval(value=estimate.value, low=estimate.low, high=estimate.high)
    tested = measured.assess_bundle(by_key, "a", MEASURES, confidence=0.9)
    assert result.model == tested
    if tested is not None:
        assert tested.excess == pytest.approx(tested.log_loss - tested.expected_log_loss, abs=1e-12)
        assert (tested.tests == {}) is (tested.keys < 2)
        if tested.tests:
            loss = tested.tests["log_loss"]
            assert (tested.p_value is None) is (loss.low == loss.high)
    assert measured.assess_bundle(by_key, None, MEASURES) is None


def test_slices_and_calibration_are_those_of_the_rows():
    rows = joined([1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4], "aaaa")
    (north,) = measured.by_slice(rows, ["site"], MEASURES)
    assert (north["slice"], north["value"], north["rows"], north["auc"]) == ("site", "north", 4, 1.0)
    assert measured.by_slice(rows, [], MEASURES) == measured.by_slice(rows.clear(), ["site"], MEASURES) == []
    assert sum(item["rows"] for item in measured.calibration(rows, MEASURES)) == 4


def test_answers_of_another_kind_are_left_out():
    predictions = answers(("a", "d", 0.1), ("b", "d", 0.2)).with_columns(
        probability=pl.Series([None, 0.2], dtype=pl.Float64)
    )
    assert answers_of.join(predictions, outcomes(a=1, b=0), None, [], TASK)["entity"].to_list() == ["b"]
