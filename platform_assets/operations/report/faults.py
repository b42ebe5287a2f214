"""The sections about faulty deliveries: what arrived, what was expected, when it was noticed, and what was done."""

from __future__ import annotations

from platform_assets.base.wording import span
from platform_assets.operations.report.blocks import Inline, Section, Strong, Terms, moment, paragraph
from platform_assets.operations.status.facts import Episode, Reported
from platform_assets.store.records.faults import Repair

LONG = 240
"""What arrived is set in bold up to this many characters."""
DONE = {
    "null": "The source was left out and the rows kept",
    "drop": "Left out permanently",
    "accept": "A person accepted the delivery",
    "repair": "A person had it delivered again",
    "repaired": "The new delivery passed every check",
}


def sections(facts: Reported) -> list[Section]:
    """Return one section per fault, the newest first, or one that says that there was none."""
    if not facts.episodes:
        nothing = f"No {facts.noun} has been judged yet."
        text = f"Every delivery of these {facts.nouns} passed every check." if facts.keys else nothing
        return [Section(title="No faulty delivery", blocks=[paragraph(text)], kind="sound")]
    return [_fault(facts, episode) for episode in reversed(facts.episodes)]


def _fault(facts: Reported, episode: Episode) -> Section:
    fault, first = episode.fault, episode.keys[0]
    column = f", column {fault.column}" if fault.column else ""
    decision = facts.decisions.get(first)
    done = []
    if decision is not None and decision.action == "alert_fault":
        done.append(
            f"An alert was raised at {moment(decision.at_utc)}, and the {facts.noun} was kept out of training, "
            "holdout and reference."
        )
    # Keys to which the same was done share a sentence.
    same: dict[tuple[str, str, str], list[tuple[str, str | None]]] = {}
    for key, record in episode.later:
        if record.kind in DONE:
            same.setdefault((record.kind, record.by, record.why), []).append((key, record.at_utc))
    done += [
        f"{span([key for key, _ in keys])}, at {moment(keys[0][1])}: {DONE[kind]} (by {author}): {reason}"
        for (kind, author, reason), keys in same.items()
    ]
    settled = {key for key, record in episode.later if record.kind in DONE and not isinstance(record, Repair)}
    if len(settled) < len(episode.keys):
        done.append("Held until someone repairs or accepts it.")
    terms: dict[str, list[Inline]] = {
        "What arrived": [fault.came if len(fault.came) > LONG else Strong(fault.came)],
        "Expected": [fault.expected],
        "Found by": [f"check {fault.check.replace('_', ' ')} of source {fault.source}{column}"],
        "When": [f"{moment(fault.at_utc)}, when {first} was closed"],
        "What was done": [*done],
    }
    title = f"Faulty delivery: {fault.source} of {span(episode.keys)}"
    return Section(title=title, blocks=[Terms(terms)], kind="fault")
