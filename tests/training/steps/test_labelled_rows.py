"""A step reads exactly the rows named by its digests, with the labels that were known in time."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from platform_assets.base.settings import Settings
from platform_assets.store.tables import TableStore
from platform_assets.training import labelled_rows
from tests.doubles import tiny_product as tiny

pytestmark = pytest.mark.slow


def read(settings: Settings, extras: dict[str, Any], **changes: Any) -> labelled_rows.Rows:
    arguments: dict[str, Any] = {
        "keys": extras["training_keys"],
        "features": extras["features"],
        "outcomes": extras["outcomes"],
        "known_before": None,
    }
    return labelled_rows.read(
        tiny.SPEC.fields, tiny.SPEC.task, TableStore(settings.root, "tiny"), **{**arguments, **changes}
    )


def test_rows_are_in_the_order_of_their_keys_with_their_matrices(settings: Settings, extras: dict[str, Any]) -> None:
    result = read(settings, extras)
    assert result.frame["key"].unique(maintain_order=True).to_list() == extras["training_keys"]
    numeric, categorical = result.inputs.numeric, result.inputs.categorical
    assert (numeric.shape, numeric.dtype) == ((6 * tiny.ROWS_A_KEY, 4), np.float32)
    assert categorical.shape == (6 * tiny.ROWS_A_KEY, 2)
    assert result.inputs.image is None
    assert result.frame["label"].null_count() == 6


def test_only_labelled_rows_are_trained_on(settings: Settings, extras: dict[str, Any]) -> None:
    result = read(settings, extras).labelled()
    assert len(result.labels) == len(result.inputs) == len(result.inputs.categorical) == 6 * (tiny.ROWS_A_KEY - 1)
    assert set(result.labels.tolist()) == {0.0, 1.0}


def test_a_rewritten_key_is_read_as_it_was(settings: Settings, extras: dict[str, Any]) -> None:
    before = read(settings, extras)
    key = extras["training_keys"][0]
    changed = tiny.feature_rows(key).with_columns(pl.lit(7.0).alias("plain"))
    TableStore(settings.root, "tiny").replace("features", {key: changed}, inputs={key: {}}, code="1")
    assert read(settings, extras).frame.equals(before.frame)


def test_labels_known_too_late_do_not_count(settings: Settings, extras: dict[str, Any]) -> None:
    assert len(read(settings, extras, known_before=tiny.KNOWN_AT).labelled().labels) == 0
    assert len(read(settings, extras, known_before=tiny.KNOWN_AT + timedelta(seconds=1)).labelled().labels) == 6 * 149


def test_a_key_without_a_digest_is_named(settings: Settings, extras: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no outcomes digest for 0002"):
        read(settings, extras, outcomes={key: value for key, value in extras["outcomes"].items() if key != "0002"})


def test_two_labels_of_one_entity_are_refused(settings: Settings, extras: dict[str, Any]) -> None:
    twice = pl.concat([tiny.outcome_rows("0001"), tiny.outcome_rows("0001").head(1)])
    record = TableStore(settings.root, "tiny").replace("outcomes", {"0001": twice}, inputs={"0001": {}}, code="1")[
        "0001"
    ]
    with pytest.raises(ValueError, match="'0001-0' of key 0001 has several outcome rows"):
        read(settings, extras, outcomes={**extras["outcomes"], "0001": record.content_digest})
