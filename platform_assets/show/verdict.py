"""Show a verdict: quality and differences of the models, calibration, slices.

Belongs here: from the record of a verdict to metadata. Does not belong here: judging (`makers.evaluation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from platform_assets.compute.tasks.measures import Bin, Decided
from platform_assets.records.verdicts import Verdict
from platform_assets.show import performance, plots, values
from platform_assets.specs.base import ProductSpec

if TYPE_CHECKING:
    from platform_assets.compute.verdict import Compared


def metadata(spec: ProductSpec, found: Verdict) -> values.Metadata:
    """Return the metadata of an evaluation."""
    gates, task = found.gates, spec.task
    chart = plots.difference_chart(
        cast("list[Compared]", found.comparisons), task, gates.max_drop, confidence=gates.confidence
    )
    calibration = cast("dict[str, list[Bin]]", found.calibration)
    decided = cast("dict[str, Decided]", found.decided)
    errors = {name: found.models[name]["ece"] for name in found.calibration}
    words, overall = f"{task.headline.title} by slice", found.challenger[task.headline.name]
    return {
        "passed": found.passed,
        "digest": found.digest,
        "champion_digest": found.champion_digest or "none",
        "reasons": values.bullets([*found.reasons, *found.notes]),
        "quality": values.table([{"model": name, **numbers} for name, numbers in found.models.items()]),
        "differences": values.image(chart, "Challenger minus the others, with intervals"),
        "calibration": values.image(plots.calibration_plot(calibration, task, errors), "Calibration"),
        **performance.sliced(task, found.slices["challenger"], found.slices, words, overall=overall),
        **performance.decided(task, decided),
        **{each.name: found.challenger[each.name] for each in task.measures[:2]},
    }
