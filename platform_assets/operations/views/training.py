"""Build the metadata of a training and an export from the notes of their steps: loss, baselines, use, parity."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from platform_assets.base.wording import counted
from platform_assets.engine.cutoffs import Recorded
from platform_assets.engine.metadata import Metadata, table
from platform_assets.engine.outside import Shown
from platform_assets.operations.views import charts, plots, use_plots
from platform_assets.store.records.attempts import Overspending
from platform_assets.store.records.models import WorldSizes
from platform_assets.training.checkpoint import Configured
from platform_assets.training.steps import use
from platform_assets.training.steps.jobs import Exported, Trained


class _Trained(Trained, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    over_budget: Overspending | None = None


def view_checkpoint(shown: Shown) -> tuple[str, Metadata]:
    """Show a training."""
    facts: Configured = shown.facts
    content = facts.content
    about = checkpoint(content.notes, content.digest, facts.parameters, is_memoised=content.is_memoised)
    return trained(content.notes), about


def view_onnx(shown: Shown) -> tuple[str, Metadata]:
    """Show an export."""
    content: Recorded = shown.facts
    return exported(content.notes), onnx(content.notes, is_memoised=content.is_memoised)


def trained(notes: object) -> str:
    """Return a training in one sentence: its last losses, how long it ran, and the best baseline."""
    done = msgspec.convert(notes, _Trained)
    last = done.history[-1] if done.history else {}
    losses = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.items() if name.endswith("_loss")]
    best = min(done.baselines.items(), key=lambda item: item[1], default=None)
    against = f"; best baseline ({best[0]}) {best[1]:.4f}" if best else ""
    return f"trained in {done.cpu_s:.0f} CPU s: {', '.join(losses) or 'no loss'}{against}"


def exported(notes: object) -> str:
    """Return an export in one sentence: how far graph and network are apart."""
    parity = msgspec.convert(notes, Exported).parity
    return (
        f"exported: the ONNX graph answers {parity.rows:,} holdout rows as the model does, "
        f"at most {parity.max_abs_difference:.1e} apart"
    )


def checkpoint(notes: object, digest: str, parameters: Mapping[str, object], *, is_memoised: bool) -> Metadata:
    """Return the metadata of a checkpoint; `notes` are those of its record, parameters those of
    `training.steps.parameters`.
    """
    done = msgspec.convert(notes, _Trained)
    history, used, over = done.history, done.use or {}, done.over_budget
    return {
        "checkpoint_sha256": digest,
        "is_memoised": is_memoised,
        **(
            {"loss_curve": charts.image(plots.loss_curve(history), "Loss by epoch or round")}
            if plots.losses_of(history)
            else {}
        ),
        "parameters": table([{"parameter": name, "value": value} for name, value in parameters.items()]),
        **({"epochs": table(history)} if history else {}),
        "baselines": table([{"baseline": name, "train_log_loss": loss} for name, loss in done.baselines.items()]),
        "device": done.device,
        "precision": done.precision,
        "cpu_s": done.cpu_s,
        "peak_memory_mb": done.peak_memory_mb,
        "resumed_from_step": done.resumed_from_step,
        **({"processes": _processes(done.world_sizes)} if done.world_sizes else {}),
        **use.summary(used),
        **({"use": charts.image(use_plots.use_chart(used), "CPU, memory and GPU over the training")} if used else {}),
        **({} if over is None else {"over_budget_reason": over.why, "over_budget_usd": over.over_usd}),
    }


def _processes(world_sizes: WorldSizes) -> str:
    """Return who took the steps of a fit: `2 processes, 1 process from step 100`."""
    first, *later = ((begun, counted(size, "process")) for begun, size in world_sizes)
    return ", ".join([first[1], *(f"{processes} from step {begun:,}" for begun, processes in later)])


def onnx(notes: object, *, is_memoised: bool) -> Metadata:
    """Return the metadata of a bundle; `notes` are those of its record."""
    done = msgspec.convert(notes, Exported)
    return {
        "bundle_sha256": done.bundle,
        "is_memoised": is_memoised,
        "parity_rows": done.parity.rows,
        "parity_max_abs_difference": done.parity.max_abs_difference,
        "parity_batch_sizes": str(list(done.parity.batches)),
        "onnx_bytes": done.onnx_bytes,
        "cpu_s": done.cpu_s,
        "peak_memory_mb": done.peak_memory_mb,
    }
