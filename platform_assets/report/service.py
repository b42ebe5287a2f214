"""The section about how fast the service answered."""

from __future__ import annotations

from platform_assets.compute import latency
from platform_assets.report.blocks import Section, paragraph
from platform_assets.report.facts import Facts


def section(facts: Facts) -> Section:
    """Return how many requests were slower than the product's objective."""
    judged = facts.state.latency
    text = latency.describe(judged)
    kind = "fault" if judged and judged.is_slow else ""
    link = facts.links.asset("predictions")
    return Section(title="Latency", blocks=[paragraph(f"{text[:1].upper()}{text[1:]}.")], kind=kind, link=link)
