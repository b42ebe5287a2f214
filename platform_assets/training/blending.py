"""Join several models' ONNX files into one, whose answer is the weighted mean of their answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from platform_assets.training import export


def blend(files: Sequence[bytes], weights: Sequence[float]) -> bytes:
    """Return one checked ONNX file; inputs of one name are one input.

    Args:
        files: graphs with the inputs and the output of `training.export`.
        weights: one per file, adding up to 1.
    """
    import onnx
    from onnx import compose, helper, numpy_helper

    parts = [
        # Inputs keep their names, so that all parts read the same ones.
        compose.add_prefix(onnx.load_from_string(data), f"{number}.", rename_inputs=False)
        for number, data in enumerate(files)
    ]
    inputs = {item.name: item for part in parts for item in part.graph.input}
    versions: dict[str, int] = {}
    for part in parts:
        for item in part.opset_import:
            # A model imports one version of a domain.
            versions[item.domain] = max(item.version, versions.get(item.domain, 0))
    factors = [
        numpy_helper.from_array(np.array(weight, np.float32), f"{number}.weight")
        for number, weight in enumerate(weights)
    ]
    nodes = [
        helper.make_node("Mul", [f"{number}.answer", f"{number}.weight"], [f"{number}.share"])
        for number in range(len(parts))
    ]
    nodes.append(helper.make_node("Sum", [f"{number}.share" for number in range(len(parts))], ["answer"]))
    answer = onnx.ValueInfoProto()
    answer.CopyFrom(parts[0].graph.output[0])
    answer.name = "answer"
    graph = helper.make_graph(
        [*(node for part in parts for node in part.graph.node), *nodes],
        "model",
        list(inputs.values()),
        [answer],
        [*(item for part in parts for item in part.graph.initializer), *factors],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=export.IR_VERSION)
    model.functions.extend(item for part in parts for item in part.functions)
    return export.checked(model)
