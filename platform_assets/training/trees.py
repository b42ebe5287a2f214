"""Boosted trees as ONNX: LightGBM's own description of a model, node by node, in double precision.

LightGBM compares doubles; a graph in float32 would round thresholds, and rows between both values would fall into
another leaf. So the graph computes in doubles too: every float32 row reaches the same leaf, and only the last bit of
the sum differs. (onnxmltools rounds, and sends a null of a column without nulls in training the wrong way.)

A split by a set of categories becomes a column of its own, 0 in the set and 1 outside, looked up by code. ONNX Runtime
would compare with one member after the other: 220 instead of 125 µs for a row of the flights' 700 trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from platform_assets.product.learned import Learned
from platform_assets.product.learner import TrainingProblem

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from platform_assets.product.inputs import Inputs
    from platform_assets.product.tasks import Task

OPSET, OPSET_ML, IR_VERSION = 20, 5, 10
_AT_MOST = 0
"""Mode of a node of ONNX's TreeEnsemble: `x <= split`."""
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


Sets = dict[tuple[int, str], int]
"""The sets of categories that split, by column and members as LightGBM writes them: each one's place in order."""


@dataclass
class _Nodes:
    """The attributes of TreeEnsemble, filled node by node.

    Attributes:
        sets: each is a column, from number `first_set` on.
    """

    sets: Sets
    first_set: int
    splits: list[float] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    true_leafs: list[int] = field(default_factory=list)
    false_leafs: list[int] = field(default_factory=list)
    null_is_true: list[int] = field(default_factory=list)
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
        if isinstance(node.threshold, str):
            split, feature = 0.5, self.first_set + self.sets[node.split_feature, node.threshold]
        else:
            split, feature = node.threshold, node.split_feature
        # Without a null in training LightGBM reads one as 0.
        is_null_left = node.default_left if node.missing_type == "NaN" else split >= 0.0
        self.splits.append(split)
        self.features.append(feature)
        self.null_is_true.append(int(is_null_left))
        for numbers in (self.true_ids, self.false_ids, self.true_leafs, self.false_leafs):
            numbers.append(0)
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
    from platform_assets.training.learn import codes

    return np.column_stack([inputs.numeric, codes(learned, inputs.categorical).astype(np.float32)])


def forest_of(dump: object) -> Forest:
    """Return what LightGBM's `dump_model` describes.

    Raises:
        TrainingProblem: a tree whose form the graph does not have.
    """
    forest = msgspec.convert(dump, Forest)
    for node in _every_node(forest):
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

    node, outputs = helper.make_node, forest.num_tree_per_iteration
    # Once each: trees split by one set of categories again and again.
    distinct = {(one.split_feature, one.threshold) for one in _every_node(forest) if isinstance(one.threshold, str)}
    sets = {key: place for place, key in enumerate(sorted(distinct))}
    # A tree without splits still names column 0, so there is one even without numbers.
    first, width = ("numeric", len(learned.numeric)) if learned.numeric else ("codes", len(learned.categorical))
    looked_up, tables, outside = _columns_of(sets, learned)
    nodes = [
        node("Cast", [first], ["columns"], to=TensorProto.FLOAT),
        node("Abs", ["columns"], ["sizes"]),
        node("LessOrEqual", ["sizes", "smallest"], ["is_zero"]),
        node("Where", ["is_zero", "zero_float", "columns"], ["read"]),
        node("Cast", ["read"], ["exact"], to=TensorProto.DOUBLE),
        *looked_up,
        node("Concat", ["exact", *outside], ["joined"], axis=1),
        node("TreeEnsemble", ["joined"], ["sums"], domain="ai.onnx.ml", **_attributes(forest, _Nodes(sets, width))),
    ]
    more, constants, shape = _answer(task, outputs, spread)
    constants += [
        *tables,
        numpy_helper.from_array(np.array(ZERO), "smallest"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero_float"),
    ]
    graph = helper.make_graph(
        [*nodes, *more],
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


def _every_node(forest: Forest) -> Iterator[Node]:
    nodes = [tree.tree_structure for tree in forest.tree_info]
    while nodes:
        yield (node := nodes.pop())
        nodes += [child for child in (node.left_child, node.right_child) if child is not None]


def _columns_of(sets: Sets, learned: Learned) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[str]]:
    """Return the nodes that look up whether each code is outside each set, their tables, and the name of the result."""
    from onnx import TensorProto, helper, numpy_helper

    node, nodes, constants, parts = helper.make_node, [], [], []
    for number, column in enumerate(learned.categorical):
        members_of_column = [members for feature, members in sets if feature == len(learned.numeric) + number]
        if members_of_column:
            table = np.ones((len(column.vocabulary) + 1, len(members_of_column)), np.uint8)
            for place, members in enumerate(members_of_column):
                table[[int(code) for code in members.split("||")], place] = 0
            constants += [
                numpy_helper.from_array(table, f"table{number}"),
                numpy_helper.from_array(np.array(number, np.int64), f"column{number}"),
            ]
            nodes += [
                node("Gather", ["codes", f"column{number}"], [f"code{number}"], axis=1),
                node("Gather", [f"table{number}", f"code{number}"], [f"outside{number}"], axis=0),
            ]
            parts.append(f"outside{number}")
    if not parts:
        return [], [], []
    joining = [node("Concat", parts, ["bits"], axis=1), node("Cast", ["bits"], ["outside"], to=TensorProto.DOUBLE)]
    return [*nodes, *joining], constants, ["outside"]


def _attributes(forest: Forest, nodes: _Nodes) -> dict[str, Any]:
    from onnx import numpy_helper

    outputs = forest.num_tree_per_iteration
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
        # In float32, as onnxmltools writes them, 173 of 27,075 rows of a tuned model were up to .004 apart.
        "nodes_splits": tensor(nodes.splits, np.float64),
        "nodes_modes": tensor([_AT_MOST] * len(nodes.splits), np.uint8),
        "nodes_truenodeids": nodes.true_ids,
        "nodes_falsenodeids": nodes.false_ids,
        "nodes_trueleafs": nodes.true_leafs,
        "nodes_falseleafs": nodes.false_leafs,
        "nodes_missing_value_tracks_true": nodes.null_is_true,
        "leaf_targetids": nodes.targets,
        "leaf_weights": tensor(nodes.weights, np.float64),
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
