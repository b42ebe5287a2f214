"""Every learner goes from labelled rows to a sealed bundle, to the same bytes, and names what it cannot do."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from platform_assets.base.settings import Settings
from platform_assets.product.learner import Learner, TrainingProblem
from platform_assets.product.spec import Product
from platform_assets.product.tasks import MultiClass, Regression
from platform_assets.serving.answer.model import Model
from platform_assets.store.artifacts import ArtifactStore, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.estimator import Estimator
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.learners.network import Network
from platform_assets.training.steps import export, process, train
from tests.doubles import tiny_product as tiny
from tests.test_documents import COOKBOOK

pytestmark = pytest.mark.slow

BOOSTED = LightGbm(rounds=30, settings={"num_leaves": 7, "min_data_in_leaf": 10}, validation_keys=2, patience=10)


def forest(context: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=20, random_state=context.training.seed)


def linear(context: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def finished_graph(folder: Path, *, inputs: tuple[str, ...] = ("numeric",), output: str = "answer") -> FinishedOnnx:
    """Write a graph made by hand, whose answer is the sigmoid of the first number."""
    types = {"numeric": (TensorProto.FLOAT, 4), "categorical": (TensorProto.STRING, 2), "rows": (TensorProto.FLOAT, 4)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", [inputs[0], "first"], ["column"], axis=1),
            helper.make_node("Sigmoid", ["column"], [output]),
        ],
        "by hand",
        [helper.make_tensor_value_info(name, types[name][0], ["N", types[name][1]]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N"])],
        [helper.make_tensor("first", TensorProto.INT64, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir(exist_ok=True)
    data = model.SerializeToString()
    (folder / "by_hand.onnx").write_bytes(data)
    return FinishedOnnx(place=str(folder), file="by_hand.onnx", sha256=sha256(data))


def spec_of(learner: Learner, **changes: Any) -> Product:
    return replace(tiny.SPEC, model=learner, **changes)


def trained(spec: Product, settings: Settings) -> dict[str, Any]:
    job = train.Job.from_extras(tiny.store(settings))
    result: Any = train.Training(spec, job, settings, log=lambda _: None).run()
    return dict(result)


def learner_of(name: str, folder: Path) -> Learner:
    head, _, text = COOKBOOK["rain_own_loop"].partition("def line")
    path = folder / "own_loop.py"
    path.write_text(f"{head}def line{text.partition('SPEC =')[0]}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("own_loop", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_loop"] = module
    spec.loader.exec_module(module)
    learner: Learner = module.OwnLoop()
    return {
        "network": Network(model=tiny.model, validation_keys=1, patience=2),
        "boosted": BOOSTED,
        "estimator": Estimator(make=linear, validation_keys=1),
        "finished": finished_graph(folder / "given"),
        "blend": Blend(learners=(Network(model=tiny.model), BOOSTED), weights=(0.25, 0.75), validation_keys=1),
        "own": learner,
    }[name]


@pytest.mark.costly
@pytest.mark.parametrize("name", ["network", "boosted", "estimator", "finished", "blend", "own"])
def test_a_learner_gives_the_same_bundle_in_two_stores_and_its_graph_answers_alike(name: str, tmp_path: Path) -> None:
    spec, bundles = spec_of(learner_of(name, tmp_path)), []
    for number in range(2):
        settings = Settings(root=str(tmp_path / f"store{number}"), state=tmp_path / f"state{number}")
        result = trained(spec, settings)
        sealed: Any = export.run(spec, result["checkpoint"], settings, log=lambda _: None)
        bundles.append(sealed["bundle"])
        assert sealed["parity"]["max_abs_difference"] <= 1e-5
        assert sealed["parity"]["rows"] == 300
        assert all(np.isfinite(point["train_loss"]) for point in result["history"])
        assert ("judged_loss" in result["history"][-1]) == (name not in ("finished", "own"))
        again = trained(spec, settings)
        assert (again["is_reused"], again["checkpoint"]) == (True, result["checkpoint"])
    assert bundles[0] == bundles[1]
    model = Model.load(ArtifactStore(settings.root), bundles[0])
    model.warm()
    answers = model.predict(
        np.zeros((3, 4), np.float32), np.array([["red", "acme"], ["", ""], ["new", "new"]], dtype=object)
    )
    assert answers.shape == (3,)


def test_validation_keys_are_not_learned_from_and_patience_ends_a_training(settings: Settings) -> None:
    patient = Network(model=tiny.model, validation_keys=2, patience=1)
    longer = replace(tiny.SPEC.training, epochs=60, learning_rate=0.02)
    history = trained(spec_of(patient, training=longer), settings)["history"]
    losses = [point["judged_loss"] for point in history]
    assert len(history) < 60
    assert losses[-1] >= min(losses[:-1])
    assert losses[:-1] == sorted(losses[:-1], reverse=True)


@pytest.mark.parametrize(
    ("task", "learner"),
    [
        (Regression(unit="m"), LightGbm(rounds=10, validation_keys=1)),
        (MultiClass(classes=("a", "b", "c")), LightGbm(rounds=10)),
        (MultiClass(classes=("a", "b", "c")), Estimator(make=forest)),
    ],
)
def test_other_tasks_are_answered_in_their_shape(task: Any, learner: Learner) -> None:
    from platform_assets.product.learner import Alone, Context
    from platform_assets.training.export import answers, prove_parity
    from platform_assets.training.learn import learn
    from platform_assets.training.learners.graphs import OnnxGraphs
    from platform_assets.training.matrix import inputs_of

    rows = inputs_of(tiny.feature_rows("0001"), tiny.SPEC.fields)
    stream = np.random.default_rng(0)
    labels = stream.integers(0, 3, len(rows)) if task.kind == "multi_class" else stream.normal(size=len(rows))
    learned = learn(rows, tiny.SPEC.fields, target=task.target_of(labels))
    members: Any = {"task": task, "training": tiny.SPEC.training, "learned": learned, "progress": Alone()}
    context = Context(**members, judged=30 if task.kind == "regression" else 0)
    blobs = learner.fit(rows, labels, context)
    graph = learner.to_onnx(blobs, OnnxGraphs(**members))
    own = learner.answers(blobs, rows, context)
    assert prove_parity(own, learned, graph, rows).max_abs_difference <= 1e-5
    task.checked(labels, answers(graph, rows, batch=50))


BLEND = Blend(learners=(LightGbm(rounds=30), Network(model=tiny.model)))
KILLED_BLEND = """
import json, os, signal, sys
from platform_assets.base.settings import Settings
from platform_assets.training.steps import train
from tests.training.test_learners import BLEND, spec_of

