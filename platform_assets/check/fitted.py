"""Fit a product's learner on a few rows, export it, and compare both: a learner's mistakes, before anything runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import polars as pl

from platform_assets.base.wording import counted
from platform_assets.check.messages import Problem, call, fix_in, wrong_type
from platform_assets.product.inputs import Inputs
from platform_assets.product.learner import Alone, TrainingProblem
from platform_assets.product.spec import Product
from platform_assets.training import export, foreign_onnx
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.export import ParityFailure
from platform_assets.training.labelled_rows import Rows
from platform_assets.training.learners.network import learner_of
from platform_assets.training.matrix import inputs_of
from platform_assets.training.onnx_maker import Exporting

Result = TypeVar("Result")
EPOCHS = 2
"""Epochs of a network: enough for a loss that is not finite, a module that cannot be exported, or other weights."""


def check_learner(spec: Product, built: pl.DataFrame, labelled: pl.DataFrame) -> str:
    """Fit the learner twice on labelled rows, export it, and prove parity on them.

    Args:
        built: rows of `features`.
        labelled: rows of `label`.

    Raises:
        Problem: it cannot be fitted or exported, its results are not of the type or shape that they must have, two fits
            differ, it changes its rows, or model and graph differ.
    """
    frame = built.join(
        labelled.drop_nulls("label").select("key", "entity", "label"), on=["key", "entity"], maintain_order="left"
    )
    rows = Rows(frame=frame, inputs=inputs_of(frame, spec.fields), task=spec.task)
    keys, kind, count = list(dict.fromkeys(frame["key"])), type(learner_of(spec)).__name__, len(rows.inputs)

    def step(name: str, function: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return call(spec, f"{kind}.{name}()", _plainly, function, arguments)
        except _Refused as problem:
            raise Problem(
                f"{kind} of {spec.name} is refused on {counted(count, 'row')}: {problem} {fix_in(spec)}"
            ) from None

    maker = _of_few_rows(spec, len(keys))
    maker.prepare("cpu", "float32")  # or two fits of a network may differ
    learned, original, began_s = step("fit", maker.learn, rows), deepcopy(rows.inputs), time.process_time()

    def fitted() -> dict[str, bytes]:
        blobs: object = step("fit", maker.fit, learned, rows, keys, Alone(), "cpu", "float32")
        if not isinstance(blobs, dict) or not all(isinstance(data, bytes) for data in blobs.values()):
            types = {name: type(data).__name__ for name, data in blobs.items()} if isinstance(blobs, dict) else blobs
            raise wrong_type(spec, f"{kind}.fit()", types, "bytes by file name, {'model.bin': b'...'}")
        return blobs

    blobs = fitted()
    if changed := _overwritten(original, rows.inputs):
        raise Problem(
            f"{kind}.fit() of {spec.name} changes the rows that it gets: {changed} differ afterwards; expected none, "
            f"because the baselines learn from them too. Copy them first. {fix_in(spec)}"
        )
    exporting = replace(Exporting.for_product(spec), learning=maker)
    graph: object = step("to_onnx", exporting.graph, learned, blobs)
    if not isinstance(graph, bytes):
        raise wrong_type(spec, f"{kind}.to_onnx()", graph, "bytes, such as model.SerializeToString()")
    step("to_onnx", foreign_onnx.check, graph, rows.inputs, spec.task)
    _check_shape(spec, kind, step("answers", maker.answers, blobs, learned, rows), graph, rows.inputs)
    parity = step("answers", exporting.parity, blobs, learned, graph, rows)
    used_s = time.process_time() - began_s
    again = fitted()
    if differing := sorted(name for name in {*blobs, *again} if blobs.get(name) != again.get(name)):
        raise Problem(
            f"{kind}.fit() of {spec.name} returns another {differing[0]} when it is called again with the same rows "
            "and seed; expected equal bytes, because a killed training starts again. Take what is random from "
            f"context.training.seed (random_state of an estimator). {fix_in(spec)}"
        )
    return (
        f"{kind} fits {counted(count, 'row')} in {used_s:.1f} CPU s; its graph has {len(graph) / 1e6:.2f} MB, and its "
        f"answers differ from the model's by at most {parity.max_abs_difference:.1e}"
    )


def _of_few_rows(spec: Product, keys: int) -> Learning:
    """Return the maker of a training that fits rows of so many keys, in few epochs."""
    learner, maker = learner_of(spec), Learning.for_product(spec)
    judging = min(learner.validation_keys, max(0, keys - 1))
    # Nothing judges the end of a fit without keys for validation.
    endless = {} if judging or not hasattr(learner, "patience") else {"patience": None}
    epochs = min(EPOCHS, spec.training.epochs or EPOCHS)
    return replace(
        maker,
        learner=replace(learner, validation_keys=judging, **endless),
        training=replace(maker.training, epochs=epochs),
    )


def _check_shape(spec: Product, kind: str, answered: object, graph: bytes, inputs: Inputs) -> None:
    """Raise `Problem` unless a learner's answers have the shape of its graph's."""
    expected = export.answers(graph, inputs[: max(export.BATCHES)], batch=max(export.BATCHES))
    shape = (len(inputs), *expected.shape[1:])
    if isinstance(answered, np.ndarray) and answered.shape == shape:
        return
    returned = (
        f"{answered.dtype}{list(answered.shape)}" if isinstance(answered, np.ndarray) else type(answered).__name__
    )
    raise Problem(
        f"{kind}.answers() of {spec.name} returns {returned} for {len(inputs):,} rows; expected float32{list(shape)}, "
        f"as its graph returns. {fix_in(spec)}"
    )


class _Refused(Problem):
    """What a maker says about the learner or its graph, as `call` lets it pass."""


def _plainly(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    try:
        return function(*arguments)
    except (TrainingProblem, ParityFailure) as problem:
        raise _Refused(str(problem)) from None


def _overwritten(before: Inputs, after: Inputs) -> str:
    """Return how many cells of which input differ; empty when none does."""
    for name in ("numeric", "categorical", "image"):
        one, other = getattr(before, name), getattr(after, name)
        if one is not None and (count := int(((one != other) & ~((one != one) & (other != other))).sum())):
            return f"{count:,} cells of {name}"
    return ""
