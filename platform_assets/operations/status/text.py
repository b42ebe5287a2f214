"""Render a product's state as text for a terminal, and the clauses that the report shares with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import shorten

from platform_assets.base import naming
from platform_assets.base.wording import NOUNS, counted, plural, span
from platform_assets.data.columns import in_short
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.monitoring import latency
from platform_assets.operations.status.state import (
    BrokenState,
    Held,
    Live,
    Past,
    Quality,
    Slice,
    State,
    Todo,
    Unlabelled,
)
from platform_assets.product.tasks import Binary, MultiClass, Regression
from platform_assets.store.records.performance import Interval
from platform_assets.store.records.verdicts import contestants

KEYS_SHOWN = 8
TODO_SHOWN = 8
LONGEST, LONGEST_REFUSAL = 320, 1_200
"""Characters of reasons that the terminal shows, of a decision and of a refused model; JSON has all."""
FEWEST_ROWS = 100
"""A slice with fewer rows is not named as the weakest: its number says little."""
_TASKS = (Binary(), MultiClass(classes=("yes", "no")), Regression())
TITLES = {
    measure.name: measure.title
    for task in _TASKS
    for measure in (*measures_of(task).of_answers, *measures_of(task).of_decisions)
}
"""What a measure is called, by the name under which records hold it: `AUC`."""
SHELL = 'eval "$(driftline env)"'
"""What a shell needs before a command of `dg`."""


def as_text(state: State | Past | BrokenState) -> str:
    """Return a product's state for a terminal: one screen, and what to do below it."""
    if isinstance(state, BrokenState):
        release = state.release
        live = "none yet" if release is None else f"{release.number}, model {release.digest[:SHORT_DIGEST]}"
        head = f"{state.product}: its file is broken\n  error      {state.broken.error}\n  release    {live}"
        return "\n".join([head, *_todo_lines(state.product, state.todo)])
    decided = "none yet"
    if (decision := state.decision) is not None:
        cutoff = f" for cutoff {decision.cutoff}" if decision.action == "retrain" else ""
        reasons = shorten(" ".join(decision.reasons), LONGEST, placeholder=" …")
        decided = f"{decision.key}: {decision.action.replace('_', ' ')}{cutoff}. {reasons}"
    kept_out = "no " + NOUNS[state.grain]
    if state.held:
        newest = []
        for one in state.held[-KEYS_SHOWN:]:
            check = f" ({one.source}: {one.check})" if one.source and one.check else ""
            newest.append(f"{one.key} {'held' if one.is_held else 'dropped'}{check}")
        more = len(state.held) - KEYS_SHOWN
        kept_out = ", ".join(newest) + (f" and {more} earlier" if more > 0 else "")
    of_both = [f"  decision   {decided}", f"  kept out   {kept_out}"]
    if isinstance(state, Past):
        closed = state.newest_closed_key or f"no {NOUNS[state.grain]} yet"
        head = f"{state.product}: {state.title}, at {state.at_utc}"
        return "\n".join([head, f"  closed     {closed}", *_release_lines(state), *of_both])
    held = held_keys(state.held)
    head = f"{state.product}: {state.title}" + (f"; held: {list_keys(held)}" if held else "")
    return "\n".join(
        [head, *_model_lines(state), *of_both, *_data_lines(state), *_todo_lines(state.product, state.todo)]
    )


def _model_lines(state: State) -> Iterator[str]:
    """Yield the lines about the live model and what it answered."""
    yield f"  clock      {state.now_utc or 'never set'} ({'wall clock' if state.is_live else 'recording'})"
    if state.automation:
        yield f"  automation {state.automation}"
    if state.waits_for:
        yield f"  waits for  {state.waits_for}"
    yield from _release_lines(state)
    yield f"  quality    {describe_quality(state.quality, state.grain)}"
    if (rare := state.rare) is not None:
        yield (
            f"  rare       average precision {rare.average_precision:.4f} on the live model's holdout; "
            f"{rare.base_rate:.4f} without skill (the share of positives)"
        )
    if state.quality is not None and (weakest := weakest_slices(state)):
        headline = state.quality.headline
        groups = (
            f"{one.slice} = {one.value} with {title_of(headline)} {one.quality[headline]:.4f} ({one.rows:,} rows)"
            for one in weakest
        )
        yield f"  weakest    {'; '.join(groups)}"
    drifted = "unknown: no key was judged yet"
    if (drift := state.drift) is not None:
        index = "no index"
        if drift.percentile is not None:
            index = f"percentile {drift.percentile:.2f} of the training windows; the limit is {drift.limit:g}"
        drifted = f"{drift.verdict.replace('_', ' ')} at {drift.key} ({index})"
    yield f"  drift      {drifted}"
    if (refused := state.refused) is not None:
        reasons = shorten(" ".join(refused.reasons), LONGEST_REFUSAL, placeholder=" …")
        yield f"  refused    model {refused.digest[:SHORT_DIGEST]} of cutoff {refused.cutoff}: {reasons}"


