"""The kinds of task: what a model answers, and how that is stored and learned. One module per kind.

How answers are judged is in `evaluation.measures`.
"""

from platform_assets.product.tasks.base import Task
from platform_assets.product.tasks.binary import Binary
from platform_assets.product.tasks.multi_class import MultiClass
from platform_assets.product.tasks.regression import Regression

__all__ = ["Binary", "MultiClass", "Regression", "Task"]
