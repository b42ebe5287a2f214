"""Trainings outside of the loop leave a record each and touch nothing else; they are listed and sorted."""

import io
from dataclasses import replace

import msgspec
import polars as pl
import pytest
from rich.console import Console

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.operations import status
from platform_assets.operations.experiments import runs, train
from platform_assets.operations.status.state import Rare
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import TRAININGS
from platform_assets.store.tables import TableStore
from platform_assets.training.changes import changed
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.network import Network, learner_of
from tests.doubles import documents
from tests.doubles import tiny_product as tiny

CHANGES = (["epochs=3"], ["epochs=4", "settings.widths=[8, 8]"], ["epochs=3"])


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> ProductStore:
    folder = tmp_path_factory.mktemp("experiments")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    tiny.store(settings)
    outcomes = {key: pl.DataFrame({"key": [key], "known_at": [tiny.KNOWN_AT]}) for key in tiny.KEYS}
    for stage in ("validated_facts", "validated_outcomes"):
        TableStore(settings.root, "tiny").replace(stage, outcomes, inputs={key: {} for key in outcomes}, code="0")
    product, console = ProductStore(tiny.SPEC, settings), Console(file=io.StringIO())
    for changes in CHANGES:
        train.run(product, tiny.CUTOFF, changes, console)
    return product


@pytest.mark.costly
def test_each_training_is_recorded_once_and_nothing_is_released(product: ProductStore) -> None:
    listed = runs.on_record(product)
    assert [run.number for run in listed] == [2, 1]
    newest = listed[0].training
    assert (newest.purpose, newest.learner, newest.cutoff) == ("experiment", "Network", tiny.CUTOFF)
    assert newest.parameters["training.epochs"] == 4
    assert newest.parameters["training.settings.widths"] == "(8, 8)"
    assert newest.parameters["learner.model"] == "model"
    assert [point["epoch"] for point in newest.curve] == [1, 2, 3, 4]
    assert 0.5 < (newest.quality["auc"] or 0.0) <= 1.0
    assert (newest.training_keys, newest.holdout_keys, newest.rows) == (6, 2, 6 * 149)
    assert Ledgers(product.settings.root, tiny.SPEC.name).newest_number(naming.RELEASES) == 0
    assert product.tables.records("checkpoint") == {}


def test_trainings_are_sorted_and_listed(product: ProductStore) -> None:
    listed, task = runs.on_record(product), product.spec.task
    by_auc = runs.sorted_by(listed, "auc", task)
    assert [run.value("auc") for run in by_auc] == sorted((run.value("auc") for run in listed), reverse=True)
    assert [run.number for run in runs.sorted_by(listed, "log_loss", task)] == [
        run.number for run in sorted(listed, key=lambda run: run.training.quality["log_loss"] or 0.0)
    ]
    out = io.StringIO()
    Console(file=out, width=200).print(runs.as_table("tiny", listed, task))
    assert out.getvalue().count("experiment") == 2


def test_a_wrong_column_is_named(product: ProductStore) -> None:
    listed = runs.on_record(product)
    with pytest.raises(ValueError, match="--sort is 'speed'; expected one of auc"):
        runs.sorted_by(listed, "speed", product.spec.task)


def test_average_precision_heads_lists_and_the_status_of_a_rare_class(product: ProductStore) -> None:
    listed, task = runs.on_record(product), product.spec.task
    assert runs.columns(task, listed)[0] == "auc"
    quality = {"average_precision": 0.31, "base_rate": 0.04, **listed[0].training.quality}
    record = msgspec.structs.replace(listed[0].training, quality=quality, fingerprint="r" * 64, checkpoint="c" * 64)
    rare = [replace(listed[0], training=record), listed[1]]
    assert runs.columns(task, rare)[:2] == ("average_precision", "auc")
    assert runs.sorted_by(rare, "average_precision", task) == rare
    assert status.of_product(product).rare is None
    ledgers = Ledgers(product.settings.root, "tiny")
    ledgers.append("releases", documents.release(cutoff=tiny.CUTOFF, digest="b" * 64, product="tiny"))
    product.tables.record(
        "onnx", tiny.CUTOFF, content_digest="b" * 64, inputs={"checkpoint": "c" * 64}, code="0", notes={}
    )
    assert status.of_product(product).rare is None
    ledgers.of(TRAININGS).append(record)
    state = status.of_product(product)
    assert state.rare == Rare(average_precision=0.31, base_rate=0.04)
    line = "average precision 0.3100 on the live model's holdout; 0.0400 without skill (the share of positives)"
    assert f"  rare       {line}" in status.as_text(state).splitlines()


def test_settings_reach_training_learner_and_parts_of_a_blend() -> None:
    blend = Blend(learners=(Network(model=tiny.model), LightGbm(rounds=9)), weights=(0.5, 0.5))
    spec = changed(
        replace(tiny.SPEC, model=blend),
        ["seed=7", "training.batch_size=8", "learner.learners.1.settings.num_leaves=5", "learner.weights=[0.25, 0.75]"],
    )
    assert (spec.training.seed, spec.training.batch_size) == (7, 8)
    assert learner_of(spec).learners[1].settings == {"num_leaves": 5}  # type: ignore[attr-defined]
    assert learner_of(spec).weights == (0.25, 0.75)  # type: ignore[attr-defined]
    assert learner_of(spec).learners[0] == blend.learners[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "expected name=value"),
        ("epoch=3", "Training has no 'epoch'; expected one of profile, seed"),
        ("learner.rounds=3", "Network has no 'rounds'"),
        ("epochs=-1", "Training.epochs is -1; expected more than 0"),
        ("epochs.more=1", "nothing below 'more'"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(tiny.SPEC, [setting])