def _data_lines(state: State) -> Iterator[str]:
    """Yield the lines about keys whose rows are other than they might be, and about what failed."""
    noun = NOUNS[state.grain]
    if (aside := state.put_aside) is not None:
        of_rows = f"{aside.rows:,} of {aside.built:,} rows of features of {counted(aside.keys, noun)}"
        yield f"  put aside  {of_rows}, most recently {aside.newest}: {next(iter(aside.why))}"
    if (older := state.older) is not None:
        stages = ", ".join(f"{stage} of {count:,}" for stage, count in older.stages.items())
        since = f"the present one since {older.since_utc}" if older.since_utc else "no row of the present one yet"
        yield (
            f"  older      {older.keys:,} of {counted(older.among, 'key')} of the next training, "
            f"{span((older.first, older.last))}, {'was' if older.keys == 1 else 'were'} made by an earlier version; "
            f"{since}"
        )
        yield f"             stages: {shorten(stages, LONGEST, placeholder=' …')}"
        yield f"             {older.outlook}"
    snapshots = []
    for one in state.snapshots:
        # Until a rebuild has covered them, keys stay as they are: rows of a key never change by themselves.
        then = f"; {naming.job('rebuild', state.product)} makes them with the newest"
        if one.rebuild is not None:
            left = "has not begun" if one.left is None else f"has {counted(one.left, noun)} to make"
            then = f"; rebuild {one.rebuild} {left}"
        snapshots.append(f"{one.source}: {one.older:,} of {counted(one.keys, noun)} keep an older snapshot{then}")
    if snapshots:
        yield f"  snapshots  {'; '.join(snapshots)}"
    for item in state.undeclared:
        yield f"  left out   {item.source} of {item.newest}, not declared: {in_short(item.columns)}"
    if state.unlabelled:
        yield f"  no labels  {_describe_unlabelled(state.unlabelled, state.grain)}"
    for slow in state.slow or ():
        problem = slow.problem or f"is slow: {counted(slow.calls, 'call')} of one tick took {slow.seconds:g} s"
        yield f"  sources    {slow.source} {problem} (first at {slow.at_utc})"
    failed = "none on record"
    if (failure := state.failure) is not None:
        keys = f" of {failure.first} to {failure.last}" if failure.first else ""
        place = f"run {failure.run_id}" + (f", step {failure.step}" if failure.step else "")
        failed = f"{failure.at_utc}: {failure.job}{keys}: {failure.error} ({place})"
    yield f"  failure    {failed}"
    if (heard := state.heard) is not None:
        processes, incomplete = counted(heard.processes, "process"), ""
        if heard.unheard:
            incomplete = f"; incomplete: {', '.join(heard.unheard)}"
        received = {
            "answers": f"answers of {processes} in {heard.key}",
            "no_answers": f"heartbeats and no answers of {processes} in {heard.key}",
            "silent": f"nothing in {heard.key}, though a model is live",
            "unreleased": f"nothing in {heard.key}, before the first release",
        }[heard.case]
        clocks = (
            f"; the clock of {process} is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead'}"
            for process, offset in heard.wrong_clocks.items()
        )
        yield f"  received   {received}{incomplete}{''.join(clocks)}"
    yield f"  latency    {latency.describe(state.latency)}"


def held_keys(held: Sequence[Held]) -> list[str]:
    """Return the keys that wait for a person; dropped ones do not."""
    return [one.key for one in held if one.is_held]


def title_of(name: str) -> str:
    """Return what a measure is called: `AUC`."""
    return TITLES.get(name, name.replace("_", " "))


def list_keys(keys: Sequence[str]) -> str:
    """Return the newest keys by name and the others as a number: `3 earlier and 2013-03-16, 2013-03-17`."""
    more = len(keys) - KEYS_SHOWN
    return (f"{more} earlier and " if more > 0 else "") + ", ".join(keys[-KEYS_SHOWN:])


def describe_held(quality: Quality) -> str:
    """Return the headline on the newest keys that a quality leaves out: `AUC 0.5850 on 2013-03-16`."""
    values = list(quality.held.items())
    name, more = title_of(quality.headline), len(values) - KEYS_SHOWN
    newest = [
        f"{name} {'unknown' if value is None else f'{value:.4f}'} on {key}" for key, value in values[-KEYS_SHOWN:]
    ]
    return ", ".join(newest) + (f", and {more} earlier" if more > 0 else "")


