"""Refuse an ONNX file, made elsewhere, that cannot be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.compute import export
from platform_assets.compute.train import TrainingProblem

if TYPE_CHECKING:
    from platform_assets.compute.matrix import Inputs
    from platform_assets.compute.tasks import Task

TRIED_ROWS = 256
NAMES = ("numeric", "categorical", "image")


def check(data: bytes, rows: Inputs, task: Task) -> None:
    """Raise `TrainingProblem` unless a graph answers these rows as its task does."""
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as problem:  # noqa: BLE001  # protobuf's exceptions have no public base class
        raise TrainingProblem(f"the file is not ONNX: {str(problem)[:200]}. Fix the product's FinishedOnnx.") from None
    if outside := [item.name for item in model.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]:
        raise TrainingProblem(
            f"the graph keeps {len(outside)} tensors in other files, such as {outside[0]!r}; expected one file with "
            "everything in it. Save it again without external data."
        )
    inputs = [item.name for item in model.graph.input]
    outputs = [item.name for item in model.graph.output]
    if not inputs or set(inputs) - set(NAMES) or outputs != ["answer"]:
        raise TrainingProblem(
            f"the graph has the inputs {', '.join(inputs) or '(none)'} and the outputs {', '.join(outputs)}; expected "
            f"some of {', '.join(NAMES)}, and the one output answer. Rename them."
        )
    _try(data, rows[:TRIED_ROWS], task)


def _try(data: bytes, rows: Inputs, task: Task) -> None:
    try:
        answers = export.answers(data, rows, batch=TRIED_ROWS)
    except Exception as problem:  # noqa: BLE001  # ONNX Runtime's exceptions have no public base class
        raise TrainingProblem(
            f"ONNX Runtime cannot run the graph on {len(rows)} rows: {str(problem).splitlines()[0][:300]}"
        ) from None
    width = {"binary": (), "regression": (2,)}.get(task.kind, (task.outputs,))
    if answers.dtype != np.float32 or answers.shape != (len(rows), *width) or not np.isfinite(answers).all():
        raise TrainingProblem(
            f"the graph answers {len(rows)} rows with {answers.dtype}{list(answers.shape)}, "
            f"{np.isfinite(answers).mean():.0%} of it finite; expected float32{[len(rows), *width]} of finite numbers "
            f"for a {task.kind} task."
        )
    outside = (answers < 0) | (answers > 1)
    if task.kind != "regression" and outside.any():
        raise TrainingProblem(
            f"{outside.sum()} of the graph's {answers.size} answers lie outside [0, 1], the first is "
            f"{answers[outside][0]:g}; expected probabilities for a {task.kind} task. If they are log-odds, end the "
            f"graph with {'Sigmoid' if task.kind == 'binary' else 'Softmax'}."
        )
