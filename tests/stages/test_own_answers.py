"""Bundles answer our own features as a service would, for each kind of task."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows
from platform_assets.monitoring.own_answers import OwnAnswers
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Binary, Field, MultiClass, Product, Regression
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models, recorded

pytestmark = pytest.mark.slow

NOON = datetime(2020, 1, 5, 12, tzinfo=UTC)
TEMP = Field(name="temp", dtype="float", description="Warmth.", is_nullable=True)
CARRIER = Field(name="carrier", dtype="category", description="Who.")
PHOTO = Field(name="photo", dtype="image", description="Seen.", shape=models.SHAPE)


def product(task: Any, *fields: Field) -> Product:
    return replace(recorded.SPEC, task=task, fields=fields)


def ours(**columns: list[Any]) -> pl.DataFrame:
    rows = len(next(iter(columns.values())))
    keys = {"entity": [f"e{number}" for number in range(rows)], "asked_at": [NOON] * rows}
    return pl.DataFrame({**keys, **columns}, schema_overrides={"asked_at": answer_rows.MOMENT})


def test_a_regression_bundle_answers_with_value_and_spread(settings: Settings) -> None:
    store, spec = ArtifactStore(settings.root), product(Regression(unit="deg F"), TEMP, CARRIER)
    digest = models.write_bundle(store, document=contract_of(spec))
    rows, left_out = OwnAnswers(spec, store).score(ours(temp=[12.5, None], carrier=["UA", "AA"]), [digest])
    expected = [models.expected_normal(12.5), models.expected_normal(None)]
    assert left_out == {}
    assert rows.select("value", "spread").rows() == pytest.approx(np.array(expected), abs=1e-5)
    assert rows.select("prediction_id", "digest").rows() == [(None, digest)] * 2


def test_an_image_bundle_answers_with_classes(settings: Settings) -> None:
    store, spec = ArtifactStore(settings.root), product(MultiClass(classes=models.CLASSES), PHOTO)
    digest = models.write_bundle(store, document=contract_of(spec))
    rows, _ = OwnAnswers(spec, store).score(ours(photo=[models.PIXELS, bytes(len(models.PIXELS))]), [digest])
    first = models.expected_classes()
    assert rows["probabilities"].to_list()[0] == pytest.approx(first, abs=1e-6)
    assert rows["predicted"][0] == models.CLASSES[int(np.argmax(first))]
    assert rows.schema["probabilities"] == spec.task.answer_types()["probabilities"]


def test_each_bundle_answers_every_row_and_those_that_cannot_are_named(settings: Settings) -> None:
    store, spec = ArtifactStore(settings.root), product(Binary(), TEMP, CARRIER)
    old, new = (models.write_bundle(store, document=contract_of(spec), bias=bias) for bias in (0.0, 1.0))
    narrow = models.write_bundle(store, document=contract_of(product(Binary(), TEMP)))
    other = models.write_bundle(store, document=contract_of(product(Regression(unit=""), TEMP, CARRIER)))
    features = ours(temp=[1.0, 2.0, None], carrier=["UA", "AA", "new to it"])
    digests = [narrow, other, "f" * 64, old, new]
    rows, left_out = OwnAnswers(spec, store).score(features, digests)
    assert rows["digest"].to_list() == [old] * 3 + [new] * 3
    assert (rows["probability"][:3] < rows["probability"][3:]).all()
    assert list(left_out) == [narrow, other, "f" * 64]
    reasons = ("takes other fields", "answers another kind of question", "cannot be loaded")
    assert all(word in reason for word, reason in zip(reasons, left_out.values(), strict=True))
    answers, _ = OwnAnswers(spec, store).score(features, ["f" * 64])
    assert (answers.height, answers.columns) == (0, rows.columns)
