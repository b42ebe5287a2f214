"""Say in sections what a product's facts mean for whoever pays for it: quality, drift, releases, rows put aside.

Belongs here: sentences, tables and pictures of one report. Does not belong here: faults (`faults`), cost (`money`),
reading (`facts`), the look of a piece (`markup`).
"""

from __future__ import annotations

from textwrap import shorten

from platform_assets import status
from platform_assets.compute import declared, performance, performance_policy, releases
from platform_assets.records.judgements import Judgement
from platform_assets.records.performance import Interval
from platform_assets.records.verdicts import CHALLENGER, CHAMPION, Verdict
from platform_assets.report import markup as html
from platform_assets.report.facts import Facts
from platform_assets.report.markup import Html
from platform_assets.show import monitoring_plots, plots, task_plots

MOST_REASONS = 12
MOST_DECISIONS = 16
LONGEST = 240
"""How many letters of a reason stand in a table."""


def head(facts: Facts) -> Html:
    """Return the title, and what is covered."""
    spec, now = facts.spec, facts.standing.now_utc
    covered = "no key has been answered yet"
    if facts.keys:
        covered = f"{html.counted(facts.answered, 'key')} with answers, {facts.keys[0]} to {facts.keys[-1]}"
    clock = "wall clock" if spec.is_live else "a recording's clock"
    written = f"{covered}; written at {html.moment(now) if now else 'an unknown moment'} ({clock})."
    return Html(
        f"<header><h1>{html.text(spec.title)}</h1><p>{html.text(spec.description)}</p>"
        f'<p class="small">{html.text(written)}</p></header>'
    )


def tiles(facts: Facts) -> Html:
    """Return the numbers at the top."""
    standing = facts.standing
    release, quality = standing.release, standing.quality
    answered = sum(notes.rows for notes in facts.measured.values())
    faults = len(facts.episodes)
    broken = sum(len(each.keys) for each in facts.episodes)
    headline = facts.spec.task.headline
    lately = quality.quality.get(headline.name) if quality else None
    model, covered = ("–", "nothing is released"), "no labels yet"
    if quality is not None:
        covered = f"{_interval(lately)}, last {quality.keys} labelled keys"
        covered += f", without held ones: {status.held_words(quality)}" if quality.held else ""
    if release is not None:
        age = "age unknown" if release.age_keys is None else f"{release.age_keys} keys old"
        model = (f"release {release.number}", f"{age}; model {release.digest[: releases.SHORT_DIGEST]}")
    return html.tiles(
        [
            ("Live model", *model),
            (
                f"{headline.title[:1].upper()}{headline.title[1:]} lately",
                "–" if lately is None else f"{lately.value:.3f}",
                covered,
            ),
            ("Predictions answered", f"{answered:,}", f"over {facts.answered} keys"),
            (
                "Broken deliveries caught",
                faults,
                f"on {html.counted(broken, 'key')}" if faults else "every delivery was sound",
            ),
        ]
    )


def quality(facts: Facts) -> Html:
    """Return quality by key with intervals."""
    if not any(notes.quality for notes in facts.measured.values()):
        return html.section("Quality", html.paragraph("No answer has a label yet, so nothing can be said."))
    lately = facts.standing.quality
    assert lately is not None  # a key with labels has a window
    rows = []
    for measure in facts.spec.task.shown:
        one = lately.quality.get(measure.name)
        if one is not None:
            rows.append((measure.axis, f"{one.value:.4f}", _interval(one)))
    head = (
        f"The newest {lately.keys} labelled keys, {lately.first} to {lately.last}, hold "
        f"{lately.rows:,} labelled answers. Intervals are clustered by key: answers of one key share its fate."
    )
    model, expectation = lately.model, ""
    if model is not None:
        expectation = (
            f"Log loss of the live model is {model.excess:+.4f} nats from what it expects of itself over "
            f"{model.keys} keys"
        )
        tested = performance_policy.describe(model.tests or {}, facts.spec.retraining)
        expectation += f"; {tested}." if tested else "."
    picture = monitoring_plots.quality_by_key(facts.measured, facts.spec.task, releases=_released_at(facts))
    return html.section(
        "Quality by key",
        html.figure(picture, f"{facts.spec.task.headline.title} and log loss by key, with intervals"),
        html.paragraph(head),
        html.paragraph(expectation) if expectation else "",
        html.table(("measure", "lately", f"{facts.spec.gates.confidence:.0%} interval"), rows, numbers=("lately",)),
    )


def timeline(facts: Facts) -> Html:
    """Return drift, faults, decisions and releases on one line, and the decisions that did something."""
    if not facts.judged:
        return html.section("Drift and decisions", html.paragraph("No key has been judged yet."))
    nothing = Judgement()
    judged = {key: facts.judged.get(key, nothing) for key in facts.keys}
    drift = {key: each.index.percentile if each.index else None for key, each in judged.items()}
    mix = {key: each.mix.percentile if each.mix else None for key, each in judged.items()}
    actions = {key: record.action for key, record in facts.decisions.items() if key in drift}
    named = {key: f"{each.fault.source}: {each.fault.check}" for each in facts.episodes for key in each.keys}
    picture = monitoring_plots.drift_timeline(
        drift,
        answers=mix,
        limit=facts.spec.monitors.drift_limit,
        decisions=actions,
        faults={key: words.replace("_", " ") for key, words in named.items()},
        releases=_released_at(facts),
    )
    told = [
        (key, _action(record.action), shorten(" ".join(record.reasons), LONGEST, placeholder=" …"))
        for key, record in facts.decisions.items()
        if record.action != "wait"
    ]
    waits = [record for record in facts.decisions.values() if record.action == "wait"]
    last = f" The last: {waits[-1].reasons[0]}" if waits else ""
    return html.section(
        "Drift and decisions",
        html.figure(picture, "drift, faults, decisions and releases by key"),
        html.table(("key", "decided", "because"), told[-MOST_DECISIONS:]) if told else "",
        html.paragraph(f"On {html.counted(len(waits), 'key')} the answer was to wait.{last}", kind="muted small"),
    )


