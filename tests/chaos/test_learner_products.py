"""Products of every learner are released, trained again by the sensors, and rolled back; each is one file of its own.

Their files are `tests/doubles/products/live_parts.py` with another model. Runs are Dagster's jobs, trainings and
exports are processes, Bentos are built.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from platform_assets.store.artifacts import sha256
from tests.doubles.checkout import copied

ORIGINAL = Path(__file__).parents[1] / "doubles" / "products" / "live_parts.py"
IMPORT = "import polars as pl\n"
TREES = 'LightGbm(rounds=60, settings={"num_leaves": 15, "min_data_in_leaf": 10, "learning_rate": 0.2})'
FOREST = """
def forest(context: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=context.training.seed)


SPEC ="""
MODELS = {
    "boosted_parts": ("LightGbm", TREES),
    "estimated_parts": ("Estimator", "Estimator(make=forest)"),
    "finished_parts": ("FinishedOnnx", 'FinishedOnnx(place="PLACE", file="given.onnx", sha256="SHA256")'),
    "blended_parts": ("Blend, LightGbm, Network", f"Blend(learners=(Network(model=model), {TREES}))"),
}


def finished(folder: Path) -> dict[str, str]:
    """Write a graph made by hand: a part is the likelier to break the larger the product of its numbers is."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["numeric", "first"], ["width"], axis=1),
            helper.make_node("Gather", ["numeric", "second"], ["weight"], axis=1),
            helper.make_node("Mul", ["width", "weight"], ["product"]),
            helper.make_node("Mul", ["product", "slope"], ["steep"]),
            helper.make_node("Sigmoid", ["steep"], ["answer"]),
        ],
        "by hand",
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N"])],
        [
            helper.make_tensor("first", TensorProto.INT64, [], [0]),
            helper.make_tensor("second", TensorProto.INT64, [], [1]),
            helper.make_tensor("slope", TensorProto.FLOAT, [], [40.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir()
    data = model.SerializeToString()
    (folder / "given.onnx").write_bytes(data)
    return {"place": str(folder), "sha256": sha256(data)}


def written(checkout: Path, name: str, place: dict[str, str]) -> str:
    """Write a product's file; return what differs from the original's."""
    names, model = MODELS[name]
    before = ORIGINAL.read_text(encoding="utf-8")
    assert before.count(IMPORT) == 1
    text = before.replace('name="live_parts"', f'name="{name}"')
    text = text.replace(IMPORT, f"{IMPORT}\nfrom driftline import {names}\n")
    text = text.replace(
        "    model=model,\n",
        f"    model={model.replace('PLACE', place['place']).replace('SHA256', place['sha256'])},\n",
    )
    text = text.replace("retraining=Retraining(decide_every=1,", "retraining=Retraining(decide_every=1, max_age=5,")
    if name == "estimated_parts":
        text = text.replace("\nSPEC =", FOREST, 1)
    assert text.count(name) == 1
    (checkout / "platform_assets" / "products" / f"{name}.py").write_text(text, encoding="utf-8")
    return "\n".join(difflib.unified_diff(before.splitlines(), text.splitlines(), "live_parts.py", f"{name}.py", n=0))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    return copied(repository, tmp_path_factory.mktemp("learners") / "checkout")


@pytest.mark.parametrize("name", MODELS)
def test_a_product_is_released_trained_again_and_rolled_back(name: str, checkout: Path, tmp_path: Path) -> None:
    print(written(checkout, name, finished(tmp_path / "given")))
    command = [sys.executable, "-m", "tests.doubles.learner_loop", name]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "DRIFTLINE_STATE": str(tmp_path / "state")}
    ended = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    (checkout / "platform_assets" / "products" / f"{name}.py").unlink()
    assert ended.returncode == 0, ended.stderr[-8000:]
    print(ended.stdout)
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["runs"].count(f"retrain__{name}") == 2
    first, second, again = result["live"]
    assert first != second
    assert again == first
    _, *shown = re.split(r"^=== ", ended.stdout, flags=re.MULTILINE)
    stages = ("released", "trained again by the sensors", "rolled back")
    for stage, digest, status in zip(stages, result["live"], shown, strict=True):
        assert status.startswith(f"{stage}\n")
        assert digest[:12] in status
