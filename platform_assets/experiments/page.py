"""Show trainings as a page: the curves of those compared, what differs between them, and all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.experiments.runs import Run, columns, differences, number
from platform_assets.handle import Product
from platform_assets.report import render
from platform_assets.report.blocks import Block, Code, Inline, Page, Section, Table, Tile, figure
from platform_assets.show import plots
from platform_assets.wording import counted


def html(product: Product, runs: Sequence[Run], compared: Sequence[Run]) -> str:
    """Return the page as one HTML document."""
    spent, cutoffs = sum(run.usd or 0.0 for run in runs), len({run.training.cutoff for run in runs})
    listed = Section(title="All trainings", blocks=[_table(runs, columns(product.spec.task, runs))])
    return render.html(
        Page(
            heading=f"Trainings of {product.name}",
            subtitle=product.spec.title,
            news=None,
            covered=f"The newest {counted(len(runs), 'training')}, those that were never released included. Measures "
            "are of each training's own holdout, so only trainings of one cutoff compare exactly.",
            tiles=[
                Tile(name="Trainings", value=str(len(runs)), more=f"of {counted(cutoffs, 'cutoff')}"),
                Tile(name="Cost", value=f"{number(spent)} USD", more="all attempts, lost ones included"),
            ],
            sections=[*(_comparison(compared) if compared else ()), listed],
            foot="Driftline: every value on this page is read from records; nothing is fetched.",
        )
    )


def _comparison(compared: Sequence[Run]) -> list[Section]:
    titles = [f"run {run.number}" for run in compared]
    named = zip(titles, compared, strict=True)
    curves: Mapping[str, Sequence[Mapping[str, float]]] = {
        title: run.training.curve for title, run in named if run.training.curve
    }

    about = "the losses of each training by epoch or round"
    charts: list[Block] = [figure(plots.training_curves(curves), about)] if curves else []
    rows: list[list[Inline]] = [
        [name, *("–" if value is None else str(value) for value in values)]
        for name, values in differences(compared).items()
    ]
    quality: list[list[Inline]] = [
        [name, *(number(run.value(name)) for run in compared)]
        for name in (*compared[0].training.quality, "train_loss", "judged_loss", "cpu_s", "usd")
    ]
    differing = Table(about="differences", columns=("differs in", *titles), rows=rows, is_stacked=True)
    results = Table(about="quality and cost", columns=("measure", *titles), rows=quality, numbers=titles)
    return [
        Section(title="Curves", blocks=charts),
        Section(title="What differs", blocks=[differing]),
        Section(title="Results", blocks=[results]),
    ]


def _table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    rows: list[list[Inline]] = [
        [
            str(run.number),
            run.training.cutoff,
            run.training.purpose,
            run.training.learner,
            *(number(run.value(name)) for name in names),
            Code(run.training.checkpoint[:12]),
        ]
        for run in runs
    ]
    shown = ("run", "cutoff", "for", "learner", *names, "checkpoint")
    return Table(about="trainings", columns=shown, rows=rows, numbers=names, is_stacked=True)
