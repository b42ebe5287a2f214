"""The index page: one row per product, those that need attention first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.base.wording import counted
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.operations.report.blocks import Inline, Link, Mark, Page, Section, Table, Tile
from platform_assets.operations.status import text
from platform_assets.operations.status.state import BrokenState, State

COLUMNS = ("product", "state", "live model", "headline", "newest key", "last decision or error")


def page(
    states: Sequence[State | BrokenState], reports: Mapping[str, str], damaged: Mapping[str, str] | None = None
) -> Page:
    """Return the index.

    Args:
        states: of the products whose records can be read.
        reports: the file of each product's report, relative to the index, by product.
        damaged: what is wrong with the records of the others, by product.
    """
    damaged = damaged or {}
    waiting = [*damaged, *(state.product for state in states if state.todo)]
    things = len(damaged) + sum(len(state.todo) for state in states)
    products = counted(len(states) + len(damaged), "product")
    news = Mark("No product needs attention", "green")
    if waiting:
        verb = "needs" if len(waiting) == 1 else "need"
        news = Mark(f"{counted(len(waiting), 'product')} {verb} attention: {', '.join(waiting)}", "red")
    held = sum(len(text.held_keys(state)) for state in states if isinstance(state, State))
    rows = [
        *(
            (
                *(product, Mark("records are damaged", "red"), None, None, None),
                f"{problem} `driftline doctor {product}` names all that is damaged.",
            )
            for product, problem in damaged.items()
        ),
        *(_row(state, reports) for state in sorted(states, key=lambda state: (not state.todo, state.product))),
    ]
    table = Table(about="products", columns=COLUMNS, rows=rows, is_stacked=True)
    released = sum(state.release is not None for state in states)
    return Page(
        heading="All products",
        subtitle="One row per product; the name leads to its report.",
        news=news,
        covered=f"{products}, {released} with a released model.",
        tiles=[
            Tile(name="Released models", value=str(released), more=f"of {products}"),
            Tile(name="Things to do", value=str(things), more="in the reports, each with its command"),
            Tile(name="Held keys", value=str(held), more="wait for a repair or an acceptance"),
        ],
        sections=[Section(title="Products", blocks=[table])],
        foot="Driftline: every value on this page is read from records; nothing is fetched.",
    )


def _row(state: State | BrokenState, reports: Mapping[str, str]) -> tuple[Inline, ...]:
    link = Link(state.product, reports.get(state.product))
    if isinstance(state, BrokenState):
        model = "none" if state.release is None else f"release {state.release.number}"
        return link, Mark("file is broken", "red"), model, None, None, state.broken.error
    release, decision = state.release, state.decision
    live: str | None = None
    if release is not None:
        live = f"release {release.number}, {text.describe_age(release, state.grain)}, {release.digest[:SHORT_DIGEST]}"
    quality, headline = state.quality, None
    if quality is not None and (interval := quality.quality.get(quality.headline)) is not None:
        ends = text.describe_interval(interval)
        headline = f"{text.title_of(quality.headline)} {interval.value:.4f} ({ends})"
    decided = None if decision is None else f"{decision.action.replace('_', ' ')}: {decision.reasons[0]}"
    news = Mark("fine", "green")
    if held := text.held_keys(state):
        news = Mark(f"held: {text.list_keys(held)}", "red")
    elif state.todo:
        news = Mark(state.todo[0].about.replace("_", " "), "red")
    elif state.newest_closed_key is None:
        news = Mark("no key closed yet", "grey")
    return link, news, live, headline, state.newest_closed_key, decided
