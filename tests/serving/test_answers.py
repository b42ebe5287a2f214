"""Each kind of task answers over HTTP, has its columns in the log, and can be read back; bad answers are refused."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from platform_assets.serving.answer import answers
from tests.doubles import models


class _FixedOutputs:
    """A stand-in for a model whose graph was valid when it was warmed up and no longer is."""

    def __init__(self, model: Any, outputs: Any) -> None:
        self._model, self._outputs = model, np.array(outputs, np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, *_: Any) -> Any:
        return self._outputs


def _near(number: float) -> Any:
    return pytest.approx(number, abs=1e-6)


def test_a_multi_class_answer_has_every_class_and_the_likeliest(make: Callable[..., Any]) -> None:
    app = make(models.image_contract(), starts=True)
    status, answer = app.predict(models.image_row())
    expected = models.expected_classes()
    best = max(range(3), key=expected.__getitem__)
    assert status == 200
    assert answer == {
        "prediction_id": answer["prediction_id"],
        "digest": app.fallback_digest,
        "entity": "item-1",
        "predicted": models.CLASSES[best],
        "probability": answer["probabilities"][models.CLASSES[best]],
        "probabilities": dict(zip(models.CLASSES, map(_near, expected), strict=True)),
    }
    assert list(answer["probabilities"]) == list(models.CLASSES)
    numbers = answers.numbers(app.document["task"], answer)
    assert numbers == pytest.approx(expected, abs=1e-6)
    (record,) = app.records()
    assert (record["predicted"], record["probabilities"]) == (answer["predicted"], numbers)
    assert "probability" not in record
    assert answers.describe(answer) == answers.describe(record) == f"is {answer['predicted']} ({max(expected):.2f})"


def test_a_regression_answer_has_its_spread_and_interval(make: Callable[..., Any]) -> None:
    app = make(models.regression_contract(), starts=True)
    status, rows = app.predict([models.regression_row(), models.regression_row({"temp": None})])
    assert status == 200
    for answer, temp in zip(rows, (12.5, None), strict=True):
        value, spread = models.expected_normal(temp)
        assert answer == {
            "prediction_id": answer["prediction_id"],
            "digest": app.fallback_digest,
            "entity": "2013-03-01_UA_1_EWR",
            "value": value,
            "spread": spread,
            "low": pytest.approx(value - 3.2897072539),
            "high": pytest.approx(value + 3.2897072539),
        }
        assert answers.numbers(app.document["task"], answer) == [value, spread]
    assert [(record["value"], record["spread"]) for record in app.records()] == [(61.25, 2.0), (60.0, 2.0)]
    assert answers.describe(rows[0]) == "61.2, within 58.0 to 64.5 nine times in ten"
    assert [answers.describe(record) for record in app.records()] == [answers.describe(answer) for answer in rows]


def test_a_binary_answer_is_read_back(app: Any) -> None:
    answer = app.predict(models.row())[1]
    assert answers.numbers(app.document["task"], answer) == [answer["probability"]]
    assert answers.describe({**answer, "probability": 0.21349}) == "with probability 0.213"
    assert [answers.describe(record) for record in app.records()] == [answers.describe(answer)]


@pytest.mark.parametrize(
    ("document", "row", "outputs"),
    [
        (models.contract(), models.row(), [math.nan]),
        (models.contract(), models.row(), [1.1]),
        (models.image_contract(), models.image_row(), [[0.5, 0.5, math.nan]]),
        (models.image_contract(), models.image_row(), [[0.5, 0.5, 0.1]]),
        (models.image_contract(), models.image_row(), [[1.2, -0.1, -0.1]]),
        (models.image_contract(), models.image_row(), [[0.0, 0.0, 0.0]]),
        (models.regression_contract(), models.regression_row(), [[math.nan, 1.0]]),
        (models.regression_contract(), models.regression_row(), [[math.inf, 1.0]]),
        (models.regression_contract(), models.regression_row(), [[1.0, 0.0]]),
        (models.regression_contract(), models.regression_row(), [[1.0, math.nan]]),
        (models.regression_contract(), models.regression_row(), [[1.0, math.inf]]),
    ],
)
def test_an_invalid_answer_is_neither_sent_nor_logged(
    make: Callable[..., Any], document: dict[str, Any], row: dict[str, Any], outputs: Any
) -> None:
    app = make(document, starts=True)
    live = app.follower.live
    app.follower.live = type(live)(_FixedOutputs(live.model, outputs), live.release, live.source)
    status, answer = app.predict(row)
    assert status == 503
    assert f" gave no valid {document['task']['kind']} answer for " in answer["error"]
    assert answer["error"].endswith("; nothing was answered.")
    assert app.records() == []


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (61.2, 1.4, "61.2, within 58.9 to 63.5 nine times in ten"),
        (12345.6, 140.0, "12346, within 12115 to 12576 nine times in ten"),
        (0.01234, 0.0005, "0.01234, within 0.01152 to 0.01316 nine times in ten"),
        (-0.001, 1.0, "0.0, within -1.6 to 1.6 nine times in ten"),
    ],
)
def test_a_number_has_as_many_digits_as_its_spread_allows(value: float, spread: float, text: str) -> None:
    reach = answers.REACH_90 * spread
    answer = {"value": value, "spread": spread, "low": value - reach, "high": value + reach}
    assert answers.describe(answer) == text


def test_the_openapi_document_describes_the_kind(make: Callable[..., Any]) -> None:
    schemas = {}
    for document in (models.contract(), models.image_contract(), models.regression_contract()):
        app = make(document)
        described = json.loads(app.call("GET", "/openapi.json")[2])["components"]["schemas"]["Answer"]
        schemas[document["task"]["kind"]] = described["properties"]
        app.follower.fall_back()
        row = {"binary": models.row, "multi_class": models.image_row, "regression": models.regression_row}
        answer = app.predict(row[document["task"]["kind"]]())[1]
        assert list(answer) == described["required"] == list(described["properties"])
    assert schemas["multi_class"]["predicted"]["enum"] == list(models.CLASSES)
    assert schemas["multi_class"]["probabilities"]["required"] == list(models.CLASSES)
    assert schemas["regression"]["value"]["description"] == "The expected value (deg F)."
    assert schemas["binary"]["probability"] == {"type": "number", "minimum": 0, "maximum": 1}
