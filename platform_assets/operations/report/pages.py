"""Put a product's page together in its order, and write it as a file."""

from __future__ import annotations

from pathlib import Path

import jinja2

from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.operations import status
from platform_assets.operations.report import faults, head, money, sections
from platform_assets.operations.report.blocks import Code, Inline, Mark, Page, Section, Terms, paragraph
from platform_assets.operations.status.facts import Reported
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore

# Escaping is on for every file name: what records say is text, never markup.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def default_path(settings: Settings, product: Product | Broken) -> Path:
    """Return where a product's report is written unless another file is named."""
    return settings.state / "reports" / f"{product.name}.html"


def write(settings: Settings, product: Product | Broken, path: Path) -> Path:
    """Write a product's report, whole or not at all, and return its path."""
    text = html(settings, product)
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(f"{path.name}.waiting")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(path)
    return path


def html(settings: Settings, product: Product | Broken) -> str:
    """Return a product's report as one HTML document that fetches nothing and runs nothing."""
    if isinstance(product, Broken):
        page = _of_broken(settings, product)
    else:
        page = _of_product(Reported(ProductStore(product, settings)))
    return _ENVIRONMENT.get_template("page.html.jinja").render(page=page)


def _of_product(facts: Reported) -> Page:
    is_new = facts.newest_closed_key is None and not facts.todo
    parts = [
        None if is_new else sections.todo(facts.todo, facts.noun),
        *faults.sections(facts),
        sections.quality(facts),
        sections.by_slice(facts),
        sections.timeline(facts),
        sections.released(facts),
        sections.calibration(facts),
        sections.service(facts),
        sections.quarantine(facts),
        sections.unlabelled(facts),
        money.section(facts),
    ]
    return Page(
        heading=facts.title,
        subtitle=facts.spec.description,
        news=head.news(facts),
        covered=head.covered(facts),
        tiles=head.tiles(facts),
        sections=[section for section in parts if section is not None],
        foot=f"Driftline: every number on this page is read from the records of {facts.product}; nothing is fetched.",
    )


def _of_broken(settings: Settings, broken: Broken) -> Page:
    """Return the page of a product whose file is broken: why, what is released, and what to do."""
    state = status.of_broken(settings, broken)
    terms: dict[str, list[Inline]] = {"File": [Code(broken.file)], "Error": [broken.error]}
    if state.release is not None:
        terms["Release"] = [f"{state.release.number}, {state.release.outcome}, cutoff {state.release.cutoff}"]
        terms["Model"] = [Code(state.release.digest[:SHORT_DIGEST])]
    stays = "What it has stored stays, and its service goes on answering. Nothing is taken in until the file is fixed."
    section = Section(title="This product's file is broken", blocks=[Terms(terms), paragraph(stays)], kind="fault")
    return Page(
        heading=broken.name,
        subtitle="A product whose file cannot be loaded.",
        news=Mark("The file is broken", "red"),
        covered="Only the released model is known.",
        tiles=[],
        sections=[sections.todo(state.todo), section],
        foot="Driftline: nothing on this page is fetched.",
    )
