"""A graph of boosted trees answers like LightGBM, to the last leaf."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.product.learner import TrainingProblem
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.training import export, trees
from platform_assets.training.learn import learn

FIELDS = (
    Field(name="holey", dtype="float", description="Null in training.", is_nullable=True),
    Field(name="whole", dtype="float", description="Never null in training.", is_nullable=True),
    Field(name="count", dtype="int", description="A whole number."),
    Field(name="word", dtype="category", description="A category.", is_nullable=True),
)
FLOAT32_MAX = float(np.finfo(np.float32).max)
ROWS = 600
WORDS = [f"w{number:02d}" for number in range(12)]


def fitted(task: Task, seed: int, **settings: Any) -> tuple[Any, Learned, Inputs]:
    import lightgbm  # takes 1.8 CPU seconds, which every process of pytest would pay that collects this file

    stream = np.random.default_rng(seed)
    numeric = stream.normal(size=(ROWS, 3)).astype(np.float32)
    numeric[stream.random(ROWS) < 0.2, 0] = np.nan
    numeric[:, 2] = stream.integers(0, 5, ROWS)
    words = np.array(WORDS, dtype=object)[stream.integers(0, len(WORDS), ROWS)]
    inputs = Inputs(numeric=numeric, categorical=words[:, None])
    learned = learn(inputs, FIELDS)
    signal = np.nan_to_num(inputs.numeric[:, 0]) + (inputs.categorical[:, 0] < "w05") + inputs.numeric[:, 2]
    labels = {"binary": signal > 2, "multi_class": np.clip(signal, 0, 2).astype(int), "regression": signal}[task.kind]
    objective = {"binary": "binary", "multi_class": "multiclass", "regression": "regression"}[task.kind]
    parameters = {"objective": objective, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, "seed": seed}
    if task.kind == "multi_class":
        parameters["num_class"] = 3
    columns = trees.matrix(inputs, learned)
    data = lightgbm.Dataset(columns, labels, categorical_feature=[3], params=parameters | settings)
    return lightgbm.train(parameters | settings, data, 20), learned, inputs


def hostile(booster: Any, inputs: Inputs) -> Inputs:
    """Return rows with nulls everywhere, unknown words, and numbers next to every threshold."""
    numeric, words = inputs.numeric.copy(), inputs.categorical.copy()
    numeric[::5, 1] = np.nan
    words[::7, 0] = "never seen"
    words[::11, 0] = ""
    numeric[1::13, 0] = np.array([1e-40, -1e-35, 1e-35, -1e-34], np.float32)[np.arange(len(numeric[1::13])) % 4]
    thresholds = []
    for tree in trees.forest_of(booster.dump_model()).tree_info:
        nodes = [tree.tree_structure]
        while nodes:
            node = nodes.pop()
            nodes += [child for child in (node.left_child, node.right_child) if child is not None]
            # Only nulls go right of LightGBM's largest threshold, 1.8e308.
            if node.split_feature < 2 and not isinstance(node.threshold, str) and abs(node.threshold) < FLOAT32_MAX:
                thresholds.append((node.split_feature, np.float32(node.threshold)))
    for row, (feature, threshold) in zip(range(0, 3 * len(thresholds), 3), thresholds, strict=False):
        neighbours = (
            np.nextafter(threshold, np.float32(-np.inf)),
            threshold,
            np.nextafter(threshold, np.float32(np.inf)),
        )
        for place, value in enumerate(neighbours):
            numeric[(row + place) % ROWS, feature] = value
    return Inputs(numeric=numeric, categorical=words)


def answers(booster: Any, learned: Learned, inputs: Inputs, task: Task) -> tuple[np.ndarray, np.ndarray]:
    forest = trees.forest_of(booster.dump_model())
    spread = 0.5 if task.kind == "regression" else None
    graph = export.finished(trees.core(forest, learned, task, spread), learned)
    own = np.asarray(booster.predict(trees.matrix(inputs, learned).astype(np.float64)))
    result = export.answers(graph, inputs, batch=64)
    return (result[:, 0] if spread else result), own


@pytest.mark.parametrize("task", [Binary(), MultiClass(classes=("a", "b", "c")), Regression(unit="m")])
@given(seed=st.integers(0, 1_000))
@settings(max_examples=5, deadline=None)
def test_every_row_reaches_the_same_leaf(task: Task, seed: int) -> None:
    booster, learned, inputs = fitted(task, seed)
    graph, own = answers(booster, learned, hostile(booster, inputs), task)
    np.testing.assert_allclose(graph, own, rtol=2e-7, atol=1e-7)


def test_thresholds_in_float32_would_reach_other_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with rounded thresholds it does."""
    booster, learned, inputs = fitted(Binary(), 3)
    wide = trees._Nodes._node

    def rounded(self: Any, node: trees.Node, target: int, share: float) -> int:
        number = wide(self, node, target, share)
        self.splits[number] = float(np.float32(self.splits[number]))
        return number

    monkeypatch.setattr(trees._Nodes, "_node", rounded)
    graph, own = answers(booster, learned, hostile(booster, inputs), Binary())
    assert np.abs(graph - own).max() > 1e-4


def test_constant_trees_and_averages_of_trees_answer_like_lightgbm() -> None:
    for settings_ in ({"min_data_in_leaf": ROWS}, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}):
        booster, learned, inputs = fitted(Binary(), 1, **settings_)
        graph, own = answers(booster, learned, inputs, Binary())
        np.testing.assert_allclose(graph, own, rtol=2e-7, atol=1e-7)


@pytest.mark.costly
def test_a_form_of_trees_without_a_graph_is_refused() -> None:
    booster, _, _ = fitted(Binary(), 1, zero_as_missing=True)
    with pytest.raises(TrainingProblem, match="missing_type 'Zero'"):
        trees.forest_of(booster.dump_model())
