"""The baselines' coefficients match theory, and numpy alone scores them."""

import json
import math
from typing import Any

import numpy as np
import pytest

from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.training import baselines
from tests.doubles import inputs as doubles

NAN = float("nan")
TASK = Binary()


def fitted(numeric: np.ndarray, text: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, object]]:
    inputs = doubles.inputs_of(numeric, text)
    models = baselines.fit(doubles.learned(inputs), inputs, labels.astype(np.int8), TASK)["models"]
    return {name: {**model, "of": (numeric, text)} for name, model in json.loads(json.dumps(models)).items()}


def score(model: dict[str, Any], numeric: np.ndarray, text: np.ndarray) -> np.ndarray:
    learned = doubles.learned(doubles.inputs_of(*model["of"]))
    return baselines.score(model, learned, doubles.inputs_of(numeric, text), TASK)


def no_text(rows: int) -> np.ndarray:
    return np.empty((rows, 0), dtype=object)


def test_the_constant_is_the_share_of_ones() -> None:
    labels = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    numeric = np.arange(5, dtype=np.float32).reshape(-1, 1)
    model = fitted(numeric, no_text(5), labels)["constant"]
    assert score(model, numeric, no_text(5)).tolist() == pytest.approx([0.4] * 5, abs=1e-5)


def test_a_binary_input_gives_the_shares_of_its_groups() -> None:
    numeric = np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 5_000, axis=0)
    labels = np.concatenate([np.tile([1, 0, 0, 0], 1_250), np.tile([1, 1, 1, 1, 0], 1_000)]).astype(np.float32)
    model = fitted(numeric, no_text(10_000), labels)["linear"]
    chance = score(model, np.array([[0.0], [1.0]], dtype=np.float32), no_text(2))
    assert chance.tolist() == pytest.approx([0.25, 0.8], abs=2e-3)


def test_values_of_a_category_get_their_rates_and_unseen_ones_that_of_rare_values() -> None:
    text = np.repeat(np.array([["often"], ["seldom"]], dtype=object), 2_000, axis=0)
    labels = np.concatenate([np.tile([1, 1, 1, 0], 500), np.tile([1, 0, 0, 0], 500)]).astype(np.float32)
    model = fitted(np.empty((4_000, 0), dtype=np.float32), text, labels)["linear"]
    values = np.array([["often"], ["seldom"], ["never seen"]], dtype=object)
    chance = score(model, np.empty((3, 0), dtype=np.float32), values)
    assert chance[:2].tolist() == pytest.approx([0.75, 0.25], abs=3e-3)
    assert chance[2] == pytest.approx(1 / (1 + math.exp(-model["intercept"][0])), abs=1e-6)


def test_a_missing_number_has_its_own_effect() -> None:
    numeric = np.array([[NAN], [0.0], [1.0]] * 1_000, dtype=np.float32)
    labels = np.array([1.0, 0.0, 0.0] * 1_000, dtype=np.float32)
    labels[::30] = 0
    model = fitted(numeric, no_text(3_000), labels)["linear"]
    missing, present = score(model, np.array([[NAN], [0.5]], dtype=np.float32), no_text(2))
    assert missing == pytest.approx(0.9, abs=0.01)
    assert present < 0.02


def test_separable_rows_are_separated_with_finite_coefficients() -> None:
    numeric = np.linspace(-1, 1, 200, dtype=np.float32).reshape(-1, 1)
    labels = (numeric[:, 0] > 0).astype(np.float32)
    chance = score(fitted(numeric, no_text(200), labels)["linear"], numeric, no_text(200))
    assert ((chance > 0.5) == (labels == 1)).all()
    assert np.isfinite(chance).all()


def test_two_fits_give_the_same_json() -> None:
    stream = np.random.default_rng(0)
    numeric = stream.normal(size=(500, 4)).astype(np.float32)
    labels = (stream.random(500) < 0.3).astype(np.float32)
    one, two = (
        {name: model["coefficients"] for name, model in fitted(numeric, no_text(500), labels).items()} for _ in "ab"
    )
    assert one == two


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'forest'"):
        score(
            {"kind": "forest", "of": (np.zeros((1, 1), dtype=np.float32), no_text(1))},
            np.zeros((1, 1), dtype=np.float32),
            no_text(1),
        )


