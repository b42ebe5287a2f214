"""Turn a fitted scikit-learn estimator into a core graph, and prove that both answer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.base import onnx_runtime
from platform_assets.product.learner import TrainingProblem
from platform_assets.training.export import IR_VERSION, OPSET, OPSET_ML, TOLERANCE, ParityFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from platform_assets.product.learned import Learned
    from platform_assets.product.tasks import Task


_NEWEST_ML = 3
"""The newest operators of `ai.onnx.ml` that skl2onnx writes; those of `OPSET_ML` read them unchanged."""


def fitted(make: Callable[[], Any], columns: NDArray[np.float32], labels: NDArray[Any]) -> Any:
    """Return the product's estimator, fitted.

    Raises:
        TrainingProblem: it is not an estimator, or refuses the rows.
    """
    estimator = make()
    if isinstance(estimator, type):
        raise TrainingProblem(
            f"`make` of the product's Estimator returns the class {estimator.__name__}; expected an estimator: "
            f"{estimator.__name__}()."
        )
    if not hasattr(estimator, "fit"):
        raise TrainingProblem(
            f"`make` of the product's Estimator returns a {type(estimator).__name__}, which has no fit; expected an "
            "estimator or a pipeline of scikit-learn."
        )
    try:
        return estimator.fit(columns, labels)
    except ValueError as problem:
        raise TrainingProblem(
            f"{type(estimator).__name__} refuses {len(columns)} rows of {columns.shape[1]} columns: "
            f"{str(problem).splitlines()[0]} Nulls are NaN here: impute them in a pipeline, or take an estimator that "
            "reads them."
        ) from None


def answers(fitted: Any, columns: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Return an estimator's answers: [N] probabilities or values, or [N, K] probabilities.

    Raises:
        TrainingProblem: its classes are not those of the task.
    """
    if task.kind == "regression":
        if hasattr(fitted, "classes_"):
            raise TrainingProblem(
                f"{type(fitted).__name__} answers with classes; a regression expects a regressor. Change `make` of the "
                "product's Estimator."
            )
        return np.asarray(fitted.predict(columns), dtype=np.float64).reshape(len(columns))
    if not hasattr(fitted, "predict_proba"):
        raise TrainingProblem(
            f"{type(fitted).__name__} has no predict_proba; a {task.kind} task expects a classifier that answers with "
            "probabilities. Choose another one, or put CalibratedClassifierCV around it."
        )
    classes = list(fitted.classes_)
    expected = list(range(2 if task.kind == "binary" else task.outputs))
    if classes != expected:
        raise TrainingProblem(
            f"the training rows have the classes {classes}; expected {expected}: each class at least once. Choose a "
            "later cutoff, or a longer window."
        )
    chances = np.asarray(fitted.predict_proba(columns), dtype=np.float64)
    return chances[:, 1] if task.kind == "binary" else chances


def with_spread(values: NDArray[np.float64], width: float | None) -> NDArray[np.float64]:
    """Return answers as the task takes them: a regression's values get their spread, [N, 2]."""
    return values if width is None else np.column_stack([values, np.full(len(values), width)])


