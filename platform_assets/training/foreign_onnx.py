"""Refuse an ONNX file, made elsewhere, that cannot be served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.product.learner import TrainingProblem
from platform_assets.training import export

if TYPE_CHECKING:
    from platform_assets.product.inputs import Inputs
    from platform_assets.product.tasks import Task

TRIED_ROWS = 256
NAMES = ("numeric", "categorical", "image")


def check(data: bytes, rows: Inputs, task: Task) -> None:
    """Raise `TrainingProblem` unless a graph answers these rows as its task does."""
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as problem:  # noqa: BLE001  # protobuf's exceptions have no public base class
        raise TrainingProblem(f"the file is not ONNX: {str(problem)[:200]}. Fix the product's FinishedOnnx.") from None
    if not model.graph.node:
        raise TrainingProblem(
            f"the file of {len(data)} bytes holds no graph; expected an ONNX model. Fix the product's FinishedOnnx."
        )
    if external := [item.name for item in _tensors(model) if item.data_location == onnx.TensorProto.EXTERNAL]:
        raise TrainingProblem(
            f"the graph keeps {len(external)} tensors in other files, such as {external[0]!r}; expected one file with "
            "everything in it. Save it again without external data."
        )
    inputs = [item.name for item in model.graph.input]
    outputs = [item.name for item in model.graph.output]
    if not inputs or set(inputs) - set(NAMES) or outputs != ["answer"]:
        raise TrainingProblem(
            f"the graph has the inputs {', '.join(inputs) or '(none)'} and the outputs {', '.join(outputs)}; expected "
            f"some of {', '.join(NAMES)}, and the one output answer. Rename them."
        )
    rows = rows[:TRIED_ROWS]
    answers = _answers(data, rows, TRIED_ROWS)
    width = {"binary": (), "regression": (2,)}.get(task.kind, (task.outputs,))
    if answers.dtype != np.float32 or answers.shape != (len(rows), *width) or not np.isfinite(answers).all():
        raise TrainingProblem(
            f"the graph answers {len(rows)} rows with {answers.dtype}{list(answers.shape)}, "
            f"{np.isfinite(answers).mean():.0%} of it finite; expected float32{[len(rows), *width]} of finite numbers "
            f"for a {task.kind} task."
        )
    _answers(data, rows[:1], 1)
    if not np.allclose(_answers(data, rows[::-1], TRIED_ROWS)[::-1], answers, atol=export.TOLERANCE):
        raise TrainingProblem(
            f"the graph answers the same {len(rows)} rows differently in another order; expected an answer that "
            "depends on its row alone. Remove what is random in it."
        )
    outside = (answers < 0) | (answers > 1)
    if task.kind != "regression" and outside.any():
        raise TrainingProblem(
            f"{outside.sum()} of the graph's {answers.size} answers lie outside [0, 1], the first is "
            f"{answers[outside][0]:g}; expected probabilities for a {task.kind} task. If they are log-odds, end the "
            f"graph with {'Sigmoid' if task.kind == 'binary' else 'Softmax'}."
        )


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor of a model: initializers, and attributes of nodes, in subgraphs and functions too."""
    import onnx

    for _, value in message.ListFields():
        parts = value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]
        for part in parts:
            if isinstance(part, onnx.TensorProto):
                yield part
            elif hasattr(part, "ListFields"):
                yield from _tensors(part)


def _answers(data: bytes, rows: Inputs, batch: int) -> np.ndarray:
    try:
        return export.answers(data, rows, batch=batch)
    except Exception as problem:  # noqa: BLE001  # ONNX Runtime's exceptions have no public base class
        reason = re.sub(r"/\S+:\d+ .*?\) (?=[A-Z!])", "", " ".join(str(problem).split()))
        widths = f"numeric float32 [N, {rows.numeric.shape[1]}] and categorical [N, {rows.categorical.shape[1]}]"
        raise TrainingProblem(
            f"ONNX Runtime cannot run the graph on {min(batch, len(rows))} rows of {widths}: {reason[:300]}. Expected "
            "a graph that takes any number of such rows, in operators of ONNX Runtime. Export it again."
        ) from None
