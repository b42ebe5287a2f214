"""Charts over keys: reproducible, and an error where there is nothing to draw."""

from __future__ import annotations

import pytest

from platform_assets.operations.views import monitoring_plots, vector
from platform_assets.product.tasks import Binary
from platform_assets.store.records.performance import Measured
from tests.doubles import documents

TASK = Binary()

KEYS = [f"2013-03-{number:02d}" for number in range(1, 29)]


def notes(number: int) -> Measured:
    """Return the notes of a performance record; the first has one key, the last no labels."""
    if number == len(KEYS) - 1:
        return documents.measured(quality=None, expected_log_loss=None, window=None)
    spread = {"low": None, "high": None} if number == 0 else {"low": 0.6, "high": 0.9}
    quality = {"auc": None if number == 5 else {"value": 0.75, **spread}, "log_loss": None}
    return documents.measured(
        quality={"auc": None if number == 5 else 0.7 + number / 1_000, "log_loss": 0.5},
        expected_log_loss=0.48,
        window={"keys": 1, "first": "a", "last": "a", "key_names": ["a"], "rows": 9, "model": None, "quality": quality},
    )


TRAIL = {key: notes(number) for number, key in enumerate(KEYS)}


def test_the_chart_of_quality_by_key_is_reproducible():
    drawn = vector.wide(monitoring_plots.quality_by_key(TRAIL, TASK, releases={KEYS[3]: "second"}))
    assert drawn == vector.wide(monitoring_plots.quality_by_key(TRAIL, TASK, releases={KEYS[3]: "second"}))
    assert drawn != vector.wide(monitoring_plots.quality_by_key(TRAIL, TASK))


def test_one_key_with_labels_is_enough_and_none_is_an_error():
    assert ">AUC<" in vector.wide(monitoring_plots.quality_by_key({KEYS[0]: notes(0)}, TASK))
    with pytest.raises(ValueError, match="none of 1 keys has labels"):
        monitoring_plots.quality_by_key({KEYS[-1]: notes(len(KEYS) - 1)}, TASK)


def test_the_time_line_takes_keys_without_an_index_and_any_action():
    drift = {key: None if number < 7 else number / 30 for number, key in enumerate(KEYS)}
    marks = {
        "limit": 0.99,
        "decisions": {KEYS[8]: "wait", KEYS[9]: "retrain", KEYS[10]: "alert_fault", KEYS[11]: "one yet to come"},
        "faults": {KEYS[10]: "weather: frozen", KEYS[11]: "weather: frozen"},
        "releases": {KEYS[0]: "1", KEYS[9]: "2"},
    }
    drawn = vector.wide(monitoring_plots.drift_timeline(drift, **marks))
    assert drawn == vector.wide(monitoring_plots.drift_timeline(drift, **marks))
    assert drawn != vector.wide(monitoring_plots.drift_timeline(drift))


def test_a_time_line_without_keys_or_with_foreign_keys_is_an_error():
    with pytest.raises(ValueError, match="there are no keys"):
        monitoring_plots.drift_timeline({})
    with pytest.raises(ValueError, match=r"keys \['2014-01-01'\] are not on the line"):
        monitoring_plots.drift_timeline({KEYS[0]: None}, faults={"2014-01-01": "x"})