def core(fitted: Any, columns: NDArray[np.float32], learned: Learned, task: Task, width: float | None) -> bytes:
    """Return the graph from `numeric` and `codes` to `answer`.

    Raises:
        TrainingProblem: skl2onnx cannot convert the estimator.
        ParityFailure: graph and estimator differ on one of these rows.
    """
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    from sklearn.base import is_classifier

    # Otherwise a classifier's graph ends in a ZipMap, which answers with a list of maps.
    options = {"zipmap": False} if is_classifier(fitted) else None
    try:
        # From the one row skl2onnx takes only the inputs' types.
        model = to_onnx(fitted, columns[:1], options=options, target_opset={"": OPSET, "ai.onnx.ml": _NEWEST_ML})
    except (MissingConverter, MissingShapeCalculator, NotImplementedError) as problem:
        raise TrainingProblem(
            f"skl2onnx cannot convert {type(fitted).__name__}: {str(problem).splitlines()[0]} Expected an estimator "
            "that it supports. Change `make` of the product's Estimator."
        ) from None
    graph = model.graph
    joined = [*(["numeric"] if learned.numeric else []), *(["columns.codes"] if learned.categorical else [])]
    graph.node.insert(0, helper.make_node("Concat", joined, [graph.input[0].name], axis=1))
    if learned.categorical:
        graph.node.insert(0, helper.make_node("Cast", ["codes"], ["columns.codes"], to=TensorProto.FLOAT))
    del graph.input[:]
    widths = (("numeric", TensorProto.FLOAT, learned.numeric), ("codes", TensorProto.INT64, learned.categorical))
    graph.input.extend(helper.make_tensor_value_info(name, kind, ["N", len(fields)]) for name, kind, fields in widths)
    _put_answer_behind(model, task, width)
    data: bytes = model.SerializeToString(deterministic=True)
    # On every training row: skl2onnx converts random forests inexactly, and sends a null down another branch.
    result, expected = run(data, columns, len(learned.numeric)), with_spread(answers(fitted, columns, task), width)
    difference = np.abs(result.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    if not (np.isfinite(difference).all() and difference.max() <= TOLERANCE):
        apart = np.where(np.isfinite(difference), difference, np.inf).reshape(len(result), -1)
        row = int(np.argmax(apart.max(axis=1)))
        raise ParityFailure(
            f"training row {row}: the graph returns {result[row]!r}, the estimator {expected[row]!r}; expected a "
            f"difference of at most {TOLERANCE}. Choose another estimator in the product's file: skl2onnx computes "
            "this one differently."
        )
    return data


def _put_answer_behind(model: onnx.ModelProto, task: Task, width: float | None) -> None:
    """Make `answer` of the estimator's own output: its chances, or its value."""
    from onnx import TensorProto, helper, numpy_helper

    graph, node = model.graph, helper.make_node
    output = graph.output[-1].name  # a classifier's first one is the label
    shape: list[str | int] = ["N"]
    if task.kind == "binary":
        constants = [numpy_helper.from_array(np.array(1, np.int64), "answer.column")]
        nodes = [node("Gather", [output, "answer.column"], ["answer.wide"], axis=1)]
    elif task.kind == "multi_class":
        shape, constants = ["N", task.outputs], []
        nodes = [node("Identity", [output], ["answer.wide"])]
    else:
        shape = ["N", 2]
        constants = [
            numpy_helper.from_array(np.array([-1, 1], np.int64), "answer.shape"),
            numpy_helper.from_array(np.array([[0.0]], np.float32), "answer.zero"),
            numpy_helper.from_array(np.array([[width]], np.float32), "answer.spread"),
        ]
        nodes = [
            node("Reshape", [output, "answer.shape"], ["answer.value"]),
            node("Mul", ["answer.value", "answer.zero"], ["answer.none"]),
            node("Add", ["answer.none", "answer.spread"], ["answer.spreads"]),
            node("Concat", ["answer.value", "answer.spreads"], ["answer.wide"], axis=1),
        ]
    nodes.append(node("Cast", ["answer.wide"], ["answer"], to=TensorProto.FLOAT))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape))
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)])


def run(core: bytes, columns: NDArray[np.float32], numeric: int) -> NDArray[np.float32]:
    """Return a core graph's answers to rows [N, F + C], of which the first F are numbers."""
    ort = onnx_runtime.library()
    session = ort.InferenceSession(core, providers=["CPUExecutionProvider"])
    fed = {"numeric": columns[:, :numeric], "codes": columns[:, numeric:].astype(np.int64)}
    names = {item.name for item in session.get_inputs()}
    result: NDArray[np.float32] = session.run(
        ["answer"], {name: value for name, value in fed.items() if name in names}
    )[0]
    return result
