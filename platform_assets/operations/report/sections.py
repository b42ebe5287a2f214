"""The sections about what to do, quality, drift, releases, latency, labels and rows put aside."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from platform_assets.base.wording import counted, span
from platform_assets.data import declared
from platform_assets.evaluation import releases
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import latency, measured, performance_policy
from platform_assets.operations.report.blocks import (
    Bar,
    Block,
    Code,
    Inline,
    Mark,
    Section,
    Table,
    Task,
    figure,
    paragraph,
)
from platform_assets.operations.status.facts import Reported
from platform_assets.operations.status.state import Todo
from platform_assets.operations.status.text import SHELL, describe_interval
from platform_assets.operations.views import monitoring_plots, plots
from platform_assets.store.records.faults import Judgement
from platform_assets.store.records.verdicts import CHALLENGER, CHAMPION, Verdict

MOST_DECISIONS, MOST_REASONS = 16, 12
LONGEST = 240
"""Characters of a reason that a table shows."""
COLOURS = {"retrain": "green", "alert_fault": "red"}


def todo(tasks: Sequence[Todo], noun: str = "key") -> Section:
    """Return what to do with its commands, or that there is nothing.

    Args:
        noun: what a key of this product is called.
    """
    if not tasks:
        text = f"No {noun} is held, the model is not stale, and no label is missing."
        return Section(title="Nothing to do now", blocks=[paragraph(text)], kind="sound")
    shell: list[Block] = []
    if any(step.command.startswith("dg ") for task in tasks for step in task.steps):
        shell = [paragraph("In a new shell, run ", Code(SHELL), " first.", kind="muted small")]
    return Section(title="What to do now", blocks=[*map(Task, tasks), *shell], kind="todo")


def quality(facts: Reported) -> Section:
    """Return quality per key with intervals."""
    title = f"Quality per {facts.noun}"
    if facts.quality is None or not any(numbers.quality for numbers in facts.measured.values()):
        return Section(title=title, blocks=[paragraph("No answer has a label yet.")])
    recent = facts.quality
    rows = []
    for measure in measures_of(facts.spec.task).every:
        interval = recent.quality.get(measure.name)
        if interval is not None:
            rows.append((measure.axis, f"{interval.value:.4f}", describe_interval(interval)))
    window = (
        f"{counted(recent.rows, 'labelled answer')} on the newest {counted(recent.keys, facts.noun)} with labels, "
        f"{span((recent.first, recent.last))}. Intervals are clustered by {facts.noun}, because answers of one "
        f"{facts.noun} are not independent."
    )
    blocks: list[Block] = [
        figure(
            monitoring_plots.quality_by_key(facts.measured, facts.spec.task, releases=_released_at(facts)),
            f"{measures_of(facts.spec.task).headline.title} and log loss per {facts.noun}, with intervals",
        ),
        paragraph(window),
    ]
    if recent.model is not None:
        text = (
            f"The live model's log loss differs from its own expected loss by {recent.model.excess:+.4f} nats over "
            f"{counted(recent.model.keys, facts.noun)}"
        )
        tested = performance_policy.describe(recent.model.tests or {}, facts.spec.retraining)
        blocks.append(paragraph(text + (f"; {tested}." if tested else ".")))
    columns = ("measure", "recent", f"{facts.spec.gates.confidence:.0%} interval")
    blocks.append(
        Table(about="quality of the newest labelled answers", columns=columns, rows=rows, numbers=("recent",))
    )
    return Section(title=title, blocks=blocks)


def by_slice(facts: Reported) -> Section | None:
    """Return the measures of each group of each slice; None for a product without slices or labels."""
    recent, measures = facts.quality, measures_of(facts.spec.task).of_answers
    if recent is None or not facts.slices:
        return None
    rows = [
        (one.slice, one.value, f"{one.rows:,}", *(_number(one.quality.get(measure.name)) for measure in measures))
        for one in facts.slices
    ]
    names = tuple(measure.title for measure in measures)
    text = (
        f"The same answers, {recent.first} to {recent.last}. Without intervals: among many groups some look bad by "
        "chance."
    )
    table = Table(
        about="quality by slice", columns=("slice", "value", "rows", *names), rows=rows, numbers=("rows", *names)
    )
    return Section(title="Quality by slice", blocks=[paragraph(text, kind="muted"), table])


def timeline(facts: Reported) -> Section:
    """Return drift, faults, decisions and releases along the keys, and the decisions other than to wait."""
    title = "Drift and decisions"
    if not facts.judged:
        return Section(title=title, blocks=[paragraph(f"No {facts.noun} has been judged yet.")])
    rows: list[tuple[Inline, ...]] = [
        (
            key,
            Mark(record.action.replace("_", " "), COLOURS.get(record.action, "grey")),
            shorten(" ".join(record.reasons), LONGEST, placeholder=" …"),
        )
        for key, record in facts.decisions.items()
        if record.action != "wait"
    ]
    waits = [record for record in facts.decisions.values() if record.action == "wait"]
    last = f" The newest reason: {waits[-1].reasons[0]}" if waits else ""
    judged = {key: facts.judged.get(key, Judgement()) for key in facts.keys}
    chart = monitoring_plots.drift_timeline(
        {key: one.index.percentile if one.index else None for key, one in judged.items()},
        answers={key: one.mix.percentile if one.mix else None for key, one in judged.items()},
        limit=facts.spec.monitors.drift_limit,
        decisions={key: record.action for key, record in facts.decisions.items() if key in judged},
        faults={
            key: f"{episode.fault.source}: {episode.fault.check}".replace("_", " ")
            for episode in facts.episodes
            for key in episode.keys
        },
        releases=_released_at(facts),
    )
    blocks: list[Block] = [figure(chart, f"drift, faults, decisions and releases per {facts.noun}")]
    if rows:
        columns = (facts.noun, "decision", "because")
        newest = rows[-MOST_DECISIONS:][::-1]
        blocks.append(Table(about="decisions other than to wait", columns=columns, rows=newest, is_stacked=True))
    decided = f"On {counted(len(waits), facts.noun)} the decision was to wait.{last}"
    return Section(title=title, blocks=[*blocks, paragraph(decided, kind="muted small")])


def released(facts: Reported) -> Section:
    """Return every release with its model's verdict."""
    headline = measures_of(facts.spec.task).headline
    rows: list[tuple[Inline, ...]] = []
    for number, record in reversed(facts.releases):
        verdict = facts.verdicts.get(record.digest)
        rows.append(
            (
                number,
                record.cutoff,
                Code(record.digest[: releases.SHORT_DIGEST]),
                _of_challenger(verdict, headline.name),
                _of_challenger(verdict, "log_loss"),
                _compared_with(verdict, headline.name),
                _number(facts.usd_of_models.get(number)),
                record.why,
            )
        )
    if not rows:
        return Section(title="Releases", blocks=[paragraph("Nothing has been released yet.")])
    columns = ("release", "cutoff", "model", headline.title, "log loss", "compared with", "USD", "why")
    rule = (
        "A model is released when its log loss is below that of its baselines and nothing shows that it is worse than "
        f"the previous model, on {facts.nouns} that neither was trained on. It cost every attempt since the one before "
        "it, failed attempts and trainings that were not released included, and no trial of a search."
    )
    table = Table(
        about="releases", columns=columns, rows=rows, numbers=(headline.title, "log loss", "USD"), is_stacked=True
    )
    return Section(title="Releases", blocks=[paragraph(rule, kind="muted"), table])


