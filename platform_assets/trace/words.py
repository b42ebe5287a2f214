"""Put the way from an answer to the landed files into words, for a terminal.

Belongs here: `way` as text. Does not belong here: reading records (the package).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from platform_assets.records.attempts import TRAIN
from platform_assets.records.performance import Value
from platform_assets.serving import answers
from platform_assets.trace.way import FaultyKey, Inputs, Outcome, Table, Way

MOST_DIFFERING = 8
"""How many inputs that differ from our features the screen shows; JSON has all that `compute.skew` names."""


def as_text(found: Way) -> str:
    """Return the way for a terminal."""
    answer, model, training = found.answer, found.model, found.training
    lines = [
        f"answer    {answer['prediction_id']}: {answer['entity']} {_words(answer)}",
        f"          key {answer['key']}, asked at {answer['asked_at']}, answered {answer['answered_at_utc']}",
        f"model     {model.digest}",
        f"          cutoff {model.cutoff}, nothing known from {model.known_before} on",
    ]
    lines += [*_input_lines(found.inputs), _outcome_line(found.outcome), *_fault_lines(found.faults)]
    release = found.release
    if release is not None:
        lines.append(f"release   {release.number}, {release.outcome} {release.at_utc}: {release.why}")
    verdict = found.verdict
    if verdict is not None:
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in verdict.challenger.items() if value is not None)
        lines.append(f"verdict   {'passed' if verdict.passed else 'failed'}: {numbers}")
        lines += [f"          {reason}" for reason in verdict.reasons]
    exact = "" if training.is_exact else " (of this cutoff; the training of this very model is not on record)"
    lines.append(f"training  {len(training.attempts)} attempts{exact}")
    lines += [
        f"          {each.number}: {each.step or TRAIN}, {each.reason}, began {each.started_at_utc}, "
        f"{'unknown' if each.cpu_s is None else format(each.cpu_s, '.0f')} CPU s on {each.profile}, "
        f"{each.cost_usd:.4f} USD"
        for each in training.attempts
    ]
    lines += [f"          in {each.month} {each.over} Allowed: {each.why}" for each in training.over_budget]
    trained = found.trained_on
    for part in ("training", "holdout"):
        told = getattr(trained, part)
        lines.append(f"          {part} keys: {told.keys}, {told.first} to {told.last}")
    lines += [f"          without {key}: {why}" for key, why in trained.unlabelled.items()]
    lines += _record_line("features", found.features.record)
    for each in found.features.sources:
        lines += _record_line(f"  {each.source}", each.validated)
        if each.file is not None:
            lines.append(f"            {each.file.sha256}  {each.file.uri}")
    return "\n".join(lines)


def _words(answer: Mapping[str, Value | list[float]]) -> str:
    """Return what was answered; of an answer of another kind, which the product's task was once, that it is one."""
    is_ours = any(name in answer for name in ("probability", "probabilities", "value"))
    return answers.describe(answer) if is_ours else "(its answer was of another kind than the product's task is now)"


def _input_lines(inputs: Inputs | None) -> list[str]:
    if inputs is None:
        return ["inputs    were not logged"]
    differing, head = inputs.differing, f"inputs    {len(inputs.logged)} logged"
    if not inputs.is_compared:
        return [f"{head}; we have no features of this entity and moment"]
    if not differing:
        return [f"{head}, equal to our features as they are now"]
    more = f" and {len(differing) - MOST_DIFFERING} more" if len(differing) > MOST_DIFFERING else ""
    each = ", ".join(f"{one.field} {one.served} (ours {one.ours})" for one in differing[:MOST_DIFFERING])
    return [f"{head}; from our features as they are now differ {each}{more}"]


def _outcome_line(outcome: Outcome | None) -> str:
    if outcome is None:
        return "outcome   not known"
    return f"outcome   {'no label' if outcome.label is None else outcome.label}, known at {outcome.known_at}"


def _fault_lines(faults: Iterable[FaultyKey]) -> list[str]:
    lines = []
    for fault in faults:
        is_settled = "held" if fault.is_held else "out for good" if fault.is_out else "settled"
        lines.append(f"fault     key {fault.key} is {is_settled} ({fault.kind})")
        for each in fault.records:
            what = f" {each.source}: {each.check}" if each.source and each.check else ""
            lines.append(f"          {each.number}: {each.kind}{what}, by {each.by or None} at {each.at_utc or None}")
            if each.came:
                lines.append(f"             came {each.came}; expected {each.expected}")
            elif each.why:
                lines.append(f"             {each.why}")
    return lines


def _record_line(name: str, record: Table | None) -> Iterable[str]:
    if record is None:
        return [f"{name:<20} not on record"]
    told = f"key {record.key}, version {record.table_version}, {record.rows:,} rows"
    return [f"{name:<20} {told}, content {record.content_digest}"]