def weakest_slices(state: State) -> list[Slice]:
    """Return for each slice the group with the lowest headline, among those with at least `FEWEST_ROWS` rows."""
    if state.quality is None:
        return []
    headline, lowest, weakest = state.quality.headline, dict[str, float](), dict[str, Slice]()
    for one in state.slices or ():
        value = one.quality.get(headline)
        if value is not None and one.rows >= FEWEST_ROWS and value < lowest.get(one.slice, math.inf):
            lowest[one.slice], weakest[one.slice] = value, one
    return list(weakest.values())


def describe_interval(interval: Interval | None) -> str:
    """Return an interval by its ends, with 4 decimals."""
    return "no interval" if interval is None or interval.low is None else f"{interval.low:.4f} to {interval.high:.4f}"


def _release_lines(state: State | Past) -> list[str]:
    release = state.release
    if release is None:
        return ["  release    none yet"]
    lines = [
        f"  release    {release.number}, {release.outcome.replace('_', ' ')}: {release.why} (by {release.by})",
        f"  model      {release.digest[:SHORT_DIGEST]}",
        f"  cutoff     {release.cutoff}, {describe_age(release, state.grain)}, released {release.at_utc}",
    ]
    verdict = release.verdict
    if verdict is not None:
        rows, outcome = verdict.rows, "passed" if verdict.passed else "failed"
        lines.append(f"  verdict    {outcome} on {rows.labelled:,} rows, {rows.first_key} to {rows.last_key}")
        for model, numbers in contestants(verdict.models).items():
            values = (f"{title_of(name)} {value:.4f}" for name, value in numbers.items() if value is not None)
            lines.append(f"    {model:<18} {', '.join(values)}")
    return lines


def describe_age(release: Live, grain: str) -> str:
    """Return how old the live model is: `4 days old`."""
    return "age unknown" if release.age_keys is None else f"{counted(release.age_keys, NOUNS[grain])} old"


def describe_quality(quality: Quality | None, grain: str) -> str:
    """Return the measures of the newest labelled answers, with intervals, and which promises of the model fail."""
    if quality is None:
        return "unknown: no answer has a label yet"
    numbers = []
    for name, interval in quality.quality.items():
        if interval is not None:
            ends = "" if interval.low is None else f" ({describe_interval(interval)})"
            numbers.append(f"{title_of(name)} {interval.value:.4f}{ends}")
    span = f"{counted(quality.keys, NOUNS[grain])}, {quality.first} to {quality.last}"
    head = f"{quality.rows:,} labelled answers of {span}"
    tested = []
    if quality.model is not None:
        tested.append(f"log loss differs from the model's own expected loss by {quality.model.excess:+.4f}")
    if quality.promises is not None:
        tested.append(quality.promises)
    if quality.held:
        tested.append(f"without held {plural(NOUNS[grain])}, where callers got {describe_held(quality)}")
    pairs = [", ".join(numbers[start : start + 2]) for start in range(0, len(numbers), 2)]
    return "\n             ".join([head, *pairs, *tested])


def _describe_unlabelled(unlabelled: Sequence[Unlabelled], grain: str) -> str:
    if len(unlabelled) > KEYS_SHOWN:
        later = sum(one.until_cutoff is not None for one in unlabelled)
        ends = f"{counted(len(unlabelled), NOUNS[grain])} left out, {span([one.key for one in unlabelled])}"
        return ends + (f"; labels of {later:,} arrived later" if later else "")
    keys = []
    for one in unlabelled:
        arrived = f", arrived later and used from cutoff {one.until_cutoff} on" if one.until_cutoff else ""
        keys.append(f"{one.key} left out from cutoff {one.from_cutoff} on{arrived}")
    return "; ".join(keys)


def _todo_lines(product: str, todo: Sequence[Todo]) -> list[str]:
    if not todo:
        return []
    lines = ["  to do"]
    for number, one in enumerate(todo[:TODO_SHOWN], start=1):
        lines.append(f"    {number}. {one.text}")
        for step in one.steps:
            lines += [f"       {step.when}:", f"         {step.command}"]
    if len(todo) > TODO_SHOWN:
        lines.append(f"    and {len(todo) - TODO_SHOWN} more: driftline report {product}")
    if any(step.command.startswith("dg ") for one in todo for step in one.steps):
        lines.append(f"    In a new shell, run this first: {SHELL}")
    return lines
