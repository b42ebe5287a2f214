"""Show what a training and an export left: loss, baselines, use, parity.

Belongs here: from a step's notes to metadata. Does not belong here: the charts themselves (`show.plots`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_assets.show import plots, use_plots, values
from platform_assets.steps import use


def checkpoint(notes: Mapping[str, Any], digest: str, *, is_memoised: bool) -> values.Metadata:
    """Return the metadata of a checkpoint."""
    history, used, over = notes["history"], notes.get("use") or {}, notes.get("over_budget")
    return {
        "checkpoint_sha256": digest,
        "is_memoised": is_memoised,
        "loss_curve": values.image(plots.loss_curve(history), "Training loss by epoch"),
        "epochs": values.table(history),
        "baselines": values.table(
            [{"baseline": name, "train_log_loss": loss} for name, loss in notes["baselines"].items()]
        ),
        "device": notes["device"],
        "precision": notes["precision"],
        "cpu_s": notes["cpu_s"],
        "peak_memory_mb": notes["peak_memory_mb"],
        "resumed_from_step": notes["resumed_from_step"],
        **use.told(used),
        **({"use": values.image(use_plots.use_chart(used), "CPU, memory and GPU over the training")} if used else {}),
        **({} if over is None else {"over_budget_reason": over["why"], "over_budget_usd": over["over_usd"]}),
    }


def onnx(notes: Mapping[str, Any], *, is_memoised: bool) -> values.Metadata:
    """Return the metadata of a bundle."""
    parity = notes["parity"]
    return {
        "bundle_sha256": notes["bundle"],
        "is_memoised": is_memoised,
        "parity_rows": parity["rows"],
        "parity_max_abs_difference": parity["max_abs_difference"],
        "parity_batch_sizes": str(list(parity["batches"])),
        "onnx_bytes": notes["onnx_bytes"],
        "cpu_s": notes["cpu_s"],
        "peak_memory_mb": notes["peak_memory_mb"],
    }
