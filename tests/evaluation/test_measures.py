"""A measure added to a kind's measures appears everywhere without another change."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace as changed

from platform_assets.evaluation import paired, verdict
from platform_assets.evaluation.measures.binary import BinaryMeasures
from platform_assets.evaluation.measures.measure import Measure
from platform_assets.evaluation.measures.multi_class import MultiClassMeasures
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.evaluation.measures.regression import RegressionMeasures
from platform_assets.monitoring import measured
from platform_assets.operations import status
from platform_assets.operations.report import sections
from platform_assets.operations.status.state import Quality
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.store.records.performance import Window
from tests.doubles import recorded

KEYS, ROWS = 4, 40
HIGHEST = Measure(
    name="highest",
    title="highest answer and more",
    value=lambda labels, answers: float(np.max(answers) + np.mean(labels)),
)
SURE = Measure(name="sure", title="rows counted", is_more_better=None, value=lambda labels, answers: float(labels.size))
NONE = Measure(name="none", title="nothing", value=lambda labels, answers: None)


def quality_of(window: Window) -> Quality:
    members = window.members(("keys", "first", "last", "rows", "model", "quality"))
    return Quality(key=window.last, **members, promises=None, held={}, headline="auc")


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (BinaryMeasures, MultiClassMeasures, RegressionMeasures):
        for name, added in (("of_answers", (HIGHEST, NONE)), ("of_decisions", (SURE,))):
            before = getattr(kind, name).fget
            monkeypatch.setattr(kind, name, property(lambda self, before=before, added=added: (*before(self), *added)))


def _binary(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    answers = random.uniform(0.1, 0.9, count)
    return Binary(), {"probability": answers, "label": (random.random(count) < answers).astype(np.int8)}, answers


def _classes(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    task, answers = MultiClass(classes=("a", "b", "c")), random.dirichlet([1, 1, 1], count)
    named = {"predicted": [task.classes[index] for index in answers.argmax(1)], "probabilities": answers.tolist()}
    return task, {**named, "label": [task.classes[index] for index in random.integers(0, 3, count)]}, answers


def _numbers(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    value = random.normal(20, 5, count)
    answers = np.stack([value, np.full(count, 2.0)], axis=1)
    return Regression(), {"value": value, "spread": answers[:, 1], "label": random.normal(value, 2)}, answers


@pytest.mark.usefixtures("more")
@pytest.mark.parametrize("draw", [_binary, _classes, _numbers])
def test_an_added_measure_appears_everywhere(draw) -> None:
    task, columns, answers = draw(np.random.default_rng(3), KEYS * ROWS)
    measures = measures_of(task)
    names = np.repeat([f"k{number}" for number in range(KEYS)], ROWS)
    frame = pl.DataFrame(columns).with_columns(digest=pl.lit("d"))
    label = task.labels_of(frame["label"])

    assert measures.quality(label, answers)["highest"] == HIGHEST.value(label, answers)
    assert measures.quality(label, answers)["none"] is None
    assert measures.decided(label, answers)["sure"] == KEYS * ROWS
    assert [*measures.quality(label, answers)] == [measure.name for measure in measures.of_answers]

    estimates = measures.estimates(label, answers, names, confidence=0.9)
    assert [*estimates] == [measure.name for measure in measures.every]
    without = [HIGHEST.value(label[names != key], answers[names != key]) for key in np.unique(names)]
    estimate = paired.jackknife(HIGHEST.value(label, answers), np.array(without), 0.9)
    assert (estimates["highest"].value, estimates["highest"].low) == (estimate.value, estimate.low)
    assert estimates["none"] is None

    by_key = dict(zip(dict.fromkeys(names), frame.iter_slices(ROWS), strict=True))
    for keys in (by_key, {"k0": by_key["k0"]}):
        window = measured.window(keys, "d", measures, confidence=0.9)
        assert [*window.quality] == [measure.name for measure in measures.every]
        assert window.quality["sure"].value == len(keys) * ROWS
        assert "highest " in status.text.describe_quality(quality_of(window), "daily")

    rows = frame.with_columns(key=pl.Series(names))
    judged = verdict.judge(rows, answers, {"same": answers}, answers, measures, max_drop=0.01, confidence=0.95)
    assert judged["models"]["champion"]["highest"] == round(HIGHEST.value(label, answers), verdict.DIGITS)
    assert judged["decided"]["challenger"]["sure"] == KEYS * ROWS

    result = SimpleNamespace(
        spec=replace(recorded.SPEC, task=task),
        quality=quality_of(window),
        noun="day",
        measured={},
        releases=[],
    )
    result.measured = {"k0": changed(measured.measure(by_key["k0"], measures), window=window)}
    assert HIGHEST.title in str(sections.quality(result))


def test_every_kind_has_the_measures_that_a_verdict_compares() -> None:
    for task in (Binary(), MultiClass(classes=("a", "b")), Regression()):
        measures = measures_of(task)
        assert [measure.name for measure in measures.compared] == [measures.headline.name, "log_loss", "ece"]
        assert len({measure.name for measure in measures.every}) == len(measures.every)
        assert measures.of_answers[1].name == "log_loss", "charts and demos show the first two"


def test_a_kind_without_measures_is_named() -> None:
    with pytest.raises(TypeError, match="expected Binary, MultiClass or Regression"):
        measures_of(Task())
