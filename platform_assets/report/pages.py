"""Put a product's report together and write it.

Belongs here: the order of sections, and the file. Does not belong here: what they say (`faults`, `sections`, `money`).
"""

from __future__ import annotations

from pathlib import Path

from platform_assets import status
from platform_assets.handle import Product
from platform_assets.report import facts, faults, markup, money, sections, service
from platform_assets.settings import Settings
from platform_assets.specs import Broken
from platform_assets.specs.base import ProductSpec

ORDER = (
    sections.head,
    sections.tiles,
    faults.section,
    sections.quality,
    sections.timeline,
    sections.releases_table,
    sections.calibration,
    service.section,
    sections.quarantine,
    sections.unlabelled,
    money.section,
    sections.foot,
)


def write(settings: Settings, spec: ProductSpec | Broken, place: Path) -> Path:
    """Write a product's report to `place`, whole or not at all, and return it."""
    page = of_broken(settings, spec) if isinstance(spec, Broken) else of_product(Product(spec, settings))
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting = place.with_name(f"{place.name}.waiting")
    waiting.write_text(page, encoding="utf-8")
    waiting.replace(place)
    return place


def of_product(product: Product) -> str:
    """Return a product's report as one HTML document that fetches nothing and runs nothing."""
    found = facts.gather(product)
    return markup.page(f"{product.spec.title}: report", *(section(found) for section in ORDER))


def of_broken(settings: Settings, broken: Broken) -> str:
    """Return the report of a product whose file is broken: why, and what is released."""
    release = status.of_broken(settings, broken).release
    terms = {"file": markup.code(broken.file), "error": broken.error}
    if release is not None:
        terms["release"] = f"{release.number}, {release.outcome}, cutoff {release.cutoff}"
        terms["model"] = markup.code(release.digest)
    stays = "What it has stored stays, and its service goes on answering. Nothing is taken in until the file is fixed."
    section = markup.section(
        "This product's file is broken", markup.terms(terms), markup.paragraph(stays), kind="fault"
    )
    return markup.page(f"{broken.name}: report", section)
