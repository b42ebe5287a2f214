"""Build the metadata of a verdict: quality and differences of the models, calibration, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from platform_assets.engine.metadata import Metadata, bullets, table
from platform_assets.engine.outside import Shown
from platform_assets.evaluation.evaluation import Judged
from platform_assets.evaluation.measures.measure import Bin, Decided
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.views import charts, performance, plots

if TYPE_CHECKING:
    from platform_assets.evaluation.verdict import Compared


def view(shown: Shown) -> tuple[str, Metadata]:
    """Show a verdict: passed or failed with the telling reason, and what it rests on."""
    judged: Judged = shown.facts
    verdict, task = judged.verdict, shown.spec.task
    comparisons = cast("list[Compared]", verdict.comparisons)
    levels = " and ".join(
        f"{100 * level:g} %" for level in sorted({cast("float", one["confidence"]) for one in comparisons})
    )
    calibration = cast("dict[str, list[Bin]]", verdict.calibration)
    decided = cast("dict[str, Decided]", verdict.decided)
    errors = {name: verdict.models[name]["ece"] for name in verdict.calibration}
    measures = measures_of(task)
    return f"{'passed' if verdict.passed else 'failed, the champion stays'}: {verdict.reasons[0]}", {
        "passed": verdict.passed,
        "digest": verdict.digest,
        "champion_digest": verdict.champion_digest or "none",
        "reasons": bullets([*verdict.reasons, *verdict.notes]),
        "quality": table([{"model": name, **numbers} for name, numbers in verdict.models.items()]),
        "differences": charts.image(
            plots.difference_chart(comparisons, task, verdict.gates.max_drop),
            f"Challenger minus the others, {levels} intervals clustered by key",
        ),
        "calibration": charts.image(plots.calibration_plot(calibration, task, errors), "Calibration"),
        **performance.sliced(verdict.slices),
        **performance.decided(decided),
        **{measure.name: verdict.challenger[measure.name] for measure in measures.of_answers[:2]},
        "cpu_s": judged.cpu_s,
    }
