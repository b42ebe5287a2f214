"""A model with the same answers as another that takes more CPU per row."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

WIDTH = 1_000


def busy(graph: bytes, depth: int) -> bytes:
    """Return a logistic model that multiplies so many large matrices for each row, and adds nothing of them."""
    model = onnx.load_from_string(graph)
    constants = {"ones": np.ones((1, WIDTH)), "square": np.eye(WIDTH) * 0.5, "nothing": np.zeros((WIDTH, 1))}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    nodes = [helper.make_node("MatMul", ["weighted", "ones"], ["wide0"])]
    nodes += [helper.make_node("MatMul", [f"wide{n}", "square"], [f"wide{n + 1}"]) for n in range(depth)]
    nodes += [helper.make_node("MatMul", [f"wide{depth}", "nothing"], ["narrow"])]
    original = list(model.graph.node)
    index = next(index for index, node in enumerate(original) if node.op_type == "Sum")
    original[index].input.append("narrow")
    del model.graph.node[:]
    model.graph.node.extend([*original[:index], *nodes, *original[index:]])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
