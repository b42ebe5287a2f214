"""Say what a kind of task is: what a model answers, how that is judged, learned and shown. One module a kind.

Belongs here: everything in which a yes-or-no question, a choice among classes and a number differ. Nothing else of the
platform asks which kind it has: it asks the spec's `task`. Does not belong here: products, storage, Dagster.

Every kind answers with a distribution, so that every model can be held against its own promise: `losses` are negative
log likelihoods in nats, and `entropies` what the model expects of them.
"""

from platform_assets.compute.tasks.base import Task
from platform_assets.compute.tasks.binary import Binary
from platform_assets.compute.tasks.measures import Measure
from platform_assets.compute.tasks.multi_class import MultiClass
from platform_assets.compute.tasks.regression import Regression

__all__ = ["Binary", "Measure", "MultiClass", "Regression", "Task"]
