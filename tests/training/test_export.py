"""The ONNX file answers like the network for every mix of fields, and contains nothing of this machine."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.product.tasks import Binary, MultiClass, Regression
from platform_assets.training import determinism, export
from platform_assets.training.nets import TabularNet
from tests.doubles import inputs as doubles

pytestmark = pytest.mark.slow

ROWS = 300
MIXES = {"both": (3, 2), "numbers only": (3, 0), "categories only": (0, 2)}
TASK = Binary()
Exported = tuple[nn.Module, Learned, bytes, Inputs]


def exported(numeric: int, categorical: int) -> Exported:
    determinism.fix(1)
    determinism.seed(0)
    stream = np.random.default_rng(0)
    numbers = stream.normal(size=(ROWS, numeric)).astype(np.float32)
    numbers[stream.random(numbers.shape) < 0.1] = np.nan
    text = np.array(["", "a", "bc", "ü"], dtype=object)[stream.integers(0, 4, (ROWS, categorical))]
    inputs = doubles.inputs_of(numbers, text)
    learned = doubles.learned(inputs)
    network = TabularNet(learned, widths=(8, 8), embedding=3)
    return network, learned, export.to_onnx(network, learned, TASK), inputs


@pytest.fixture(scope="module")
def mixes() -> dict[str, Exported]:
    return {name: exported(*counts) for name, counts in MIXES.items()}


@pytest.mark.costly
@pytest.mark.parametrize("mix", MIXES)
def test_the_graph_answers_as_the_network_on_every_row_and_batch(mixes: dict[str, Exported], mix: str) -> None:
    network, learned, graph, inputs = mixes[mix]
    parity = export.prove_parity(doubles.own_answers(network, learned, TASK, inputs), learned, graph, inputs)
    assert (parity.rows, parity.batches) == (ROWS, (1, 7, 256))
    assert parity.max_abs_difference <= 1e-6


@pytest.mark.parametrize("mix", MIXES)
def test_both_inputs_exist_for_every_product(mixes: dict[str, Exported], mix: str) -> None:
    graph = onnx.load_from_string(mixes[mix][2]).graph
    numeric, categorical = MIXES[mix]
    shapes = {
        item.name: (
            item.type.tensor_type.elem_type,
            [part.dim_param or part.dim_value for part in item.type.tensor_type.shape.dim],
        )
        for item in (*graph.input, *graph.output)
    }
    assert shapes == {
        "numeric": (onnx.TensorProto.FLOAT, ["N", numeric]),
        "categorical": (onnx.TensorProto.STRING, ["N", categorical]),
        "answer": (onnx.TensorProto.FLOAT, ["N"]),
    }


def test_unseen_values_and_nulls_get_the_same_answer_from_both(mixes: dict[str, Exported]) -> None:
    network, learned, graph, _ = mixes["both"]
    numbers = np.full((4, 3), np.nan, dtype=np.float32)
    text = np.array([["never", "seen"], ["", ""], ["a", "never"], ["ü", "bc"]], dtype=object)
    inputs = doubles.inputs_of(numbers, text)
    assert (
        export.prove_parity(
            doubles.own_answers(network, learned, TASK, inputs), learned, graph, inputs
        ).max_abs_difference
        <= 1e-6
    )


def test_nothing_of_the_checkout_is_left_in_the_file(mixes: dict[str, Exported]) -> None:
    data = mixes["both"][2]
    model = onnx.load_from_string(data)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for word in (b"platform_assets", b"site-packages", b"/work", b".py"):
        assert word not in data


@pytest.mark.costly
def test_a_second_export_has_the_same_bytes(mixes: dict[str, Exported]) -> None:
    network, learned, graph, _ = mixes["numbers only"]
    assert export.to_onnx(network, learned, TASK) == graph


def test_a_graph_of_other_weights_fails_the_parity(mixes: dict[str, Exported]) -> None:
    _, learned, graph, inputs = mixes["both"]
    torch.manual_seed(1)
    other = TabularNet(learned, widths=(8, 8), embedding=3)
    with pytest.raises(export.ParityFailure, match="batch 1, row"):
        export.prove_parity(doubles.own_answers(other, learned, TASK, inputs), learned, graph, inputs)


def test_parity_without_rows_is_an_error(mixes: dict[str, Exported]) -> None:
    network, learned, graph, inputs = mixes["both"]
    with pytest.raises(export.ParityFailure, match="no rows"):
        export.prove_parity(doubles.own_answers(network, learned, TASK, inputs), learned, graph, inputs[:0])


@pytest.mark.costly
@pytest.mark.parametrize(
    ("task", "target", "shape"),
    [
        (MultiClass(classes=("red", "green", "blue")), None, ["N", 3]),
        (Regression(unit="m"), {"mean": 1_000.0, "std": 250.0}, ["N", 2]),
    ],
)
def test_other_kinds_of_task_answer_with_more_numbers(task, target, shape) -> None:
    determinism.fix(1)
    determinism.seed(0)
    inputs = doubles.inputs_of(np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32))
    learned = doubles.learned(inputs, target=target)
    network = TabularNet(learned, outputs=task.outputs, widths=(8,), members=2)
    graph = export.to_onnx(network, learned, task)
    assert export.prove_parity(doubles.own_answers(network, learned, task, inputs), learned, graph, inputs).rows == ROWS
    (output,) = onnx.load_from_string(graph).graph.output
    assert [part.dim_param or part.dim_value for part in output.type.tensor_type.shape.dim] == shape
    answer = export.answers(graph, inputs, batch=256)
    if target is None:
        np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-6)
    else:
        assert (answer[:, 1] > 0).all()
        assert abs(answer[:, 0].mean() - 1_000) < 500


COLUMNS = 8
RANDOM_ROWS = 10_000


def columns(stream: np.random.Generator, rows: int) -> np.ndarray:
    normal = stream.normal(size=(rows, COLUMNS))
    normal[:, 0] = 3.0
    normal[:, 1] = normal[:, 1] > 0
    normal[:, 2] = np.round(normal[:, 2])
    normal[:, 3] = 1013.25 + normal[:, 3] * 1e-4
    normal[:, 4] *= 1e30
    normal[:, 5] *= 1e-30
    normal[:, 6] = np.exp(8 * normal[:, 6])
    return normal.astype(np.float32)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("members", "widths", "task"),
    [(4, (16, 16), TASK), (1, (8,), TASK), (3, (8,), MultiClass(classes=("a", "b", "c")))],
)
def test_the_graph_answers_as_the_network_on_random_rows(members: int, widths: tuple[int, ...], task: Any) -> None:
    determinism.fix(1)
    determinism.seed(1)
    stream = np.random.default_rng(1)
    texts = np.array(["", "a", "bc", "never seen"], dtype=object)
    training = doubles.inputs_of(columns(stream, 500), texts[stream.integers(0, 3, (500, 2))])
    training.numeric[stream.random(training.numeric.shape) < 0.1] = np.nan
    learned = doubles.learned(training)
    network = TabularNet(learned, outputs=task.outputs, widths=widths, members=members).eval()
    graph = export.to_onnx(network, learned, task)
    numbers = columns(stream, RANDOM_ROWS)
    odd = np.array([np.nan, 1e-45, -1e-45, 1.2e-38, 0.0, -0.0, 3.4e38, -3.4e38, 1e20], dtype=np.float32)
    is_odd = stream.random(numbers.shape) < 0.2
    numbers[is_odd] = odd[stream.integers(0, len(odd), int(is_odd.sum()))]
    rows = doubles.inputs_of(numbers, texts[stream.integers(0, 4, (RANDOM_ROWS, 2))])
    parity = export.prove_parity(doubles.own_answers(network, learned, task, rows), learned, graph, rows)
    assert parity.rows == RANDOM_ROWS
    assert parity.max_abs_difference <= 1e-6
    few = rows[:1_000]
    alone = export.answers(graph, few, batch=1)
    for batch in (2, 3, 12, 16):
        np.testing.assert_array_equal(export.answers(graph, few, batch=batch), alone, "the same bits in every batch")
