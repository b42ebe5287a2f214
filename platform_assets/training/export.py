"""Export a trained network as one ONNX file, from raw numbers, text and grey levels to an answer.

The graph's inputs are `numeric` float32 [N, F] (NaN is null), `categorical` string [N, C] ("" is null) and, for a
product with an image, `image` uint8 [N, H, W]. Its output is `answer` float32, [N] or [N, P] depending on the task. The
first two inputs exist for every product, with zero columns if it has none.
Same weights and versions give the same bytes: nothing about the checkout, the time or the process is stored.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.base import onnx_runtime
from platform_assets.base.problems import Problem
from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.store.records.trainings import Parity

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from platform_assets.product.tasks import Task

OPSET = 20
OPSET_ML = 4
IR_VERSION = 10
# Of networks it is usually 6e-8.
TOLERANCE = 1e-5
# A single row too, which ONNX Runtime may add up in another order than several.
BATCHES = (1, 7, 256)
# More than one, because torch.export takes a size of 0 or 1 for a constant.
_TRACED_ROWS = 3


class ParityFailure(Problem, ValueError):
    """The ONNX graph and the model disagree, so nothing may be published."""


def to_onnx(network: nn.Module, learned: Learned, task: Task) -> bytes:
    """Export a network with its vocabulary look-up as one checked ONNX file. Costs 3 to 7 CPU seconds.

    Args:
        network: maps `numeric`, `codes` and, if the product has one, `image` to outputs [N, O].
        learned: holds the vocabularies, the image's shape and the labels' scale.
        task: turns outputs into answers.
    """
    import torch

    from platform_assets.training.exported_nets import lean

    class Answering(torch.nn.Module):
        """A network that answers as its task does."""

        def __init__(self) -> None:
            super().__init__()
            self.network = lean(network)

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return task.graph_answer(self.network(*inputs), learned.target)

    rows = torch.export.Dim("N")
    example = [
        torch.zeros(_TRACED_ROWS, len(learned.numeric)),
        torch.zeros(_TRACED_ROWS, len(learned.categorical), dtype=torch.int64),
    ]
    names = ["numeric", "codes"]
    if learned.image is not None:
        example.append(torch.zeros(_TRACED_ROWS, *learned.image.shape, dtype=torch.uint8))
        names.append("image")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Past releases of this exporter wrote wrong graphs without a word, hence `prove_parity` on real rows.
        program = torch.onnx.export(
            Answering().eval(),
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["answer"],
            dynamic_shapes=(tuple({0: rows} for _ in example),),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return finished(program.model_proto, learned)


def finished(core: onnx.ModelProto, learned: Learned) -> bytes:
    """Return the checked ONNX file of a core graph, which reads codes, with the look-up of codes before it."""
    core.ir_version = IR_VERSION
    core.producer_name, core.producer_version, core.domain, core.doc_string = "driftline", "", "", ""
    del core.metadata_props[:]
    del core.graph.metadata_props[:]
    del core.graph.value_info[:]
    core.graph.name, core.graph.doc_string = "model", ""
    for item in (*core.graph.node, *core.graph.input, *core.graph.output, *core.graph.initializer):
        del item.metadata_props[:]  # torch writes the paths of its callers there
        item.doc_string = ""
    _put_look_up_before(core, learned)
    return checked(core)


def checked(model: onnx.ModelProto) -> bytes:
    """Return a checked graph as a file; equal graphs give equal bytes."""
    import onnx

    onnx.checker.check_model(model, full_check=True)
    # By default protobuf promises no order of the entries of a map.
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def prove_parity(expected: np.ndarray, learned: Learned, graph: bytes, inputs: Inputs) -> Parity:
    """Compare a model's own answers with its graph's on every row, in batches of 1, 7 and 256.

    Args:
        expected: the model's own answers float32 [N] or [N, P].

    Raises:
        ParityFailure: no rows, a number that is not finite, or a difference above `TOLERANCE`.
    """
    if len(inputs) == 0:
        raise ParityFailure("there are no rows to prove parity on; expected the holdout's. Look at the features table.")
    unit = 1.0 if learned.target is None else learned.target["std"]
    size = np.maximum(unit, np.abs(expected.astype(np.float64)))
    worst = 0.0
    for batch in BATCHES:
        graph_answers = answers(graph, inputs, batch=batch)
        difference = np.abs(graph_answers.astype(np.float64) - expected) / size
        worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        if worst > TOLERANCE:
            apart = np.where(np.isfinite(difference), difference, np.inf).reshape(len(difference), -1)
            row = int(np.argmax(apart.max(axis=1)))
            raise ParityFailure(
                f"batch {batch}, row {row}: the graph returns {graph_answers[row]!r}, the model {expected[row]!r}; "
                f"expected a difference of at most {TOLERANCE}. If the numbers are close, the model is so steep that "
                "rounding shows: train it for fewer epochs, or with a lower learning_rate. Otherwise fix the product's "
                "model, or its export."
            )
    return Parity(rows=len(inputs), max_abs_difference=worst, batches=BATCHES)


def answers(graph: bytes, inputs: Inputs, *, batch: int, threads: int = 1) -> np.ndarray:
    """Run the graph `batch` rows at a time; return float32 [N] or [N, P]."""
    ort = onnx_runtime.library()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    input_names = {item.name for item in session.get_inputs()}
    parts = []
    for part in inputs.in_batches(batch):
        fed = {"numeric": part.numeric, "categorical": np.asarray(part.categorical, dtype=object), "image": part.image}
        parts.append(session.run(None, {name: value for name, value in fed.items() if name in input_names})[0])
    return np.concatenate(parts)


def _put_look_up_before(model: onnx.ModelProto, learned: Learned) -> None:
    """Replace the input `codes` by `categorical`: one dictionary over all columns, then one table per column.

    Three nodes, however many columns: value -> its number in the dictionary -> its code in this column.
    """
    from onnx import TensorProto, helper, numpy_helper

    columns = learned.categorical
    graph = model.graph
    rows, old = graph.input[0].type.tensor_type.shape.dim[0].dim_param, graph.input[1]
    assert [item.name for item in graph.input][:2] == ["numeric", "codes"]
    assert rows
    del graph.input[1]
    graph.input.append(helper.make_tensor_value_info("categorical", TensorProto.STRING, [rows, len(columns)]))
    if not columns:
        assert not any("codes" in node.input for node in graph.node), old
        return
    vocabulary = sorted(set().union(*(column.vocabulary for column in columns)))
    number = {value: position for position, value in enumerate(vocabulary, start=1)}
    table = np.zeros((len(columns), len(vocabulary) + 1), dtype=np.int64)
    for i, column in enumerate(columns):
        for code, value in enumerate(column.vocabulary, start=1):
            table[i, number[value]] = code
    offsets = np.arange(len(columns), dtype=np.int64) * (len(vocabulary) + 1)
    graph.initializer.extend(
        [numpy_helper.from_array(offsets, "look_up.offsets"), numpy_helper.from_array(table.ravel(), "look_up.table")]
    )
    nodes: Sequence[Any] = (
        helper.make_node(
            "LabelEncoder",
            ["categorical"],
            ["look_up.words"],
            name="look_up.dictionary",
            domain="ai.onnx.ml",
            keys_strings=vocabulary or [""],
            values_int64s=list(number.values()) or [0],
            default_int64=0,
        ),
        helper.make_node("Add", ["look_up.words", "look_up.offsets"], ["look_up.places"], name="look_up.add"),
        helper.make_node("Gather", ["look_up.table", "look_up.places"], ["codes"], name="look_up.gather", axis=0),
    )
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    if not any(item.domain == "ai.onnx.ml" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", OPSET_ML))
