"""Say in the report how fast the service answered.

Belongs here: that section. Does not belong here: judging (`compute.latency`).
"""

from __future__ import annotations

from platform_assets.compute import latency
from platform_assets.report import markup as html
from platform_assets.report.facts import Facts
from platform_assets.report.markup import Html


def section(facts: Facts) -> Html:
    """Return how many requests were slower than the product's objective."""
    found = facts.standing.latency
    told = latency.describe(found)
    kind = "fault" if found and found.is_slow else ""
    return html.section("How fast it answers", html.paragraph(f"{told[:1].upper()}{told[1:]}."), kind=kind)
