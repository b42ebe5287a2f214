"""Model inputs made from matrices, without a product: fields `n0`, `n1` ... and `c0`, `c1` ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.product.spec import Field
from platform_assets.training.learn import codes, learn

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.product.tasks import Task


def inputs_of(
    numeric: np.ndarray | None = None, text: np.ndarray | None = None, image: np.ndarray | None = None
) -> Inputs:
    rows = next(len(part) for part in (numeric, text, image) if part is not None)
    return Inputs(
        numeric=np.empty((rows, 0), dtype=np.float32) if numeric is None else numeric,
        categorical=np.empty((rows, 0), dtype=object) if text is None else text,
        image=image,
    )


def fields(inputs: Inputs) -> list[Field]:
    output = [Field(name=f"n{number}", dtype="float", description="") for number in range(inputs.numeric.shape[1])]
    output += [
        Field(name=f"c{number}", dtype="category", description="") for number in range(inputs.categorical.shape[1])
    ]
    if inputs.image is not None:
        height, width = inputs.image.shape[1:]
        output.append(Field(name="photo", dtype="image", description="", shape=(height, width)))
    return output


def learned(inputs: Inputs, **options: object) -> Learned:
    return learn(inputs, fields(inputs), **options)


def own_answers(network: nn.Module, learned: Learned, task: Task, inputs: Inputs) -> np.ndarray:
    """Return a network's answers, as `training.learners.network.Network` does."""
    from platform_assets.training.train import outputs, tensors

    raw_outputs = outputs(network, tensors(inputs, codes(learned, inputs.categorical)))
    return np.asarray(task.graph_answer(raw_outputs, learned.target).numpy())