def calibration(facts: Reported) -> Section:
    """Return what was predicted against what happened, in the newest window."""
    title = "Calibration"
    if facts.answers is None or facts.answers.is_empty():
        return Section(title=title, blocks=[paragraph("No answer has a label yet.")])
    task, rows = facts.spec.task, facts.answers
    measures = measures_of(task)
    error = measures.quality(task.labels_of(rows["label"]), task.answers_of(rows))["ece"]
    assert error is not None  # rows with labels always have one
    bins = measured.calibration(rows, measures)
    blocks: list[Block] = [
        figure(
            plots.calibration_plot({"served answers": bins}, task),
            f"{measures.observed_title} against {measures.expected_title}",
        ),
        paragraph(f"Expected calibration error {error:.1%}, over {rows.height:,} labelled answers.", kind="muted"),
    ]
    return Section(title=title, blocks=blocks)


def service(facts: Reported) -> Section:
    """Return how many requests were slower than the product's objective."""
    text, judged = latency.describe(facts.latency), facts.latency
    kind = "fault" if judged and judged.is_slow else ""
    return Section(title="Latency", blocks=[paragraph(f"{text[:1].upper()}{text[1:]}.")], kind=kind)


def quarantine(facts: Reported) -> Section:
    """Return the rows that no schema let in, by source and reason."""
    aside, rows_of = facts.quarantine
    landed = sum(rows for source, rows in rows_of.items() if source != declared.THE_FEATURES)
    if not aside:
        return Section(title="Quarantine", blocks=[paragraph(f"None of {landed:,} landed rows was put aside.")])
    most = max(aside.values())
    by_count = sorted(aside.items(), key=lambda item: -item[1])
    rows = [
        (source, f"{number:,}", f"{number / rows_of[source]:.2%}", Bar(number / most, longest_px=120), reason)
        for (source, reason), number in by_count[:MOST_REASONS]
    ]
    rest = len(by_count) - MOST_REASONS
    columns = ("source", "rows", "of its rows", "", "reason")
    numbers = ("rows", "of its rows")
    blocks: list[Block] = [
        Table(about="rows put aside", columns=columns, rows=rows, numbers=numbers, is_stacked=True),
        paragraph(
            f"Of {landed:,} landed rows, including those before the first answer."
            + (f" Rarer reasons that are not shown: {rest}." if rest > 0 else ""),
            kind="muted small",
        ),
    ]
    return Section(title="Quarantine by reason", blocks=blocks)


