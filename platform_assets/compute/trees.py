"""Boosted trees as ONNX: LightGBM's own description of a model, node by node, in double precision.

LightGBM compares doubles; a graph in float32 would round thresholds, and rows between both values would fall into
another leaf. So the graph computes in doubles too: every float32 row reaches the same leaf, and only the last bit of
the sum differs. (onnxmltools rounds, and sends a null of a column without nulls in training the wrong way.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from platform_assets.compute.learn import Learned
from platform_assets.compute.train import TrainingProblem

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from platform_assets.compute.matrix import Inputs
    from platform_assets.compute.tasks import Task

OPSET, OPSET_ML, IR_VERSION = 20, 5, 10
_AT_MOST, _MEMBER = 0, 6
"""Modes of a node of ONNX's TreeEnsemble: `x <= split`, and `x in a set`."""
_SUM = 1
ZERO = np.float32(1e-35)
"""LightGBM reads a number as small as this as 0."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node or a leaf as LightGBM's `dump_model` describes it; a leaf has a value and nothing else."""

    leaf_value: float | None = None
    split_feature: int = 0
    decision_type: str = ""
    threshold: float | str = 0.0
    missing_type: str = "None"
    default_left: bool = False
    left_child: Node | None = None
    right_child: Node | None = None


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A tree; a constant one has no nodes."""

    tree_structure: Node


class Forest(msgspec.Struct, frozen=True, kw_only=True):
    """A LightGBM model: the tree of round r and output k is number `r * num_tree_per_iteration + k`."""

    num_tree_per_iteration: int
    average_output: bool
    tree_info: list[Tree]


@dataclass
class _Nodes:
    """The attributes of TreeEnsemble, filled node by node."""

    splits: list[float] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    true_leafs: list[int] = field(default_factory=list)
    false_leafs: list[int] = field(default_factory=list)
    null_is_true: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add_tree(self, root: Node, target: int, share: float) -> None:
        """Add a tree whose leaves count with a share of their value for one output."""
        if root.left_child is None:  # a constant: both ways lead to it
            root = Node(decision_type="<=", left_child=root, right_child=root)
        self.roots.append(self._node(root, target, share))

    def _node(self, node: Node, target: int, share: float) -> int:
        number = len(self.splits)
        is_set = node.decision_type == "=="
        split = 0.0 if isinstance(node.threshold, str) else node.threshold
        # Without a null in training LightGBM reads one as 0.
        is_null_left = node.default_left if node.missing_type == "NaN" else not is_set and split >= 0.0
        self.splits.append(split)
        self.features.append(node.split_feature)
        self.modes.append(_MEMBER if is_set else _AT_MOST)
        self.null_is_true.append(int(is_null_left))
        for numbers in (self.true_ids, self.false_ids, self.true_leafs, self.false_leafs):
            numbers.append(0)
        if is_set:
            self.members += [*map(float, str(node.threshold).split("||")), float("nan")]
        sides = (
            (node.left_child, self.true_ids, self.true_leafs),
            (node.right_child, self.false_ids, self.false_leafs),
        )
        for child, ids, leafs in sides:
            assert child is not None
            if child.left_child is None:
                ids[number], leafs[number] = len(self.weights), 1
                self.targets.append(target)
                self.weights.append((child.leaf_value or 0.0) * share)
            else:
                ids[number] = self._node(child, target, share)
        return number


def matrix(inputs: Inputs, learned: Learned) -> NDArray[np.float32]:
    """Return what trees read: numbers, then the codes of categories, float32 [N, F + C]; NaN is null."""
    from platform_assets.compute.learn import codes

    return np.column_stack([inputs.numeric, codes(learned, inputs.categorical).astype(np.float32)])


def forest_of(dump: object) -> Forest:
    """Return what LightGBM's `dump_model` describes.

    Raises:
        TrainingProblem: a tree whose form the graph does not have.
    """
    forest = msgspec.convert(dump, Forest)
    nodes = [tree.tree_structure for tree in forest.tree_info]
    while nodes:
        node = nodes.pop()
        nodes += [child for child in (node.left_child, node.right_child) if child is not None]
        if node.left_child is not None and (node.missing_type == "Zero" or node.decision_type not in ("<=", "==")):
            raise TrainingProblem(
                f"a tree has a node with missing_type {node.missing_type!r} and decision_type {node.decision_type!r}; "
                "expected None or NaN, and <= or ==. Leave zero_as_missing out of the learner's settings."
            )
    return forest


def core(forest: Forest, learned: Learned, task: Task, spread: float | None) -> onnx.ModelProto:
    """Return the graph of trees from `numeric` and `codes` to `answer`.

    Args:
        spread: a regression's standard deviation.
    """
    from onnx import TensorProto, helper, numpy_helper

    outputs = forest.num_tree_per_iteration
    joined = [name for name, columns in (("numeric", learned.numeric), ("places", learned.categorical)) if columns]
    nodes = [
        helper.make_node("Cast", ["codes"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Concat", joined, ["columns"], axis=1),
        helper.make_node("Abs", ["columns"], ["sizes"]),
        helper.make_node("LessOrEqual", ["sizes", "smallest"], ["is_zero"]),
        helper.make_node("Where", ["is_zero", "zero_float", "columns"], ["read"]),
        helper.make_node("Cast", ["read"], ["exact"], to=TensorProto.DOUBLE),
        helper.make_node("TreeEnsemble", ["exact"], ["sums"], domain="ai.onnx.ml", **_attributes(forest)),
    ]
    more, constants, shape = _answer(task, outputs, spread)
    constants += [
        numpy_helper.from_array(np.array(ZERO), "smallest"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero_float"),
    ]
    graph = helper.make_graph(
        [*(nodes if learned.categorical else nodes[1:]), *more],
        "trees",
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", len(learned.numeric)]),
            helper.make_tensor_value_info("codes", TensorProto.INT64, ["N", len(learned.categorical)]),
        ],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _attributes(forest: Forest) -> dict[str, Any]:
    from onnx import numpy_helper

    nodes, outputs = _Nodes(), forest.num_tree_per_iteration
    share = outputs / len(forest.tree_info) if forest.average_output else 1.0
    for number, tree in enumerate(forest.tree_info):
        nodes.add_tree(tree.tree_structure, number % outputs, share)

    def tensor(values: Sequence[float], kind: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, kind))

    return {
        "n_targets": outputs,
        "aggregate_function": _SUM,
        "post_transform": 0,
        "tree_roots": nodes.roots,
        "nodes_featureids": nodes.features,
        "nodes_splits": tensor(nodes.splits, np.float64),
        "nodes_modes": tensor(nodes.modes, np.uint8),
        "nodes_truenodeids": nodes.true_ids,
        "nodes_falsenodeids": nodes.false_ids,
        "nodes_trueleafs": nodes.true_leafs,
        "nodes_falseleafs": nodes.false_leafs,
        "nodes_missing_value_tracks_true": nodes.null_is_true,
        "leaf_targetids": nodes.targets,
        "leaf_weights": tensor(nodes.weights, np.float64),
        **({"membership_values": tensor(nodes.members, np.float64)} if nodes.members else {}),
    }


def _answer(
    task: Task, outputs: int, spread: float | None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[str | int]]:
    """Return the nodes from sums to answers, their constants, and the answers' shape."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    to_float = node("Cast", ["wide"], ["answer"], to=TensorProto.FLOAT)
    if task.kind == "binary":
        axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
        return (
            [node("Sigmoid", ["sums"], ["odds"]), node("Squeeze", ["odds", "axes"], ["wide"]), to_float],
            [axes],
            ["N"],
        )
    if task.kind == "multi_class":
        return [node("Softmax", ["sums"], ["wide"], axis=1), to_float], [], ["N", outputs]
    assert spread is not None, task
    constants = [
        numpy_helper.from_array(np.array([0.0]), "zero"),
        numpy_helper.from_array(np.array([spread]), "spread"),
    ]
    nodes = [
        node("Mul", ["sums", "zero"], ["none"]),
        node("Add", ["none", "spread"], ["spreads"]),
        node("Concat", ["sums", "spreads"], ["wide"], axis=1),
        to_float,
    ]
    return nodes, constants, ["N", 2]
