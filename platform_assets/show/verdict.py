"""Build the metadata of a verdict: quality and differences of the models, calibration, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from platform_assets.compute.tasks.measures import Bin, Decided
from platform_assets.records.verdicts import Verdict
from platform_assets.show import performance, plots, values
from platform_assets.specs.base import ProductSpec

if TYPE_CHECKING:
    from platform_assets.compute.verdict import Compared


def result(verdict: Verdict) -> str:
    """Return a verdict in one sentence: passed or failed, and the telling reason."""
    return f"{'passed' if verdict.passed else 'failed, the champion stays'}: {verdict.reasons[0]}"


def metadata(spec: ProductSpec, verdict: Verdict) -> values.Metadata:
    """Return the metadata of an evaluation."""
    gates, task = verdict.gates, spec.task
    chart = plots.difference_chart(
        cast("list[Compared]", verdict.comparisons), task, gates.max_drop, confidence=gates.confidence
    )
    calibration = cast("dict[str, list[Bin]]", verdict.calibration)
    decided = cast("dict[str, Decided]", verdict.decided)
    errors = {name: verdict.models[name]["ece"] for name in verdict.calibration}
    alt, overall = f"{task.headline.title} by slice", verdict.challenger[task.headline.name]
    return {
        "passed": verdict.passed,
        "digest": verdict.digest,
        "champion_digest": verdict.champion_digest or "none",
        "reasons": values.bullets([*verdict.reasons, *verdict.notes]),
        "quality": values.table([{"model": name, **numbers} for name, numbers in verdict.models.items()]),
        "differences": values.image(chart, "Challenger minus the others, with intervals"),
        "calibration": values.image(plots.calibration_plot(calibration, task, errors), "Calibration"),
        **performance.sliced(task, verdict.slices["challenger"], verdict.slices, alt, overall=overall),
        **performance.decided(task, decided),
        **{measure.name: verdict.challenger[measure.name] for measure in task.measures[:2]},
    }
