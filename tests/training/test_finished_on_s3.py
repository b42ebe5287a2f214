"""A finished ONNX file is read from a real S3 server by digest; what is wrong there is one sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest

from platform_assets.base.settings import Settings
from platform_assets.product.learner import TrainingProblem
from platform_assets.store import objects
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.steps import export
from tests.doubles.s3_server import STRANGER, S3Server
from tests.training.test_learners import finished_graph, spec_of, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def learner(s3_root: str, tmp_path: Path) -> FinishedOnnx:
    in_a_folder = finished_graph(tmp_path / "given")
    data = (tmp_path / "given" / in_a_folder.file).read_bytes()
    obstore.put(objects.open_store(s3_root), in_a_folder.file, data)
    return replace(in_a_folder, place=s3_root)


def test_a_file_in_a_bucket_is_trained_exported_and_equal(learner: FinishedOnnx, settings: Settings) -> None:
    spec = spec_of(learner)
    result = trained(spec, settings)
    sealed: Any = export.run(spec, result["checkpoint"], settings, log=lambda _: None)
    assert sealed["parity"]["max_abs_difference"] == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"file": "absent.onnx"},
            r"absent.onnx is not in s3://\S+; expected an ONNX file. Fix the product's FinishedOnnx",
        ),
        (
            {"place": "s3://nowhere"},
            "product's FinishedOnnx: the bucket s3://nowhere does not exist; create it, or fix its",
        ),
    ],
)
def test_a_missing_file_or_bucket_is_reported_in_one_sentence(
    changes: dict[str, str], message: str, learner: FinishedOnnx, settings: Settings
) -> None:
    with pytest.raises(TrainingProblem, match=message) as caught:
        trained(spec_of(replace(learner, **changes)), settings)
    assert "\n" not in str(caught.value)


def test_a_key_without_rights_is_reported_in_one_sentence(
    learner: FinishedOnnx, settings: Settings, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment(access_key=STRANGER).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingProblem, match=r"s3://driftline refuses our key \(AccessDenied\); check AWS_") as caught:
        trained(spec_of(learner), settings)
    assert "\n" not in str(caught.value)
