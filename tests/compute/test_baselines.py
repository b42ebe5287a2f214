"""The baselines' coefficients are those that theory gives, and numpy alone scores them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from platform_assets.compute import baselines
from platform_assets.compute.learn import learn

NAN = float("nan")


def fitted(numeric: np.ndarray, text: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, object]]:
    names = [f"n{place}" for place in range(numeric.shape[1])], [f"c{place}" for place in range(text.shape[1])]
    learned = learn(numeric, text, numeric_names=names[0], categorical_names=names[1])
    models = baselines.fit(learned, numeric, text, labels)["models"]
    return json.loads(json.dumps(models))


def no_text(rows: int) -> np.ndarray:
    return np.empty((rows, 0), dtype=object)


def test_the_constant_is_the_share_of_ones() -> None:
    labels = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    numeric = np.arange(5, dtype=np.float32).reshape(-1, 1)
    model = fitted(numeric, no_text(5), labels)["constant"]
    assert baselines.score(model, numeric, no_text(5)).tolist() == [0.4] * 5


def test_a_binary_input_gives_the_shares_of_its_groups() -> None:
    numeric = np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 5_000, axis=0)
    labels = np.concatenate([np.tile([1, 0, 0, 0], 1_250), np.tile([1, 1, 1, 1, 0], 1_000)]).astype(np.float32)
    model = fitted(numeric, no_text(10_000), labels)["logistic"]
    chance = baselines.score(model, np.array([[0.0], [1.0]], dtype=np.float32), no_text(2))
    assert chance.tolist() == pytest.approx([0.25, 0.8], abs=2e-3)


def test_a_category_gives_the_shares_of_its_words_and_unseen_words_the_effect_of_rare_ones() -> None:
    text = np.repeat(np.array([["often"], ["seldom"]], dtype=object), 2_000, axis=0)
    labels = np.concatenate([np.tile([1, 1, 1, 0], 500), np.tile([1, 0, 0, 0], 500)]).astype(np.float32)
    model = fitted(np.empty((4_000, 0), dtype=np.float32), text, labels)["logistic"]
    asked = np.array([["often"], ["seldom"], ["never seen"]], dtype=object)
    chance = baselines.score(model, np.empty((3, 0), dtype=np.float32), asked)
    assert chance[:2].tolist() == pytest.approx([0.75, 0.25], abs=3e-3)
    assert chance[2] == pytest.approx(1 / (1 + math.exp(-float(str(model["intercept"])))))


def test_a_missing_number_has_an_effect_of_its_own() -> None:
    numeric = np.array([[NAN], [0.0], [1.0]] * 1_000, dtype=np.float32)
    labels = np.array([1.0, 0.0, 0.0] * 1_000, dtype=np.float32)
    labels[::30] = 0
    model = fitted(numeric, no_text(3_000), labels)["logistic"]
    missing, present = baselines.score(model, np.array([[NAN], [0.5]], dtype=np.float32), no_text(2))
    assert missing == pytest.approx(0.9, abs=0.01)
    assert present < 0.02


def test_separable_rows_are_separated_with_finite_coefficients() -> None:
    numeric = np.linspace(-1, 1, 200, dtype=np.float32).reshape(-1, 1)
    labels = (numeric[:, 0] > 0).astype(np.float32)
    model = fitted(numeric, no_text(200), labels)["logistic"]
    chance = baselines.score(model, numeric, no_text(200))
    assert ((chance > 0.5) == (labels == 1)).all()
    assert np.isfinite(chance).all()


def test_two_fits_give_the_same_json() -> None:
    stream = np.random.default_rng(0)
    numeric = stream.normal(size=(500, 4)).astype(np.float32)
    labels = (stream.random(500) < 0.3).astype(np.float32)
    assert fitted(numeric, no_text(500), labels) == fitted(numeric, no_text(500), labels)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'forest'"):
        baselines.score({"kind": "forest"}, np.zeros((1, 1), dtype=np.float32), no_text(1))