where, of_network = sys.argv[2], []
def kill(done, steps):
    of_network.append(steps)
    if done == (7 if where == "network" else of_network[0] + 15):
        os.kill(os.getpid(), signal.SIGKILL)
job = train.Job.from_extras(json.loads(sys.argv[1]))
settings = Settings.from_environment()
train.Training(spec_of(BLEND), job, settings, log=print, ttl_s=1.0, save_every_s=0.0, on_step=kill).run()
"""


@pytest.mark.costly
@pytest.mark.parametrize("where", [pytest.param("network", marks=pytest.mark.thorough), "trees"])
def test_a_killed_blend_resumes_its_network_fits_its_trees_again_and_ends_with_the_same_bytes(
    where: str, settings: Settings, tmp_path: Path, repository: Path
) -> None:
    extras = tiny.store(settings)
    environment = {**os.environ, **settings.to_environment(), "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", KILLED_BLEND, json.dumps(extras), where]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=repository)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    job = train.Job.from_extras(extras)
    result: Any = train.Training(spec_of(BLEND), job, settings, log=lambda _: None, ttl_s=1.0).run()
    ledger = Ledgers(settings.root, "tiny").of(ATTEMPTS)
    vanished, finished = (record for _, record in ledger.records())
    assert (vanished.reason, finished.reason) == ("vanished", "finished")
    assert vanished.cpu_s > 0
    alone = Settings(root=str(tmp_path / "alone"), state=tmp_path / "alone_state")
    whole: Any = train.Training(spec_of(BLEND), train.Job.from_extras(tiny.store(alone)), alone, log=print).run()
    assert whole["checkpoint"] == result["checkpoint"]
    assert [point["epoch"] for point in result["history"]] == [1, 2, 3, 4, 5, 6]
    assert [point for point in result["history"] if point.get("is_blend")] == result["history"][-1:]
    ((_, uninterrupted),) = Ledgers(alone.root, "tiny").of(ATTEMPTS).records()
    of_network = uninterrupted.steps_done - 30
    assert finished.resumed_from_step == (6 if where == "network" else of_network)
    assert vanished.steps_saved <= finished.resumed_from_step, "its last sign of life may be older than its last save"
    assert finished.steps_done == uninterrupted.steps_done


def test_a_request_to_stop_ends_a_fit_of_trees_between_two_rounds(settings: Settings) -> None:
    stop = process.StopRequest()

    def log(line: str) -> None:
        stop.is_set = line.startswith("10 of 30") or stop.is_set

    job = train.Job.from_extras(tiny.store(settings))
    with pytest.raises(process.Preempted):
        train.Training(spec_of(LightGbm(rounds=30)), job, settings, log=log, stop=stop).run()
    ((_, record),) = Ledgers(settings.root, "tiny").of(ATTEMPTS).records()
    assert (record.reason, record.steps_done, record.steps_saved) == ("preempted", 10, 0)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (LightGbm(rounds=5, validation_keys=6), "validation_keys is 6, and the training has 6 keys"),
        (LightGbm(rounds=5, settings={"num_leaves": 1}), "LightGBM refuses"),
        (Estimator(make=lambda _: object()), "has no fit"),
    ],
)
def test_what_a_learner_cannot_do_is_reported_in_one_sentence(learner: Learner, message: str, settings: Settings):
    with pytest.raises(TrainingProblem, match=message):
        trained(spec_of(learner), settings)


@pytest.mark.costly
def test_a_finished_file_that_cannot_be_served_is_named(tmp_path: Path, settings: Settings) -> None:
    sound = finished_graph(tmp_path / "given")

    def assert_refused(learner: FinishedOnnx, message: str) -> None:
        with pytest.raises(TrainingProblem, match=message):
            trained(spec_of(learner), settings)

    assert_refused(replace(sound, file="other.onnx"), r"other.onnx is not in .*; expected an ONNX file")
    assert_refused(replace(sound, place=str(tmp_path / "typo")), "by_hand.onnx is not in .*typo; expected an ONNX file")
    assert not (tmp_path / "typo").exists()
    assert_refused(replace(sound, sha256="0" * 64), "expected 0{64}")
    assert_refused(
        finished_graph(tmp_path / "named", inputs=("rows",)),
        "inputs rows .*; expected some of numeric, categorical, image",
    )
    assert_refused(finished_graph(tmp_path / "answered", output="chance"), "the outputs chance")
    broken = replace(sound, sha256=sha256(b"no graph"))
    (tmp_path / "given" / "by_hand.onnx").write_bytes(b"no graph")
    assert_refused(broken, "the file is not ONNX")
    model = onnx.ModelProto()
    model.CopyFrom(onnx.load(str(tmp_path / "named" / "by_hand.onnx")))
    model.graph.input[0].name = model.graph.node[0].input[0] = "numeric"
    model.graph.node[1].output[0] = model.graph.output[0].name = "answer"
    model.graph.node[1].op_type = "NoSuchOperator"
    (tmp_path / "named" / "by_hand.onnx").write_bytes(data := model.SerializeToString())
    assert_refused(replace(sound, place=str(tmp_path / "named"), sha256=sha256(data)), "NoSuchOperator")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    (tmp_path / "named" / "by_hand.onnx").write_bytes(data := model.SerializeToString())
    assert_refused(
        replace(sound, place=str(tmp_path / "named"), sha256=sha256(data)), "tensors in other files, such as 'first'"
    )


def test_wrong_configurations_are_refused_when_the_file_is_read() -> None:
    for make, message in (
        (lambda: LightGbm(settings={"objective": "binary", "seed": 1}), "settings has objective, seed"),
        (lambda: LightGbm(patience=3), "patience=3 and validation_keys=0"),
        (lambda: LightGbm(validation_keys=-1), "validation_keys is -1"),
        (lambda: Network(model=tiny.model, patience=2), "with keys that judge the epochs"),
        (lambda: Blend(learners=(BOOSTED,)), "at least two learners"),
        (lambda: Blend(learners=(BOOSTED, BOOSTED), weights=(0.5, 0.6)), "add up to 1"),
        (lambda: FinishedOnnx(place="x", file="y", sha256="12"), "64 hexadecimal digits"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
