"""The newest release answers; one that cannot be served is named, and the previous model stays live."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_assets.base import naming
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.model import Model
from platform_assets.serving.follow import follower as follow
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.training.sealed import ModelProblem
from tests.doubles import models


def release(app: Any, digest: str, document: dict[str, Any] | None = None, **changes: Any) -> int:
    contract = Contract(document or app.document).sha256
    return models.release(str(app.folder / "store"), digest, contract_sha256=contract, **changes)


def damage(store: ArtifactStore, sha256: str) -> None:
    path = Path(store.root, naming.blob_path(sha256))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_release_and_a_rollback_are_followed(app: Any) -> None:
    first, second = (models.write_bundle(app.store, bias=bias) for bias in (1.0, 2.0))
    for number, (digest, bias) in enumerate(((first, 1.0), (second, 2.0), (first, 1.0)), start=1):
        assert release(app, digest) == number
        assert app.follower.look()
        answer = app.predict(models.row())[1]
        assert (answer["digest"], answer["probability"]) == (digest, pytest.approx(models.expected(bias), abs=1e-6))
        assert app.records()[-1]["release"] == number
        assert not app.follower.look()
    assert app.follower.problem is None


def test_another_contract_is_reported_and_not_loaded(app: Any) -> None:
    document = models.contract(task=models.binary(0.9))
    release(app, models.write_bundle(app.store, bias=1.0, document=document), document)
    assert not app.follower.look()
    status, state = app.ready()
    assert (status, state["digest"], state["latest_release"]) == (200, app.fallback_digest, 1)
    assert "roll out the Bento that was built for the release" in state["problem"]
    assert "driftline_release_has_problem 1.0" in app.metrics()


def test_a_bundle_with_another_contract_than_its_release_is_refused(app: Any) -> None:
    release(app, models.write_bundle(app.store, document=models.contract(task=models.binary(0.9))))
    assert not app.follower.look()
    assert "build a Bento for it" in app.follower.problem


def test_a_tampered_bundle_is_refused_and_loaded_when_repaired(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = models.write_bundle(app.store, bias=1.0)
    release(app, good)
    app.follower.look()
    bad = models.write_bundle(app.store, bias=2.0)
    graph = app.store.bundle(bad).manifest["blobs"]["model.onnx"]["sha256"]
    damage(app.store, graph)
    release(app, bad)
    assert not app.follower.look()
    assert app.predict(models.row())[1]["digest"] == good
    assert f"release 2 is refused: blob {graph} was changed" in app.follower.problem
    damage(app.store, graph)
    assert not app.follower.look()
    monkeypatch.setattr(follow.time, "monotonic", lambda: float("inf"))
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (bad, None)


@pytest.mark.parametrize("name", ["model.onnx", "contract.json", "learned.json", "golden.json"])
def test_every_used_blob_is_verified_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(str(tmp_path))
    digest = models.write_bundle(store, golden=models.golden_of(models.contract(), 0.0))
    damage(store, store.bundle(digest).manifest["blobs"][name]["sha256"])
    with pytest.raises(ArtifactProblem, match="was changed"):
        Model.load(store, digest)


def test_only_what_is_used_of_a_bundle_is_read(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    digest = models.write_bundle(store)
    blobs = store.bundle(digest).manifest["blobs"]
    for name in set(blobs) - {"model.onnx", "contract.json", "learned.json", "golden.json"}:
        (tmp_path / naming.blob_path(blobs[name]["sha256"])).unlink(missing_ok=True)
    Model.load(store, digest).warm()


def test_an_invalid_graph_or_one_that_does_not_fit_the_contract_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    with pytest.raises(ModelProblem, match="ONNX Runtime rejects"):
        Model.load(store, models.write_bundle(store, graph=b"no graph"))
    narrow = models.logistic(models.contract(models.FIELDS[1:]), 0.0)
    with pytest.raises(ModelProblem, match="its contract has 6 numeric and 2 categorical"):
        Model.load(store, models.write_bundle(store, graph=narrow))


@pytest.mark.parametrize(
    ("document", "graph", "message"),
    [
        (models.contract(), models.logistic(models.contract(), float("nan")), "expected float32"),
        (models.image_contract(), models.softmax(models.image_contract(), float("nan")), "numbers between 0 and 1"),
        (
            models.regression_contract(),
            models.normal(models.regression_contract(), 0.0, spread=-1.0),
            "spread above 0",
        ),
        (models.regression_contract(), models.normal(models.regression_contract(), float("inf")), "finite value"),
    ],
)
def test_a_model_with_invalid_answers_of_its_kind_is_refused_at_warm_up(
    tmp_path: Path, document: dict[str, Any], graph: bytes, message: str
) -> None:
    store = ArtifactStore(str(tmp_path))
    model = Model.load(store, models.write_bundle(store, document=document, graph=graph))
    with pytest.raises(ModelProblem, match=message):
        model.warm()


def test_a_graph_of_another_kind_or_image_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    other = models.regression_contract(task={"kind": "multi_class", "classes": ["a", "b", "c"]})
    graph = models.normal(other, 0.0)
    with pytest.raises(ModelProblem, match=r"float32\[1, 2\].*expected float32\[1, 3\], 3 numbers between 0 and 1"):
        Model.load(store, models.write_bundle(store, document=other, graph=graph)).warm()
    wide = models.image_contract((models.field("photo", "image", shape=[4, 6]),))
    graph, golden = models.softmax(models.image_contract(), 0.0), models.golden_of(models.image_contract(), 0.0)
    with pytest.raises(ModelProblem, match=r"has the input 'image'.*an image \[4, 6\]"):
        Model.load(store, models.write_bundle(store, document=wide, graph=graph, golden=golden))
    renamed = models.logistic(models.contract(), 0.0).replace(b"answer", b"chance")
    with pytest.raises(ModelProblem, match="the graph's outputs are chance; expected 'answer'"):
        Model.load(store, models.write_bundle(store, graph=renamed))


def test_a_graph_with_an_image_input_is_not_run_without_an_image(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    model = Model.load(store, models.write_bundle(store, document=models.image_contract()))
    with pytest.raises(ModelProblem, match="needs an image and got none"):
        model.predict(np.zeros((1, 0), np.float32), np.zeros((1, 0), object))


def test_a_pinned_bundle_follows_no_releases(make: Callable[..., Any], tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    pinned, other = models.write_bundle(store, bias=1.0), models.write_bundle(store, bias=2.0)
    app = make(pinned=pinned, starts=True)
    assert app.follower.live is None
    release(app, other)
    assert app.follower.look()
    assert not app.follower.look()
    assert (app.follower.live.model.digest, app.follower.live.source) == (pinned, "pinned")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("root", "variables", "sentence"),
    [
        ("s3://driftline-absent/store", {}, "the bucket s3://driftline-absent does not exist; create it"),
        ("", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://driftline refuses our key; check AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_store_that_is_not_ours_is_named_in_readiness(
    app: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch, root: str, variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    follower = follow.Follower(
        app.contract, root or s3_root, fallback=None, fallback_digest="", pinned=None, load_s=5.0
    )
    follower.look()
    assert follower.problem is not None
    assert sentence in follower.problem and (root or s3_root) in follower.problem
