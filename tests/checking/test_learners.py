"""Each mistake in a learner is one sentence of `driftline check`: what came, what was expected, and where to fix it."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from platform_assets.check import fitted, leaks
from platform_assets.check.messages import Line, line_of
from platform_assets.product.learner import Learner
from platform_assets.store.artifacts import sha256
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.estimator import Estimator
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.learners.network import Network
from platform_assets.training.matrix import inputs_of
from tests.doubles import tiny_product as tiny

pytestmark = pytest.mark.slow

KEYS = tiny.KEYS[:2]
BUILT = pl.concat([tiny.feature_rows(key) for key in KEYS])
LABELLED = pl.concat([tiny.outcome_rows(key) for key in KEYS])
FIX = "Fix it in platform_assets/products/tiny.py"


def line(learner: Learner, **changes: Any) -> Line:
    spec = replace(tiny.SPEC, model=learner, **changes)
    return line_of(spec, "model", fitted.check_learner, spec, BUILT, LABELLED)


def assert_refused(learner: Learner, sentence: str, **changes: Any) -> None:
    result = line(learner, **changes)
    assert result.is_problem, result
    assert sentence in result.message
    assert FIX in result.message
    assert "look there for the cause" not in result.message


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"num_leafs": 7},
            "LightGbm.settings has num_leafs; expected names of LightGBM's parameters, such as num_leaves",
        ),
        (
            {"num_leaves": "many"},
            "LightGBM refuses to fit 298 rows of 6 columns: Parameter num_leaves should be of type",
        ),
        ({"fobj": print}, "LightGbm.settings has fobj; expected names"),
    ],
)
def test_settings_that_lightgbm_ignores_or_refuses_are_reported(settings: dict[str, Any], sentence: str) -> None:
    assert_refused(LightGbm(rounds=2, settings=settings), sentence)


@pytest.mark.parametrize("name", ["n_estimators", "random_state", "n_jobs", "application", "early_stopping_rounds"])
def test_other_names_of_what_the_platform_decides_are_refused_when_the_file_is_read(name: str) -> None:
    with pytest.raises(ValueError, match=f"LightGbm.settings has {name}, which the platform, the task or a field"):
        LightGbm(settings={name: 3})


def test_the_names_of_what_the_platform_decides_are_all_that_lightgbm_has() -> None:
    from lightgbm.basic import _ConfigAliases

    from platform_assets.training.learners.boosted import DECIDED

    assert set(DECIDED) == _ConfigAliases.get(*DECIDED)


def _estimator(module: str, name: str, **arguments: Any) -> Estimator:
    def make(context: Any) -> Any:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline

        kind = getattr(__import__(module, fromlist=[name]), name)
        return make_pipeline(SimpleImputer(), kind(**arguments)) if arguments else kind

    return Estimator(make=make)


def _fails(context: Any) -> Any:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("learner", "sentence"),
    [
        (_estimator("sklearn.svm", "SVC"), "returns the class SVC; expected an estimator: SVC()."),
        (
            _estimator("sklearn.svm", "LinearSVC", C=1.0),
            "Pipeline has no predict_proba; a binary task expects a classifier",
        ),
        (
            _estimator("sklearn.linear_model", "Ridge", alpha=1.0),
            "Pipeline has no predict_proba; a binary task expects",
        ),
        (
            _estimator("sklearn.ensemble", "ExtraTreesClassifier", n_estimators=3),
            "Estimator.fit() of tiny returns another core.onnx when it is called again with the same rows and seed",
        ),
        (Estimator(make=_fails), "Estimator.fit() of tiny fails with ZeroDivisionError: division by zero"),
    ],
)
def test_a_class_a_regressor_and_an_unseeded_estimator_are_refused(learner: Estimator, sentence: str) -> None:
    assert_refused(learner, sentence)


def finished_graph(
    folder: Path, change: Callable[[onnx.ModelProto], None], nodes: list[onnx.NodeProto] | None = None
) -> Learner:
    """Return a graph by hand, the sigmoid of the first number, with a change."""
    own = [
        helper.make_node("Gather", ["numeric", "first"], ["column"], axis=1),
        helper.make_node("Sigmoid", ["column"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes or own,
        "by hand",
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("first", TensorProto.INT64, [], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    change(model)
    data = model.SerializeToString()
    (folder / "by_hand.onnx").write_bytes(data)
    return FinishedOnnx(place=str(folder), file="by_hand.onnx", sha256=sha256(data))


def _newer(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _wider(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def _elsewhere(model: onnx.ModelProto) -> None:
    """Put a factor into another file, by a node's attribute instead of an initializer."""
    factor = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    factor.external_data.add(key="location", value="k.bin")
    model.graph.node[1].input[0] = "scaled"
    model.graph.node.insert(1, helper.make_node("Mul", ["column", "k"], ["scaled"]))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=factor))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_newer, "Opset 99 is under development"),
        (_wider, "rows of numeric float32 [N, 4] and categorical [N, 2]: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT"),
        (_elsewhere, "the graph keeps 1 tensors in other files, such as 'k'; expected one file with everything in it"),
        (onnx.ModelProto.Clear, "the file of 0 bytes holds no graph; expected an ONNX model"),
    ],
)
def test_a_file_that_cannot_be_run_says_why(change: Any, sentence: str, tmp_path: Path) -> None:
    assert_refused(finished_graph(tmp_path, change), sentence)


