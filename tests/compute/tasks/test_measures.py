"""A measure added to a kind's `measures` or `decisions` appears everywhere without another change."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace as changed

from platform_assets import status
from platform_assets.compute import paired, performance, verdict
from platform_assets.compute.tasks import Binary, Measure, MultiClass, Regression, Task
from platform_assets.records.performance import Window
from platform_assets.report import sections
from platform_assets.report.links import Links
from platform_assets.status.state import Quality
from tests.doubles import recorded

KEYS, ROWS = 4, 40
HIGHEST = Measure(
    name="highest", title="highest answer and more", of=lambda labels, answers: float(np.max(answers) + np.mean(labels))
)
SURE = Measure(name="sure", title="rows counted", is_more_better=None, of=lambda labels, answers: float(labels.size))
NONE = Measure(name="none", title="nothing", of=lambda labels, answers: None)


def quality_of(window: Window) -> Quality:
    members = window.members(("keys", "first", "last", "rows", "model", "quality"))
    return Quality(key=window.last, **members, promises=None, held={}, headline="auc")


class _More:
    """What one measure and one decision more add to a kind of task."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        return (*super().measures, HIGHEST, NONE)

    @property
    def decisions(self) -> tuple[Measure, ...]:
        return (*super().decisions, SURE)


class _MoreBinary(_More, Binary):
    pass


class _MoreClasses(_More, MultiClass):
    pass


class _MoreRegression(_More, Regression):
    pass


def _binary(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    answers = random.uniform(0.1, 0.9, count)
    return _MoreBinary(), {"probability": answers, "label": (random.random(count) < answers).astype(np.int8)}, answers


def _classes(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    task, answers = _MoreClasses(classes=("a", "b", "c")), random.dirichlet([1, 1, 1], count)
    named = {"predicted": [task.classes[index] for index in answers.argmax(1)], "probabilities": answers.tolist()}
    return task, {**named, "label": [task.classes[index] for index in random.integers(0, 3, count)]}, answers


def _numbers(random: np.random.Generator, count: int) -> tuple[Task, dict[str, Any], np.ndarray]:
    value = random.normal(20, 5, count)
    answers = np.stack([value, np.full(count, 2.0)], axis=1)
    return _MoreRegression(), {"value": value, "spread": answers[:, 1], "label": random.normal(value, 2)}, answers


@pytest.mark.parametrize("draw", [_binary, _classes, _numbers])
def test_an_added_measure_appears_everywhere(draw) -> None:
    task, columns, answers = draw(np.random.default_rng(3), KEYS * ROWS)
    names = np.repeat([f"k{number}" for number in range(KEYS)], ROWS)
    frame = pl.DataFrame(columns).with_columns(digest=pl.lit("d"))
    label = task.labels_of(frame["label"])

    assert task.quality(label, answers)["highest"] == HIGHEST.of(label, answers)
    assert task.quality(label, answers)["none"] is None
    assert task.decided(label, answers)["sure"] == KEYS * ROWS
    assert [*task.quality(label, answers)] == [measure.name for measure in task.measures]

    estimates = task.estimates(label, answers, names, confidence=0.9)
    assert [*estimates] == [measure.name for measure in task.shown]
    without = [HIGHEST.of(label[names != key], answers[names != key]) for key in np.unique(names)]
    estimate = paired.jackknife(HIGHEST.of(label, answers), np.array(without), 0.9)
    assert (estimates["highest"].value, estimates["highest"].low) == (estimate.value, estimate.low)
    assert estimates["none"] is None

    by_key = dict(zip(dict.fromkeys(names), frame.iter_slices(ROWS), strict=True))
    for keys in (by_key, {"k0": by_key["k0"]}):
        window = performance.window(keys, "d", task, confidence=0.9)
        assert [*window.quality] == [measure.name for measure in task.shown]
        assert window.quality["sure"].value == len(keys) * ROWS
        assert "highest " in status.words._quality_words(quality_of(window), "daily")

    rows = frame.with_columns(key=pl.Series(names))
    judged = verdict.judge(rows, answers, {"same": answers}, answers, task, max_drop=0.01, confidence=0.95)
    assert judged["models"]["champion"]["highest"] == round(HIGHEST.of(label, answers), verdict.DIGITS)
    assert judged["decided"]["challenger"]["sure"] == KEYS * ROWS

    result = SimpleNamespace(
        spec=replace(recorded.SPEC, task=task),
        state=SimpleNamespace(quality=quality_of(window)),
        links=Links("recorded"),
        noun="day",
        measured={},
        releases=[],
    )
    result.measured = {"k0": changed(performance.measure(by_key["k0"], task), window=window)}
    assert HIGHEST.title in str(sections.quality(result))


def test_every_kind_has_the_measures_that_a_verdict_compares() -> None:
    for task in (Binary(), MultiClass(classes=("a", "b")), Regression()):
        assert [measure.name for measure in task.compared] == [task.headline.name, "log_loss", "ece"]
        assert len({measure.name for measure in task.shown}) == len(task.shown)
        assert task.measures[1].name == "log_loss", "charts and demos show the first two"
