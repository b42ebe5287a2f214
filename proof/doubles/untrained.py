"""Graphs as large as those of real models, made in seconds: what their answers are worth does not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.product.learner import Alone
from platform_assets.training import determinism
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.graphs import OnnxGraphs
from platform_assets.training.learners.network import Network, learner_of

if TYPE_CHECKING:
    from platform_assets.product.inputs import Inputs
    from platform_assets.product.learned import Learned
    from platform_assets.product.learner import Learner
    from platform_assets.product.spec import Product


def graph(spec: Product, rows: Inputs, learned: Learned) -> bytes:
    """Return the ONNX file of a product's model: networks with their first weights, trees that fit coin tosses."""
    context = OnnxGraphs(task=spec.task, training=spec.training, learned=learned, progress=Alone())
    determinism.fix(1)
    return _graph(learner_of(spec), rows, context)


def _graph(learner: Learner, rows: Inputs, context: OnnxGraphs) -> bytes:
    match learner:
        case Blend():
            return context.of_blend([_graph(part, rows, context) for part in learner.learners], learner.shares)
        case Network():
            return context.of_network(learner.model(context.learned, context.training).eval())
        case LightGbm():  # with few rows per leaf, so that every tree has all its leaves
            full = replace(learner, settings={**learner.settings, "min_data_in_leaf": 2})
            labels = np.random.default_rng(1).integers(0, 2, len(rows)).astype(np.float32)
            return full.to_onnx(full.fit(rows, labels, context), context)
    raise TypeError(type(learner))
