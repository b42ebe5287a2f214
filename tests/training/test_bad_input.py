"""What a training cannot use is one sentence, the attempt has it, and no checkpoint is on record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import polars as pl
import pytest

from platform_assets.base.settings import Settings
from platform_assets.product.learner import TrainingProblem
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS
from platform_assets.store.tables import TableStore
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.learners.network import learner_of
from platform_assets.training.steps import train
from tests.doubles import tiny_product as tiny
from tests.training.test_learners import finished_graph, spec_of

TREES = LightGbm(rounds=3)


def assert_refused(spec: Product, settings: Settings, message: str, **changes: Any) -> None:
    extras = tiny.store(settings)
    for stage, change in changes.items():
        make = {"features": tiny.feature_rows, "outcomes": tiny.outcome_rows}[stage]
        frames = {key: change(make(key), key) for key in tiny.KEYS}
        records = TableStore(settings.root, "tiny").replace(stage, frames, inputs={key: {} for key in frames}, code="1")
        extras[stage] = {key: record.content_digest for key, record in records.items()}
    job = train.Job.from_extras(extras)
    with pytest.raises((TrainingProblem, ValueError), match=message) as raised:
        train.Training(spec, job, settings, log=lambda _: None).run()
    assert "\n" not in str(raised.value)
    ledgers = Ledgers(settings.root, "tiny")
    assert [record.reason for _, record in ledgers.of(ATTEMPTS).records()] == ["code"]
    assert ledgers.read("checkpoints", job.fingerprint) is None
    assert ledgers.newest_number("trainings") == 0


def test_a_label_leaked_into_the_features_is_refused(settings: Settings) -> None:
    def flag_is_the_label(rows: pl.DataFrame, key: str) -> pl.DataFrame:
        return rows.with_columns(tiny.feature_rows(key)["flag"].cast(pl.Int8).head(rows.height).alias("label"))

    message = "the field flag alone determines the label of all 894 training rows; expected only what is known before"
    assert_refused(spec_of(TREES), settings, message, outcomes=flag_is_the_label)


def test_a_loss_that_is_not_finite_names_step_and_columns(settings: Settings) -> None:
    spec = replace(tiny.SPEC, training=replace(tiny.SPEC.training, learning_rate=1e30))
    assert_refused(
        spec, settings, r"the loss is \S+ at step \d+ of 70; .* \w+ reaches .* standard deviations from its mean"
    )


@pytest.mark.costly
def test_a_column_without_values_is_reported_and_does_not_stop_the_training(settings: Settings) -> None:
    extras = tiny.store(settings)
    frames = {key: tiny.feature_rows(key).with_columns(holey=pl.lit(None, pl.Float64)) for key in tiny.KEYS}
    records = TableStore(settings.root, "tiny").replace(
        "features", frames, inputs={key: {} for key in frames}, code="1"
    )
    extras["features"] = {key: record.content_digest for key, record in records.items()}
    for learner in (TREES, learner_of(tiny.SPEC)):
        lines: list[str] = []
        job = train.Job.from_extras({**extras, "fingerprint": sha256(repr(learner).encode())})
        train.Training(spec_of(learner), job, settings, log=lines.append).run()
        assert "holey is null in all of them, so nothing is learned from it; look at features()." in lines


def test_a_blend_of_different_tasks_is_refused(tmp_path: Path, settings: Settings) -> None:
    def part(name: str, change: Any) -> FinishedOnnx:
        learner = finished_graph(tmp_path / name)
        model = onnx.load(str(tmp_path / name / "by_hand.onnx"))
        change(model.graph)
        data = model.SerializeToString()
        (tmp_path / name / "by_hand.onnx").write_bytes(data)
        return replace(learner, sha256=sha256(data))

    def classes(graph: onnx.GraphProto) -> None:
        del graph.node[0]
        graph.node[0].op_type, graph.node[0].input[0] = "Softmax", "numeric"
        del graph.output[0].type.tensor_type.shape.dim[:]

    def log_odds(graph: onnx.GraphProto) -> None:
        graph.node[1].op_type = "Identity"

    blend = Blend(learners=(TREES, part("classes", classes)))
    assert_refused(
        spec_of(blend), settings, r"answers 256 rows with float32\[256, 4\].*expected float32\[256\] .* binary task"
    )
    blend = Blend(learners=(TREES, part("log_odds", log_odds)))
    elsewhere = settings.replace(root=str(tmp_path / "elsewhere"))
    assert_refused(
        spec_of(blend), elsewhere, r"^learner 2 of .* FinishedOnnx: by_hand\.onnx in .*/log_odds: .* outside \[0, 1\]"
    )
