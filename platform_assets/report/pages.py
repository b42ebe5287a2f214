"""Put a product's report together and write it.

Belongs here: the order of sections, and the file. Does not belong here: what they say (`faults`, `sections`, `money`).
"""

from __future__ import annotations

from pathlib import Path

from platform_assets.report import facts, faults, markup, money, sections
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec

ORDER = (
    sections.head,
    sections.tiles,
    faults.section,
    sections.quality,
    sections.timeline,
    sections.releases_table,
    sections.calibration,
    sections.quarantine,
    sections.unlabelled,
    money.section,
    sections.foot,
)


def write(settings: Settings, spec: ProductSpec, place: Path) -> Path:
    """Write a product's report to `place`, whole or not at all, and return it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting = place.with_name(f"{place.name}.waiting")
    waiting.write_text(of_product(settings, spec), encoding="utf-8")
    waiting.replace(place)
    return place


def of_product(settings: Settings, spec: ProductSpec) -> str:
    """Return a product's report as one HTML document that fetches nothing and runs nothing."""
    found = facts.gather(settings, spec)
    return markup.page(f"{spec.title}: report", *(section(found) for section in ORDER))