def test_a_graph_whose_answer_is_random_or_needs_several_rows_is_refused(tmp_path: Path) -> None:
    gather = helper.make_node("Gather", ["numeric", "first"], ["column"], axis=1)
    random = [gather, helper.make_node("RandomUniformLike", ["column"], ["answer"])]
    assert_refused(
        finished_graph(tmp_path, lambda _: None, random), "answers the same 256 rows differently in another order"
    )
    squeezed = [
        helper.make_node("Gather", ["numeric", "one"], ["column"], axis=1),
        helper.make_node("Sigmoid", ["column"], ["wide"]),
        helper.make_node("Squeeze", ["wide"], ["answer"]),
    ]
    assert_refused(finished_graph(tmp_path, lambda _: None, squeezed), "ONNX Runtime cannot run the graph on 1 rows of")


@dataclass(frozen=True, kw_only=True)
class Own(Learner):
    graph: bytes = b""

    def fit(self, rows: Any, labels: Any, context: Any) -> dict[str, bytes]:
        return {"nothing.bin": b"nothing"}

    def to_onnx(self, blobs: Any, graphs: Any) -> bytes:
        return self.graph

    def answers(self, blobs: Any, rows: Any, context: Any) -> Any:
        return (1 / (1 + np.exp(-rows.numeric[:, 0]))).astype(np.float32)


def _own(name: str, **methods: Callable[..., Any]) -> type[Own]:
    """Return a learner of one's own with other methods."""
    return type(name, (Own,), methods)


def _fit_on_changed(self: Own, rows: Any, labels: Any, context: Any) -> Any:
    rows.numeric[:, 3] = 7.0
    rows.numeric[np.isnan(rows.numeric)] = 0.0
    return Own.fit(self, rows, labels, context)