def test_multi_class_gives_shares_and_regression_a_line() -> None:
    numeric = np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 3_000, axis=0)
    task = MultiClass(classes=("a", "b", "c"))
    labels = np.concatenate([np.tile([0, 0, 1, 2], 750), np.tile([2, 2, 1, 2], 750)])
    inputs = doubles.inputs_of(numeric)
    learned = doubles.learned(inputs)
    models = baselines.fit(learned, inputs, labels, task)["models"]
    shares = baselines.score(models["constant"], learned, inputs[:1], task)
    assert shares[0].tolist() == pytest.approx([0.25, 0.25, 0.5], abs=1e-4)
    low, high = baselines.score(
        models["linear"], learned, doubles.inputs_of(np.array([[0.0], [1.0]], np.float32)), task
    )
    assert low.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=5e-3)
    assert high.tolist() == pytest.approx([0, 0.25, 0.75], abs=5e-3)

    line = np.linspace(-1, 1, 2_001, dtype=np.float32).reshape(-1, 1)
    noise = np.tile([1.0, -1.0, 0.0], 667)
    expected = 100 + 30 * line[:, 0].astype(np.float64) + 3 * noise
    inputs, task = doubles.inputs_of(line), Regression(unit="m")
    learned = doubles.learned(inputs, target=task.target_of(expected))
    models = baselines.fit(learned, inputs, expected, task)["models"]
    flat = baselines.score(models["constant"], learned, inputs[:1], task)[0]
    assert flat.tolist() == pytest.approx([expected.mean(), expected.std()], rel=2e-3)
    answer = baselines.score(models["linear"], learned, doubles.inputs_of(np.array([[-0.5], [0.5]], np.float32)), task)
    assert answer[:, 0].tolist() == pytest.approx([85, 115], rel=5e-3)
    assert answer[:, 1].tolist() == pytest.approx([3 * (2 / 3) ** 0.5] * 2, rel=0.1)


def test_an_image_is_seen_as_a_coarse_grid() -> None:
    image = np.zeros((600, 28, 28), dtype=np.uint8)
    image[:300, :14], image[300:, 14:] = 200, 200
    labels = np.repeat([0, 1], 300).astype(np.int8)
    inputs = doubles.inputs_of(image=image)
    learned = doubles.learned(inputs)
    model = baselines.fit(learned, inputs, labels, TASK)["models"]["linear"]
    assert len(model["columns"]) == len(model["coefficients"]) == 14 * 14
    assert ((baselines.score(model, learned, inputs, TASK) > 0.5) == labels).all()


def drawn(task: Task) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
    """Return 900 rows of two numbers and two categories with labels of a task, and the stream that goes on."""
    stream = np.random.default_rng(0)
    numeric, places = stream.normal(size=(900, 2)).astype(np.float32), stream.integers(0, 9, (900, 2))
    text = np.array([f"category {number}" for number in range(9)], dtype=object)[places]
    signal = numeric[:, 1] + places.sum(axis=1) / 4 + stream.normal(size=900)
    labels = {"binary": (signal > 2).astype(np.int8), "multi_class": np.digitize(signal, [1.5, 2.5])}.get(
        task.kind, signal
    )
    return stream, numeric, text, labels


@pytest.mark.costly
@pytest.mark.parametrize("task", [Binary(), MultiClass(classes=("a", "b", "c")), Regression(unit="m")])
def test_categories_that_are_looked_up_give_the_model_of_those_that_have_a_column_each(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, numeric, text, labels = drawn(task)
    numeric[::7, 0] = NAN
    inputs = doubles.inputs_of(numeric, text, stream.integers(0, 256, (900, 3, 4)).astype(np.uint8))
    learned = doubles.learned(inputs, target=task.target_of(labels))
    expanded = baselines.fit(learned, inputs, labels, task)
    answers = baselines.score(expanded["models"]["linear"], learned, inputs, task)
    monkeypatch.setattr(baselines, "MOST_EXPANDED", 0)
    monkeypatch.setattr(baselines, "LOOKED_UP", 100)
    again = baselines.score(expanded["models"]["linear"], learned, inputs, task)
    assert again == pytest.approx(answers, rel=1e-12)
    looked_up = baselines.fit(learned, inputs, labels, task)
    assert looked_up["models"]["linear"]["columns"] == expanded["models"]["linear"]["columns"]
    assert looked_up["train_log_loss"]["linear"] == pytest.approx(expanded["train_log_loss"]["linear"], abs=1e-4)
    assert baselines.score(looked_up["models"]["linear"], learned, inputs, task) == pytest.approx(
        answers, rel=0.02, abs=0.02
    )


@pytest.mark.parametrize("most_expanded", [baselines.MOST_EXPANDED, 0], ids=["columns", "looked up"])
@pytest.mark.parametrize("task", [Binary(), MultiClass(classes=("a", "b", "c")), Regression(unit="m")])
def test_scipy_finds_the_models_that_torch_finds(task: Task, most_expanded: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baselines, "MOST_EXPANDED", most_expanded)
    _, numeric, text, labels = drawn(task)
    inputs = doubles.inputs_of(numeric, text)
    learned = doubles.learned(inputs, target=task.target_of(labels))
    by_torch = baselines.fit(learned, inputs, labels, task)
    monkeypatch.setattr(baselines.libraries, "has_torch", lambda: False)
    by_scipy = baselines.fit(learned, inputs, labels, task)
    assert by_scipy["train_log_loss"] == pytest.approx(by_torch["train_log_loss"], abs=1e-5)
    for name in by_scipy["models"]:
        one, two = (baselines.score(models["models"][name], learned, inputs, task) for models in (by_scipy, by_torch))
        assert one == pytest.approx(two, abs=5e-3)
