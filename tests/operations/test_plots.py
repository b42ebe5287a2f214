"""Charts: reproducible and small, and input that cannot be drawn. Only a person can judge whether they look good."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from platform_assets.evaluation import metrics
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.views import plots, vector
from platform_assets.product.tasks import Binary

TASK = Binary()
MEASURES = measures_of(TASK)
AUC = MEASURES.headline

HISTORY = [
    {"epoch": number, "train_loss": 0.5 / number, "holdout_loss": 0.6 / number, "wall_s": 3.0} for number in (1, 2, 3)
]
LABEL = np.arange(300) % 4 == 0
PROBABILITY = np.linspace(0, 0.9, 300)
CALIBRATION = {"challenger": metrics.calibration_table(LABEL, PROBABILITY)}


def _slice(column: str, value: str, rows: int, auc: float | None) -> dict:
    return {"slice": column, "value": value, "rows": rows, "auc": auc}


SLICES = {
    "challenger": [
        _slice("origin", "EWR", 900, 0.76),
        _slice("origin", "JFK", 30, None),
        _slice("hour", "7", 500, 0.71),
    ],
    "champion": [_slice("origin", "EWR", 900, 0.75), _slice("origin", "JFK", 30, 0.6)],
}


def _comparison(against: str, passed: bool) -> dict:
    numbers = {"difference": -0.004, "low": -0.009, "high": 0.001}
    return {"against": against, "passed": passed, "auc": numbers, "log_loss": numbers, "ece": numbers}


COMPARISONS = [
    _comparison("champion", True),
    _comparison("baseline constant", True),
    _comparison("baseline logistic", False),
]

CHARTS = {
    "loss": lambda: plots.loss_curve(HISTORY),
    "loss of one epoch": lambda: plots.loss_curve([{"epoch": 1, "train_loss": 0.5}]),
    "calibration": lambda: plots.calibration_plot(CALIBRATION, TASK, {"challenger": 0.02}),
    "calibration of a constant": lambda: plots.calibration_plot(
        {"constant": metrics.calibration_table(LABEL, np.full(300, 0.25))}, TASK
    ),
    "slices": lambda: plots.slice_chart(SLICES, AUC, overall=0.75),
    "differences": lambda: plots.difference_chart(COMPARISONS, TASK, 0.01),
    "differences without a champion": lambda: plots.difference_chart(COMPARISONS[1:], TASK, 0.01),
}


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_small_and_reproducible(draw):
    text = vector.standalone(draw())
    assert len(text) < 25_000
    assert vector.standalone(draw()) == text


def test_a_users_configuration_has_no_effect():
    text = vector.wide(plots.loss_curve(HISTORY))
    with mpl.rc_context({"figure.facecolor": "black", "font.size": 20, "axes.grid": True}):
        assert vector.wide(plots.loss_curve(HISTORY)) == text
        assert mpl.rcParams["font.size"] == 20


def test_each_series_has_its_colour_in_the_image():
    both = vector.wide(plots.loss_curve(HISTORY))
    alone = vector.wide(plots.loss_curve([{"epoch": row["epoch"], "train_loss": row["train_loss"]} for row in HISTORY]))
    assert "--chart-1" in both
    assert "--chart-2" in both
    assert "--chart-2" not in alone


def test_the_loss_of_a_blend_is_a_point_of_its_own():
    blend = {"epoch": 4, "train_loss": 0.2, "is_blend": 1.0}
    apart, joined = [*HISTORY, blend], [*HISTORY, {**blend, "is_blend": 0.0}]
    assert vector.wide(plots.loss_curve(apart)) != vector.wide(plots.loss_curve(joined))


def test_the_largest_slices_are_drawn():
    table = [_slice("carrier", f"{number}", 1000 - number, 0.7) for number in range(60)]
    largest = vector.wide(plots.slice_chart({"challenger": table[: plots.MAX_SLICES]}, AUC))
    assert vector.wide(plots.slice_chart({"challenger": table}, AUC)) == largest


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.loss_curve([]), "the history is empty"),
        (lambda: plots.loss_curve([{"epoch": 1, "wall_s": 3.0}]), r"\['epoch', 'wall_s'\]; expected at least one"),
        (lambda: plots.calibration_plot({}, TASK), "expected at least one bin"),
        (lambda: plots.calibration_plot({"challenger": []}, TASK), "expected at least one bin"),
        (lambda: plots.slice_chart({}, AUC), "no slice has a value of 'auc'"),
        (lambda: plots.slice_chart({"challenger": [_slice("origin", "EWR", 3, None)]}, AUC), "no slice has a value"),
        (lambda: plots.difference_chart([], TASK, 0.01), "no comparisons"),
    ],
)
def test_nothing_to_draw_is_an_error(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
