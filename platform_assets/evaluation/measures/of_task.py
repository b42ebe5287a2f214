"""Find the measures of a task by its kind."""

from __future__ import annotations

from platform_assets.evaluation.measures.base import Measures
from platform_assets.evaluation.measures.binary import BinaryMeasures
from platform_assets.evaluation.measures.multi_class import MultiClassMeasures
from platform_assets.evaluation.measures.regression import RegressionMeasures
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task


def measures_of(task: Task) -> Measures:
    """Return the measures of a task."""
    match task:
        case Binary():
            return BinaryMeasures(task)
        case MultiClass():
            return MultiClassMeasures(task)
        case Regression():
            return RegressionMeasures(task)
    raise TypeError(f"{task!r} is of no kind of task that has measures; expected Binary, MultiClass or Regression.")
