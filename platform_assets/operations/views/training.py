"""Build the metadata of a training and an export from the notes of their steps: loss, baselines, use, parity."""

from __future__ import annotations

import msgspec

from platform_assets.base.wording import counted
from platform_assets.engine.cutoffs import Recorded
from platform_assets.engine.metadata import Metadata, table
from platform_assets.engine.outside import Shown
from platform_assets.operations.views import charts, plots
from platform_assets.store.records.attempts import Overspending
from platform_assets.training.checkpoint import Configured
from platform_assets.training.steps.jobs import Exported, Trained


class _Trained(Trained, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    over_budget: Overspending | None = None


def view_checkpoint(shown: Shown) -> tuple[str, Metadata]:
    """Show a training."""
    facts: Configured = shown.facts
    return trained(facts.content.notes), checkpoint(facts)


def view_onnx(shown: Shown) -> tuple[str, Metadata]:
    """Show an export."""
    content: Recorded = shown.facts
    done = msgspec.convert(content.notes, Exported)
    sentence = (
        f"exported: the ONNX graph answers {done.parity.rows:,} holdout rows as the model does, "
        f"at most {done.parity.max_abs_difference:.1e} apart"
    )
    return sentence, {
        "bundle_sha256": done.bundle,
        "is_memoised": content.is_memoised,
        "parity_rows": done.parity.rows,
        "parity_max_abs_difference": done.parity.max_abs_difference,
        "parity_batch_sizes": str(list(done.parity.batches)),
        "onnx_bytes": done.onnx_bytes,
        "cpu_s": done.cpu_s,
        "peak_memory_mb": done.peak_memory_mb,
    }


def trained(notes: object) -> str:
    """Return a training in one sentence: its last losses, how long it ran, and the best baseline."""
    done = msgspec.convert(notes, _Trained)
    last = done.history[-1] if done.history else {}
    losses = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.items() if name.endswith("_loss")]
    best = min(done.baselines.items(), key=lambda item: item[1], default=None)
    against = f"; best baseline ({best[0]}) {best[1]:.4f}" if best else ""
    return f"trained in {done.cpu_s:.0f} CPU s: {', '.join(losses) or 'no loss'}{against}"


def checkpoint(facts: Configured) -> Metadata:
    """Return the metadata of a checkpoint, from the notes of its record."""
    done = msgspec.convert(facts.content.notes, _Trained)
    history, over, processes = done.history, done.over_budget, list[str]()
    for begun, size in done.world_sizes or ():
        since = f" from step {begun:,}" if processes else ""
        processes.append(f"{counted(size, 'process')}{since}")
    return {
        "checkpoint_sha256": facts.content.digest,
        "is_memoised": facts.content.is_memoised,
        **(
            {"loss_curve": charts.image(plots.loss_curve(history), "Loss by epoch or round")}
            if plots.losses_of(history)
            else {}
        ),
        "parameters": table([{"parameter": name, "value": value} for name, value in facts.parameters.items()]),
        **({"epochs": table(history)} if history else {}),
        "baselines": table([{"baseline": name, "train_log_loss": loss} for name, loss in done.baselines.items()]),
        "device": done.device,
        "precision": done.precision,
        "cpu_s": done.cpu_s,
        "peak_memory_mb": done.peak_memory_mb,
        "resumed_from_step": done.resumed_from_step,
        **({"processes": ", ".join(processes)} if processes else {}),
        **(done.used or {}),
        **({} if over is None else {"over_budget_reason": over.why, "over_budget_usd": over.over_usd}),
    }
