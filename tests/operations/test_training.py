"""A checkpoint's page has its parameters and both curves, and a page at all when a learner draws no curve."""

from typing import Any

import pytest

from platform_assets.engine.cutoffs import Recorded
from platform_assets.engine.metadata import Metadata
from platform_assets.operations.views import training
from platform_assets.training.checkpoint import Configured

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


def page(notes: dict[str, Any], **parameters: object) -> Metadata:
    return training.checkpoint(Configured(Recorded(digest="d" * 64, notes=notes), parameters))


def test_parameters_curve_and_processes_are_on_the_page() -> None:
    shown = page({**NOTES, "world_sizes": [[0, 2], [1100, 1]]}, learner="LightGbm", rounds=300)
    assert list(shown)[:4] == ["checkpoint_sha256", "is_memoised", "loss_curve", "parameters"]
    assert "data:image/svg+xml" in str(shown["loss_curve"])
    assert "| rounds | 300 |" in str(shown["parameters"].value)  # type: ignore[union-attr]
    assert "| 20 | 0.4 | 0.55 |" in str(shown["epochs"].value)  # type: ignore[union-attr]
    assert shown["processes"] == "2 processes, 1 process from step 1,100"


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "accuracy": 0.9}]])
def test_a_learner_without_a_curve_has_a_page(history: list[dict[str, float]]) -> None:
    notes = {**NOTES, "history": history}
    shown = page(notes)
    assert "loss_curve" not in shown and "processes" not in shown
    assert ("epochs" in shown) is bool(history)
    assert "no loss; best baseline (constant)" in training.trained(notes)