def unlabelled(facts: Reported) -> Section | None:
    """Return the keys that trainings leave out because their labels were late; None without any."""
    notes = facts.unlabelled
    if not notes:
        return None
    rows = [(note.key, note.from_cutoff, note.until_cutoff or "not yet", note.why) for note in notes[::-1]]
    columns = (facts.noun, "left out from cutoff", "used again from cutoff", "why")
    blocks: list[Block] = [Table(about="late labels", columns=columns, rows=rows[:MOST_DECISIONS], is_stacked=True)]
    if (more := len(rows) - MOST_DECISIONS) > 0:
        blocks.append(paragraph(f"And {counted(more, facts.noun)} earlier.", kind="muted small"))
    return Section(title="Late labels", blocks=blocks)


def _released_at(facts: Reported) -> dict[str, str]:
    """Return what to write at the keys from which on a release answered."""
    return {record.cutoff: f"release {number}" for number, record in facts.releases if record.cutoff in facts.keys}


def _of_challenger(verdict: Verdict | None, metric: str) -> str:
    return _number(None if verdict is None else verdict.challenger.get(metric))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _compared_with(verdict: Verdict | None, headline: str) -> str:
    """Return the numbers of the champion, or of the best baseline where there was none."""
    models = {} if verdict is None else verdict.models
    others = {name: numbers for name, numbers in models.items() if name != CHALLENGER}
    losses = {name: loss for name, numbers in others.items() if (loss := numbers["log_loss"]) is not None}
    if not losses:
        return "–"
    name = CHAMPION if CHAMPION in others else min(losses, key=lambda other: losses[other])
    return f"{name}: {_number(others[name].get(headline))}, {_number(others[name].get('log_loss'))}"