def releases_table(facts: Facts) -> Html:
    """Return every release with how its model was judged."""
    rows, headline = [], facts.spec.task.headline
    for number, record in reversed(facts.releases):
        verdict = facts.verdicts.get(record.digest)
        rows.append(
            (
                number,
                record.cutoff,
                html.code(record.digest[: releases.SHORT_DIGEST]),
                _judged(verdict, headline.name),
                _judged(verdict, "log_loss"),
                _against(verdict, headline.name),
                record.why,
            )
        )
    if not rows:
        return html.section("Releases", html.paragraph("Nothing has been released yet."))
    columns = ("release", "cutoff", "model", headline.title, "log loss", "beside", "why")
    return html.section(
        "Releases",
        html.paragraph("A model is released when its log loss is below its baselines' and nothing shows that it is "
                       "worse than the one before, on keys that neither was trained on.", kind="muted"),
        html.table(columns, rows, numbers=("release", headline.title, "log loss")),
    )  # fmt: skip


def calibration(facts: Facts) -> Html:
    """Return what was predicted beside what happened, of the newest window."""
    if facts.answers is None or facts.answers.is_empty():
        return html.section("Calibration", html.paragraph("No answer has a label yet."))
    task, rows = facts.spec.task, facts.answers
    error = task.quality(task.labels_of(rows["label"]), task.answers_of(rows))["ece"]
    assert error is not None  # rows with labels always have one
    picture = plots.calibration_plot({"served answers": performance.calibration(rows, task)}, task)
    shown = task_plots.pictures(task, {"served answers": performance.decided(rows, task)})
    return html.section(
        "Calibration",
        html.figure(picture, f"{task.observed_words} against {task.expected_words}"),
        html.paragraph(
            f"Over {rows.height:,} labelled answers, promise and outcome lie {error:.1%} apart on average.",
            kind="muted",
        ),
        *(html.figure(png, name.lower()) for name, png in shown.items()),
    )


def quarantine(facts: Facts) -> Html:
    """Return rows that no schema let in, by source and reason."""
    landed = sum(rows for source, rows in facts.landed.items() if source != declared.THE_FEATURES)
    if not facts.quarantine:
        return html.section("Quarantine", html.paragraph(f"None of {landed:,} landed rows was put aside."))
    most = max(facts.quarantine.values())
    found = sorted(facts.quarantine.items(), key=lambda item: -item[1])
    rows = [
        (source, f"{count:,}", f"{count / facts.landed[source]:.2%}", html.bar(count / most, longest_px=120), reason)
        for (source, reason), count in found[:MOST_REASONS]
    ]
    rest = len(found) - MOST_REASONS
    return html.section(
        "Quarantine by reason",
        html.table(("source", "rows", "of its rows", "", "reason"), rows, numbers=("rows", "of its rows")),
        html.paragraph(
            f"Of {landed:,} landed rows, those before the first answer too."
            + (f" {html.counted(rest, 'more reason')} are rarer." if rest > 0 else ""),
            kind="muted small",
        ),
    )


def unlabelled(facts: Facts) -> Html:
    """Return the keys that trainings do without because labels did not come in time; nothing when there are none."""
    found = facts.standing.unlabelled
    if not found:
        return Html("")
    rows = [(each.key, each.from_cutoff, each.until_cutoff or "all later", each.why) for each in found[::-1]]
    more = len(rows) - MOST_DECISIONS
    return html.section(
        "Labels that did not come in time",
        html.table(("key", "left out from cutoff", "up to before", "why"), rows[:MOST_DECISIONS]),
        html.paragraph(f"{html.counted(more, 'more key')} came before.", kind="muted small") if more > 0 else "",
    )


def foot(facts: Facts) -> Html:
    """Return who made the page and from what."""
    return Html(
        "<footer>Driftline: every number on this page is read from the records of "
        f"{html.text(facts.spec.name)}; nothing is fetched.</footer>"
    )


def _interval(one: Interval | None) -> str:
    return "no interval" if one is None or one.low is None else f"{one.low:.4f} to {one.high:.4f}"


def _released_at(facts: Facts) -> dict[str, str]:
    """Return what to write at the keys from which on a release answered."""
    return {record.cutoff: f"release {number}" for number, record in facts.releases if record.cutoff in facts.keys}


def _action(action: str) -> Html:
    return html.mark(action.replace("_", " "), {"retrain": "green", "alert_fault": "red"}.get(action, "grey"))


def _judged(verdict: Verdict | None, metric: str) -> str:
    return _number(None if verdict is None else verdict.challenger.get(metric))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _against(verdict: Verdict | None, headline: str) -> str:
    """Return the numbers of the champion, or of the best baseline where there was none."""
    models = {} if verdict is None else verdict.models
    others = {name: numbers for name, numbers in models.items() if name != CHALLENGER}
    losses = {name: loss for name, numbers in others.items() if (loss := numbers["log_loss"]) is not None}
    if not losses:
        return "–"
    name = CHAMPION if CHAMPION in others else min(losses, key=lambda each: losses[each])
    return f"{name}: {_number(others[name].get(headline))}, {_number(others[name].get('log_loss'))}"
