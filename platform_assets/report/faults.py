"""Say what came broken: what was expected, when it was noticed, and what was done. It is what a report begins with.

Belongs here: the sections about faults. Does not belong here: the others (`sections`), reading (`facts`).
"""

from __future__ import annotations

from platform_assets.records.faults import Repair
from platform_assets.report import markup as html
from platform_assets.report.facts import Episode, Facts
from platform_assets.report.markup import Html

LONG = 240
"""What came is set in bold up to so many letters."""
DONE = {
    "null": "The source was left out, and the rows kept",
    "drop": "The key was left out for good",
    "accept": "A person accepted the delivery",
    "repair": "A person had it delivered again",
    "repaired": "The new delivery passed every check",
}


def section(facts: Facts) -> Html:
    """Return each fault: what came, what was expected, when, and what was done; or that there was none."""
    if not facts.episodes:
        words = "Every delivery of these keys passed every check." if facts.keys else "No key has been judged yet."
        return html.section("No broken delivery", html.paragraph(words), kind="sound")
    return html.join(_fault(facts, each) for each in facts.episodes)


def _fault(facts: Facts, episode: Episode) -> Html:
    fault = episode.fault
    column = f", column {fault.column}" if fault.column else ""
    decision = facts.decisions.get(episode.keys[0])
    done = []
    if decision is not None and decision.action == "alert_fault":
        done.append(
            f"A person was called, {html.moment(decision.at_utc)}, and the key kept out of training and reference."
        )
    done += _settled(episode)
    settled = {key for key, record in episode.then if record.kind in DONE and not isinstance(record, Repair)}
    if len(settled) < len(episode.keys):
        done.append("What nobody has settled is held until a person repairs or accepts it.")
    return html.section(
        f"Caught: {fault.source} of {html.span(episode.keys)} came broken",
        html.terms(
            {
                "What came": fault.came if len(fault.came) > LONG else html.strong(fault.came),
                "Expected": fault.expected,
                "Found by": f"check {fault.check.replace('_', ' ')} of source {fault.source}{column}",
                "When": f"{html.moment(fault.at_utc)}, when {episode.keys[0]} was closed",
                "What was done": html.join(html.paragraph(each) for each in done),
            }
        ),
        kind="fault",
    )


def _settled(episode: Episode) -> list[str]:
    """Return what was done to the keys, once for those to which the same was done."""
    same: dict[tuple[str, str, str], list[tuple[str, str | None]]] = {}
    for key, record in episode.then:
        if record.kind in DONE:
            same.setdefault((record.kind, record.by, record.why), []).append((key, record.at_utc))
    return [
        f"{html.span([key for key, _ in found])}, from {html.moment(found[0][1])} on: {DONE[kind]} (by {by}): {why}"
        for (kind, by, why), found in same.items()
    ]
