"""The kinds of task: what a model answers, and how that is scored, learned and displayed. One module per kind.

Everything in which binary, multi-class and regression tasks differ is here; the rest of the platform calls the spec's
`task` and never asks for its kind.

Every kind answers with a distribution, so every model can be tested against its own answers: `losses` are negative log
likelihoods in nats, and `entropies` are the losses the model expects.
"""

from platform_assets.compute.tasks.base import Task
from platform_assets.compute.tasks.binary import Binary
from platform_assets.compute.tasks.measures import Measure
from platform_assets.compute.tasks.multi_class import MultiClass
from platform_assets.compute.tasks.regression import Regression

__all__ = ["Binary", "Measure", "MultiClass", "Regression", "Task"]