FAILS = _own("Fails", fit=lambda *_: 1 / 0)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (_own("FitsNothing", fit=lambda *_: None), "FitsNothing.fit() of tiny returns None: is a `return` missing?"),
        (_own("FitsText", fit=lambda *_: {"nothing.bin": "nothing"}), "FitsText.fit() of tiny returns"),
        (_own("EndsTheScript", fit=lambda *_: sys.exit(3)), "EndsTheScript.fit() of tiny fails with SystemExit: 3"),
        (FAILS, "Fails.fit() of tiny fails with ZeroDivisionError: division by zero"),
        (_own("Changes", fit=_fit_on_changed), "Changes.fit() of tiny changes the rows that it gets: "),
        (
            _own("Forgets", fit=lambda *_: {"nothing.bin": os.urandom(8)}),
            "Forgets.fit() of tiny returns another nothing.bin when it is called again with the same rows and seed",
        ),
        (
            _own("NotANumber", fit=lambda *given: given[-1].progress.note(3, 9, train_loss=float("nan"))),
            "train_loss is nan at step 3 of 9; expected a finite number",
        ),
        (
            _own("ReturnsTheModel", to_onnx=lambda self, *_: onnx.load_from_string(self.graph)),
            "ReturnsTheModel.to_onnx() of tiny returns ModelProto; expected bytes",
        ),
        (
            _own("AnswersWide", answers=lambda *given: np.column_stack([Own.answers(*given)] * 2)),
            "AnswersWide.answers() of tiny returns float32[298, 2] for 298 rows; expected float32[298]",
        ),
        (
            _own("AnswersAList", answers=lambda *given: Own.answers(*given).tolist()),
            "AnswersAList.answers() of tiny returns list for 298 rows; expected float32[298]",
        ),
        (
            _own("AnswersOtherwise", answers=lambda *given: 1 - Own.answers(*given)),
            "expected a difference of at most 1e-05",
        ),
    ],
)
def test_a_learner_of_ones_own_is_refused_by_method(kind: type[Own], sentence: str, tmp_path: Path) -> None:
    finished_graph(tmp_path, lambda _: None)
    assert_refused(kind(graph=(tmp_path / "by_hand.onnx").read_bytes()), sentence)


def test_a_sound_learner_of_ones_own_passes(tmp_path: Path) -> None:
    finished_graph(tmp_path, lambda _: None)
    result = line(Own(graph=(tmp_path / "by_hand.onnx").read_bytes()))
    assert (result.state, result.message[:18]) == ("ok", "Own fits 298 rows ")


def test_the_learner_of_a_blend_that_fails_is_named() -> None:
    trees = LightGbm(rounds=2)
    blend = Blend(learners=(trees, LightGbm(rounds=2, settings={"num_leaves": 1})))
    assert_refused(blend, "is refused on 298 rows: learner 2 of the blend's 2, LightGbm: LightGBM refuses to fit")
    assert_refused(Blend(learners=(trees, FAILS())), "fails with ZeroDivisionError: division by zero")


def test_a_network_whose_loss_is_not_finite_or_that_cannot_be_exported_is_refused() -> None:
    steep = replace(tiny.SPEC.training, learning_rate=1e30)
    assert_refused(Network(model=tiny.model), "the loss is nan at step", training=steep)

    def model(learned: Any, training: Any) -> Any:
        import torch

        class Branching(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = torch.nn.Linear(len(learned.numeric), 1)

            def forward(self, numeric: Any, codes: Any) -> Any:
                answer = self.linear(torch.nan_to_num(numeric))
                return answer if answer.sum().item() > 0 else -answer

        return Branching()

    assert_refused(Network(model=model), "Network.to_onnx() of tiny fails with ")


def test_a_field_that_is_the_label_in_99_of_100_rows_is_told_apart_from_a_good_one() -> None:
    rows = pl.concat([tiny.feature_rows(key) for key in tiny.KEYS])
    inputs, stream = inputs_of(rows, tiny.SPEC.fields), np.random.default_rng(1)
    is_other = stream.random(rows.height) < 0.01
    flag = rows["flag"].to_numpy()
    names = leaks.explaining_fields(inputs, (flag ^ is_other).astype(np.int8), tiny.SPEC.fields, is_number=False)
    assert names == ["flag"]
    noisy = rows["plain"].to_numpy() * 10 + stream.normal(size=rows.height)
    assert leaks.explaining_fields(inputs, noisy, tiny.SPEC.fields, is_number=True) == ["plain"]
    labels = pl.concat([tiny.outcome_rows(key) for key in tiny.KEYS])
    both = rows.join(labels.select("key", "entity", "label"), on=["key", "entity"])
    learned = inputs_of(both, tiny.SPEC.fields)
    assert leaks.explaining_fields(learned, both["label"].to_numpy(), tiny.SPEC.fields, is_number=False) == []
