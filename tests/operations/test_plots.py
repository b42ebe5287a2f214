"""Charts: reproducible and small, and input that cannot be drawn. Only a person can judge whether they look good."""

import matplotlib as mpl
import numpy as np
import pytest

from platform_assets.evaluation import metrics
from platform_assets.operations.views import monitoring_plots, plots, vector
from platform_assets.product.tasks import Binary
from platform_assets.store.records.performance import Measured
from tests.doubles import documents

TASK = Binary()

HISTORY = [
    {"epoch": number, "train_loss": 0.5 / number, "holdout_loss": 0.6 / number, "wall_s": 3.0} for number in (1, 2, 3)
]
LABEL = np.arange(300) % 4 == 0
PROBABILITY = np.linspace(0, 0.9, 300)
CALIBRATION = {"challenger": metrics.calibration_table(LABEL, PROBABILITY)}


def _comparison(against: str, passed: bool) -> dict:
    numbers = {"difference": -0.004, "low": -0.009, "high": 0.001}
    return {"against": against, "passed": passed, "auc": numbers, "log_loss": numbers, "ece": numbers}


COMPARISONS = [
    _comparison("champion", True),
    _comparison("baseline constant", True),
    _comparison("baseline logistic", False),
]


def measured_at(number: int) -> Measured:
    """Return a key's numbers; the first has no interval, the last no labels."""
    if number == len(KEYS) - 1:
        return documents.measured(quality=None, expected_log_loss=None, window=None)
    spread = {"low": None, "high": None} if number == 0 else {"low": 0.6, "high": 0.9}
    quality = {"auc": None if number == 5 else {"value": 0.75, **spread}, "log_loss": None}
    window = {"keys": 1, "first": "a", "last": "a", "key_names": ["a"], "rows": 9, "model": None, "quality": quality}
    of_key = {"auc": None if number == 5 else 0.7 + number / 1_000, "log_loss": 0.5}
    return documents.measured(quality=of_key, expected_log_loss=0.48, window=window)


KEYS = [f"2013-03-{number:02d}" for number in range(1, 29)]
TRAIL = {key: measured_at(number) for number, key in enumerate(KEYS)}
DRIFT = {key: None if number < 7 else number / 30 for number, key in enumerate(KEYS)}
MARKS = {
    "limit": 0.99,
    "decisions": {KEYS[8]: "wait", KEYS[9]: "retrain", KEYS[10]: "alert_fault", KEYS[11]: "one yet to come"},
    "faults": {KEYS[10]: "weather: frozen", KEYS[11]: "weather: frozen"},
    "releases": {KEYS[0]: "1", KEYS[9]: "2"},
}

CHARTS = {
    "quality": lambda: monitoring_plots.quality_by_key(TRAIL, TASK, releases={KEYS[3]: "second"}),
    "quality of one key": lambda: monitoring_plots.quality_by_key({KEYS[0]: TRAIL[KEYS[0]]}, TASK),
    "time line": lambda: monitoring_plots.drift_timeline(DRIFT, **MARKS),
    "loss": lambda: plots.loss_curve(HISTORY),
    "loss of one epoch": lambda: plots.loss_curve([{"epoch": 1, "train_loss": 0.5}]),
    "calibration": lambda: plots.calibration_plot(CALIBRATION, TASK, {"challenger": 0.02}),
    "calibration of a constant": lambda: plots.calibration_plot(
        {"constant": metrics.calibration_table(LABEL, np.full(300, 0.25))}, TASK
    ),
    "differences": lambda: plots.difference_chart(COMPARISONS, TASK, 0.01),
    "differences without a champion": lambda: plots.difference_chart(COMPARISONS[1:], TASK, 0.01),
}


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_small_and_reproducible(draw):
    text = vector.standalone(draw())
    assert len(text) < 25_000
    assert vector.standalone(draw()) == text


def test_a_users_configuration_has_no_effect():
    text = vector.in_page(plots.loss_curve(HISTORY))
    with mpl.rc_context({"figure.facecolor": "black", "font.size": 20, "axes.grid": True}):
        assert vector.in_page(plots.loss_curve(HISTORY)) == text
        assert mpl.rcParams["font.size"] == 20


def test_each_series_has_its_colour_in_the_image():
    both = vector.in_page(plots.loss_curve(HISTORY))
    alone = vector.in_page(
        plots.loss_curve([{"epoch": row["epoch"], "train_loss": row["train_loss"]} for row in HISTORY])
    )
    assert "--chart-1" in both
    assert "--chart-2" in both
    assert "--chart-2" not in alone


def test_the_loss_of_a_blend_is_a_point_of_its_own():
    blend = {"epoch": 4, "train_loss": 0.2, "is_blend": 1.0}
    apart, joined = [*HISTORY, blend], [*HISTORY, {**blend, "is_blend": 0.0}]
    assert vector.in_page(plots.loss_curve(apart)) != vector.in_page(plots.loss_curve(joined))
