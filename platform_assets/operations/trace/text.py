"""Render the lineage of an answer as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from platform_assets.base.wording import counted, span
from platform_assets.operations.trace.lineage import Inputs, Lineage, Table
from platform_assets.serving.answer import answers
from platform_assets.store.records.attempts import TRAIN

STATES = {
    "fault": "held",
    "repair": "held, its new delivery is not judged yet",
    "accept": "accepted",
    "repaired": "repaired",
    "null": "settled, the source was left out",
    "drop": "dropped",
}
"""What a key is, by the kind of its newest fault record."""
MOST_DIFFERING = 8
"""How many inputs that differ from our features are shown; JSON has all that `monitoring.skew` names."""


def as_text(lineage: Lineage) -> str:
    """Return a lineage as text for a terminal."""
    answer, model, training = lineage.answer, lineage.model, lineage.training
    description = "(an answer of another kind than the product's task is now)"
    if any(name in answer for name in ("probability", "probabilities", "value")):
        description = answers.describe(answer)
    lines = [
        f"answer    {answer['prediction_id']}: {answer['entity']} {description}",
        f"          key {answer['key']}, asked at {answer['asked_at']}, answered {answer['answered_at_utc']}",
        f"model     {model.digest}",
        f"          cutoff {model.cutoff}, trained on what was known before {model.known_before}",
    ]
    outcome = "unknown"
    if lineage.outcome is not None:
        label = "no label" if lineage.outcome.label is None else lineage.outcome.label
        outcome = f"{label}, known at {lineage.outcome.known_at}"
    lines += [*_input_lines(lineage.inputs), f"outcome   {outcome}"]
    for fault in lineage.faults:
        lines.append(f"fault     key {fault.key}: {STATES[fault.kind]}")
        for record in fault.records:
            check = f" {record.source}: {record.check}" if record.source and record.check else ""
            author = f"by {record.by or 'nobody'} at {record.at_utc or 'an unknown time'}"
            lines.append(f"          {record.number}: {record.kind}{check}, {author}")
            if record.came:
                lines.append(f"             arrived {record.came}; expected {record.expected}")
            elif record.why:
                lines.append(f"             {record.why}")
    release = lineage.release
    if release is not None:
        lines.append(f"release   {release.number}, {release.outcome} {release.at_utc}: {release.why}")
    verdict = lineage.verdict
    if verdict is not None:
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in verdict.challenger.items() if value is not None)
        lines.append(f"verdict   {'passed' if verdict.passed else 'failed'}: {numbers}")
        lines += [f"          {reason}" for reason in verdict.reasons]
    exact = "" if training.is_exact else " (of this cutoff; the training of this model itself is not on record)"
    lines.append(f"training  {counted(len(training.attempts), 'attempt')}{exact}")
    lines += [
        f"          {attempt.number}: {attempt.step or TRAIN}, {attempt.reason}, began {attempt.started_at_utc}, "
        f"{'unknown' if attempt.cpu_s is None else format(attempt.cpu_s, '.0f')} CPU s on {attempt.profile}, "
        f"{attempt.cost_usd:.4f} USD"
        for attempt in training.attempts
    ]
    lines += [f"          in {spent.month} {spent.over} Allowed: {spent.why}" for spent in training.over_budget]
    trained = lineage.trained_on
    for part in ("training", "holdout"):
        keys = getattr(trained, part)
        lines.append(f"          {part} keys: {keys.keys}, {span((keys.first, keys.last))}")
    lines += [f"          without {key}: {reason}" for key, reason in trained.unlabelled.items()]
    lines += _record_line("features", lineage.features.record)
    for read in lineage.features.sources:
        lines += _record_line(f"  {read.source}", read.validated)
        if read.file is not None:
            lines.append(f"            {read.file.sha256}  {read.file.uri}")
    return "\n".join(lines)


def _input_lines(inputs: Inputs | None) -> list[str]:
    if inputs is None:
        return ["inputs    not logged"]
    differing, head = inputs.differing, f"inputs    {len(inputs.logged)} logged"
    if not inputs.is_compared:
        return [f"{head}; we have no features for this entity and time"]
    if not differing:
        return [f"{head}, equal to our features as they are now"]
    more = f" and {len(differing) - MOST_DIFFERING} more" if len(differing) > MOST_DIFFERING else ""
    named = ", ".join(f"{one.field} {one.served} (ours {one.ours})" for one in differing[:MOST_DIFFERING])
    return [f"{head}; different from our features as they are now: {named}{more}"]


def _record_line(name: str, record: Table | None) -> Iterable[str]:
    if record is None:
        return [f"{name:<20} not on record"]
    text = f"key {record.key}, version {record.table_version}, {counted(record.rows, 'row')}"
    return [f"{name:<20} {text}, content {record.content_digest}"]
