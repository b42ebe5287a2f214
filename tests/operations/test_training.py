"""A checkpoint's page has its parameters and both curves, and a page at all when a learner draws no curve."""

from __future__ import annotations

from typing import Any

import pytest

from platform_assets.operations.views import training

NOTES: dict[str, Any] = {
    "kind": "result",
    "checkpoint": "c" * 64,
    "history": [
        {"epoch": 10, "train_loss": 0.5, "judged_loss": 0.6},
        {"epoch": 20, "train_loss": 0.4, "judged_loss": 0.55},
    ],
    "device": "cpu",
    "precision": "float32",
    "baselines": {"constant": 0.7},
    "is_reused": False,
    "resumed_from_step": 0,
    "cpu_s": 1.0,
    "peak_memory_mb": 10.0,
}


def test_parameters_and_curve_are_on_the_page() -> None:
    shown = training.checkpoint(NOTES, "d" * 64, {"learner": "LightGbm", "learner.rounds": 300}, is_memoised=False)
    assert list(shown)[:4] == ["checkpoint_sha256", "is_memoised", "loss_curve", "parameters"]
    assert "data:image/svg+xml" in str(shown["loss_curve"])
    assert "| learner.rounds | 300 |" in str(shown["parameters"].value)  # type: ignore[union-attr]
    assert "| 20 | 0.4 | 0.55 |" in str(shown["epochs"].value)  # type: ignore[union-attr]


def test_processes_that_took_turns_are_on_the_page() -> None:
    shown = training.checkpoint({**NOTES, "world_sizes": [[0, 2], [1100, 1]]}, "d" * 64, {}, is_memoised=False)
    assert shown["processes"] == "2 processes, 1 process from step 1,100"
    assert "processes" not in training.checkpoint(NOTES, "d" * 64, {}, is_memoised=False)


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "accuracy": 0.9}]])
def test_a_learner_without_a_curve_has_a_page(history: list[dict[str, float]]) -> None:
    notes = {**NOTES, "history": history}
    shown = training.checkpoint(notes, "d" * 64, {}, is_memoised=False)
    assert "loss_curve" not in shown
    assert ("epochs" in shown) is bool(history)
    assert "no loss; best baseline (constant)" in training.trained(notes)
