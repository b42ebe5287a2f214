"""Build the metadata of a verdict: quality and differences of the models, calibration, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from platform_assets.engine.metadata import Metadata, bullets, table
from platform_assets.engine.outside import Shown
from platform_assets.evaluation.evaluation import Judged
from platform_assets.evaluation.measures.measure import Bin, Decided
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.views import charts, performance, plots
from platform_assets.product.spec import Product
from platform_assets.store.records.verdicts import Verdict

if TYPE_CHECKING:
    from platform_assets.evaluation.verdict import Compared


def view(shown: Shown) -> tuple[str, Metadata]:
    """Show a verdict."""
    judged: Judged = shown.facts
    return result(judged.verdict), {**metadata(shown.spec, judged.verdict), "cpu_s": judged.cpu_s}


def result(verdict: Verdict) -> str:
    """Return a verdict in one sentence: passed or failed, and the telling reason."""
    return f"{'passed' if verdict.passed else 'failed, the champion stays'}: {verdict.reasons[0]}"


def metadata(spec: Product, verdict: Verdict) -> Metadata:
    """Return the metadata of an evaluation."""
    gates, task = verdict.gates, spec.task
    comparisons = cast("list[Compared]", verdict.comparisons)
    levels = " and ".join(
        f"{100 * level:g} %" for level in sorted({cast("float", one["confidence"]) for one in comparisons})
    )
    calibration = cast("dict[str, list[Bin]]", verdict.calibration)
    decided = cast("dict[str, Decided]", verdict.decided)
    errors = {name: verdict.models[name]["ece"] for name in verdict.calibration}
    measures = measures_of(task)
    alt, overall = f"{measures.headline.title} by slice (rows)", verdict.challenger[measures.headline.name]
    return {
        "passed": verdict.passed,
        "digest": verdict.digest,
        "champion_digest": verdict.champion_digest or "none",
        "reasons": bullets([*verdict.reasons, *verdict.notes]),
        "quality": table([{"model": name, **numbers} for name, numbers in verdict.models.items()]),
        "differences": charts.image(
            plots.difference_chart(comparisons, task, gates.max_drop),
            f"Challenger minus the others, {levels} intervals clustered by key",
        ),
        "calibration": charts.image(plots.calibration_plot(calibration, task, errors), "Calibration"),
        **performance.sliced(task, verdict.slices["challenger"], verdict.slices, alt, overall=overall),
        **performance.decided(task, decided),
        **{measure.name: verdict.challenger[measure.name] for measure in measures.of_answers[:2]},
    }
