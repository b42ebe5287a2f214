"""A checkpoint becomes one sealed bundle, with the same digest in any checkout, or no bundle at all."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_assets.base.settings import Settings
from platform_assets.product.contract import contract_of
from platform_assets.product.inputs import Inputs
from platform_assets.serving.answer.model import Model
from platform_assets.store.artifacts import ArtifactStore, canonical, sha256
from platform_assets.store.tables import TableStore
from platform_assets.training import export as graphs
from platform_assets.training import labelled_rows
from platform_assets.training.golden import Golden
from platform_assets.training.histograms import training_sketch
from platform_assets.training.reference import Reference
from platform_assets.training.steps import export, train
from tests.doubles import tiny_product as tiny

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Sealed:
    settings: Settings
    checkpoint: str
    result: dict[str, Any]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("sealed")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    job = train.Job.from_extras(tiny.store(settings))
    checkpoint = train.Training(tiny.SPEC, job, settings, log=lambda line: None).run()["checkpoint"]
    return Sealed(settings, checkpoint, export.run(tiny.SPEC, checkpoint, settings, log=lambda line: None))


def read(sealed: Sealed, part: str) -> labelled_rows.Rows:
    manifest = ArtifactStore(sealed.settings.root).bundle(sealed.result["bundle"]).manifest
    tables = TableStore(sealed.settings.root, "tiny")
    return labelled_rows.read(
        tiny.SPEC.fields, tiny.SPEC.task, tables, keys=manifest[part], **manifest["data"], known_before=None
    )


@pytest.mark.costly
def test_the_bundle_has_the_designed_content_and_nothing_of_this_run(sealed: Sealed) -> None:
    bundle = ArtifactStore(sealed.settings.root).bundle(sealed.result["bundle"])
    assert set(bundle.names) == {
        "model.onnx",
        "weights.safetensors",
        "learned.json",
        "baselines.json",
        "contract.json",
        "sketch.json",
        "reference.json",
        "config.json",
        "golden.json",
    }
    contract = canonical(contract_of(tiny.SPEC))
    assert bundle.read("contract.json") == contract
    assert bundle.manifest["contract_sha256"] == sha256(contract)
    assert set(bundle.manifest) == {
        "format",
        "product",
        "cutoff",
        "contract_sha256",
        "data",
        "training_keys",
        "holdout_keys",
        "known_before",
        "blobs",
    }


@pytest.mark.costly
def test_another_checkout_path_and_process_give_the_same_digest(sealed: Sealed, repository: Path, tmp_path: Path):
    package = tmp_path / "another" / "checkout"
    shutil.copytree(
        repository / "platform_assets", package / "platform_assets", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [
        sys.executable,
        str(repository / "tests/doubles/tiny_step.py"),
        "export",
        sealed.checkpoint,
        str(package),
    ]
    environment = {**os.environ, **sealed.settings.to_environment()}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["bundle"] == sealed.result["bundle"]


def test_the_golden_rows_are_spread_over_the_holdout_and_answered_by_the_graph(sealed: Sealed):
    store = ArtifactStore(sealed.settings.root)
    golden = Golden.from_bytes(store.bundle(sealed.result["bundle"]).read("golden.json"))
    holdout = read(sealed, "holdout_keys").inputs
    assert len(golden.answers) == 16
    numeric, categorical, image = golden.inputs
    for place, row in ((0, 0), (-1, -1)):
        assert np.array_equal(numeric[place], holdout.numeric[row], equal_nan=True)
        assert categorical[place].tolist() == holdout.categorical[row].tolist()
    assert image is None
    Model.load(store, sealed.result["bundle"]).warm()


def test_the_sealed_sketch_covers_every_training_row_and_the_graphs_answers(sealed: Sealed) -> None:
    bundle = ArtifactStore(sealed.settings.root).bundle(sealed.result["bundle"])
    reference = read(sealed, "training_keys")
    learned = graphs.Learned.from_json(json.loads(bundle.read("learned.json")))
    answers = graphs.answers(bundle.read("model.onnx"), reference.inputs, batch=4096)
    assert (
        json.loads(bundle.read("sketch.json"))
        == training_sketch(reference.frame, learned, tiny.SPEC.task, answer=answers).document()
    )
    assert json.loads(bundle.read("sketch.json"))["rows"] == 6 * tiny.ROWS_A_KEY


def test_the_sealed_reference_has_each_training_key_and_adds_up_to_the_sketch(sealed: Sealed) -> None:
    bundle = ArtifactStore(sealed.settings.root).bundle(sealed.result["bundle"])
    reference = Reference.from_json(json.loads(bundle.read("reference.json")))
    sketch = json.loads(bundle.read("sketch.json"))
    assert reference.keys == tiny.TRAINING_KEYS
    for name, column in sketch["numeric"].items():
        assert reference.fields[name].sum(axis=0).tolist() == [*column["counts"], column["nulls"]]
        assert reference.fields[name].sum(axis=1).tolist() == [tiny.ROWS_A_KEY] * 6
    for name, column in sketch["categorical"].items():
        assert reference.fields[name].sum(axis=0).tolist() == [
            *column["counts"].values(),
            column["other"],
            column["nulls"],
        ]


def test_the_sealed_network_can_be_rebuilt_and_is_better_than_a_coin(sealed: Sealed) -> None:
    bundle = ArtifactStore(sealed.settings.root).bundle(sealed.result["bundle"])
    holdout = read(sealed, "holdout_keys").labelled()
    answers = graphs.answers(bundle.read("model.onnx"), holdout.inputs, batch=256)
    is_right = (answers > np.median(answers)) == (holdout.labels == 1)
    assert is_right.mean() > 0.6


@pytest.mark.costly
def test_without_parity_there_is_no_bundle(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: bytes, inputs: Inputs, **_: Any) -> np.ndarray:
        return np.full(len(inputs), 0.5, dtype=np.float32)

    def forbidden(*_: Any) -> str:
        pytest.fail("a bundle was sealed without parity")

    monkeypatch.setattr(graphs, "answers", broken)
    monkeypatch.setattr(ArtifactStore, "write_bundle", forbidden)
    with pytest.raises(graphs.ParityFailure, match="expected a difference of at most 1e-05"):
        export.run(tiny.SPEC, sealed.checkpoint, sealed.settings, log=lambda line: None)


def test_a_checkpoint_of_another_product_is_refused(sealed: Sealed) -> None:
    store = ArtifactStore(sealed.settings.root)
    other = store.put_json({**store.get_json(sealed.checkpoint), "product": "other"})
    with pytest.raises(ValueError, match="belongs to product 'other'; expected 'tiny'"):
        export.run(tiny.SPEC, other, sealed.settings, log=lambda line: None)
