"""Put pages together in their order, and write them as files."""

from __future__ import annotations

from pathlib import Path

from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.operations import status
from platform_assets.operations.report import facts, faults, head, index, money, quarantine, render, sections
from platform_assets.operations.report.blocks import Code, Inline, Link, Mark, Page, Section, Terms, paragraph
from platform_assets.operations.status.state import BrokenState, State
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore

INDEX = "index.html"
BACK = Link("All products", INDEX)


def folder(settings: Settings) -> Path:
    """Return where reports are written unless another file is named."""
    return settings.state / "reports"


def file_name(product: Product | Broken) -> str:
    """Return the name of a product's report in its folder."""
    return f"{product.name}.html"


def write(settings: Settings, product: Product | Broken, path: Path, *, dagster: str | None = None) -> Path:
    """Write a product's report, whole or not at all, and return its path.

    Args:
        path: the file; the page links an index that is next to it already.
        dagster: the address of Dagster's UI, for links; None for none.
    """
    back = BACK if path.with_name(INDEX).exists() else None
    return _write(path, page(settings, product, back=back, dagster=dagster)[1])


def write_all(
    settings: Settings, products: list[Product | Broken], path: Path, *, dagster: str | None = None
) -> list[Path]:
    """Write each product's report, and last the index over all of them next to it; return the paths, the index first.

    Raises:
        ValueError: the index would have the name of a report.
        LedgerProblem: the records of a product are damaged. The index names it, and the others have their reports.
    """
    if path.name in map(file_name, products):
        raise ValueError(f"{path} is the report of a product; expected another name for the index over all of them.")
    link = Link("All products", path.name)
    states: list[State | BrokenState] = []
    reports: dict[str, Path] = {}
    damaged: dict[str, LedgerProblem] = {}
    for product in products:
        try:
            state, text = page(settings, product, back=link, dagster=dagster)
        except LedgerProblem as problem:
            damaged[product.name] = problem
        else:
            states.append(state)
            reports[product.name] = _write(path.with_name(file_name(product)), text)
    names = {name: report.name for name, report in reports.items()}
    _write(path, render.html(index.page(states, names, {name: str(problem) for name, problem in damaged.items()})))
    if damaged:
        raise next(iter(damaged.values()))
    return [path, *reports.values()]


def page(
    settings: Settings, product: Product | Broken, *, back: Link | None = None, dagster: str | None = None
) -> tuple[State | BrokenState, str]:
    """Return a product's state and its report as HTML, from one reading of the records.

    Args:
        back: to the index.
        dagster: as of `write`.
    """
    if isinstance(product, Broken):
        broken = status.of_broken(settings, product)
        return broken, _html_of_broken(product, broken, back)
    opened = ProductStore(product, settings)
    read = facts.gather(opened, dagster=dagster)
    first = [] if read.state.newest_closed_key is None and not read.state.todo else [read.state.todo]
    parts = [
        *(sections.todo(tasks, read.noun) for tasks in first),
        *faults.sections(read),
        sections.quality(read),
        sections.by_slice(read),
        sections.timeline(read),
        sections.released(read),
        sections.calibration(read),
        sections.service(read),
        quarantine.section(opened),
        sections.unlabelled(read),
        money.section(read),
    ]
    return read.state, render.html(
        Page(
            heading=product.title,
            subtitle=product.description,
            news=head.news(read),
            covered=head.covered(read),
            tiles=head.tiles(read),
            sections=[section for section in parts if section is not None],
            foot=f"Driftline: every number on this page is read from the records of {product.name}; nothing is "
            "fetched.",
            back=back,
        )
    )


def _html_of_broken(broken: Broken, state: BrokenState, back: Link | None) -> str:
    """Return the report of a product whose file is broken: why, what is released, and what to do."""
    terms: dict[str, list[Inline]] = {"File": [Code(broken.file)], "Error": [broken.error]}
    if state.release is not None:
        terms["Release"] = [f"{state.release.number}, {state.release.outcome}, cutoff {state.release.cutoff}"]
        terms["Model"] = [Code(state.release.digest[:SHORT_DIGEST])]
    stays = "What it has stored stays, and its service goes on answering. Nothing is taken in until the file is fixed."
    section = Section(title="This product's file is broken", blocks=[Terms(terms), paragraph(stays)], kind="fault")
    return render.html(
        Page(
            heading=broken.name,
            subtitle="A product whose file cannot be loaded.",
            news=Mark("The file is broken", "red"),
            covered="Only the released model is known.",
            tiles=[],
            sections=[sections.todo(state.todo), section],
            foot="Driftline: nothing on this page is fetched.",
            back=back,
        )
    )


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(f"{path.name}.waiting")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(path)
    return path
