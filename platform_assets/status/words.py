"""Put a product's state into words, for a terminal and for sentences of the report.

Belongs here: plain values as text. Does not belong here: reading records (the package).
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten

from platform_assets.compute import latency
from platform_assets.records.verdicts import contestants
from platform_assets.status.state import (
    Availability,
    BrokenState,
    Decided,
    Drift,
    Failed,
    Held,
    Live,
    Quality,
    State,
    Unlabelled,
)

HELD_SHOWN = 8
LONGEST = 320
"""How many letters of a decision's reasons the screen shows; JSON has all."""


def as_text(state: State | BrokenState) -> str:
    """Return a product's state for a terminal: one screen."""
    if isinstance(state, BrokenState):
        release = state.release
        live = "none yet" if release is None else f"{release.number}, model {release.digest}"
        return f"{state.product}: its file is broken\n  error     {state.broken.error}\n  release   {live}"
    clock_words = "wall clock" if state.is_live else "recording"
    lines = [f"{state.product}: {state.title}", f"  clock     {state.now_utc or 'never set'} ({clock_words})"]
    lines += _release_lines(state.release)
    lines.append(f"  quality   {_quality_words(state.quality)}")
    lines.append(f"  drift     {_drift_words(state.drift)}")
    lines.append(f"  decision  {_decision_words(state.decision)}")
    lines.append(f"  held      {_held_words(state.held)}")
    if (aside := state.put_aside) is not None:
        why = next(iter(aside.why))
        told = f"{aside.rows:,} of {aside.built:,} rows of features of {aside.keys} keys, the newest of"
        lines.append(f"  put aside {told} {aside.newest}: {why}")
    if state.unlabelled:
        lines.append(f"  no labels {_unlabelled_words(state.unlabelled)}")
    lines.append(f"  failure   {_failure_words(state.failure)}")
    lines.append(f"  service   {_availability_words(state.availability)}")
    lines.append(f"  latency   {latency.describe(state.latency)}")
    return "\n".join(lines)


def _release_lines(release: Live | None) -> list[str]:
    if release is None:
        return ["  release   none yet"]
    age = "age unknown" if release.age_keys is None else f"{release.age_keys} keys old"
    lines = [
        f"  release   {release.number}, {release.outcome}: {release.why} (by {release.by})",
        f"  model     {release.digest}",
        f"  cutoff    {release.cutoff}, {age}, released {release.at_utc}",
    ]
    verdict = release.verdict
    if verdict is not None:
        rows, told = verdict.rows, "passed" if verdict.passed else "failed"
        lines.append(f"  verdict   {told} on {rows.labelled:,} rows, {rows.first_key} to {rows.last_key}")
        for name, numbers in contestants(verdict.models).items():
            lines.append(f"    {name:<18}" + _numbers_words(numbers))
    return lines


def _numbers_words(numbers: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if value is not None)


def _quality_words(quality: Quality | None) -> str:
    if quality is None:
        return "unknown: no answer has a label yet"
    numbers = []
    for name, one in quality.quality.items():
        if one is not None:
            interval = "" if one.low is None else f" ({one.low:.4f} to {one.high:.4f})"
            numbers.append(f"{name.replace('_', ' ')} {one.value:.4f}{interval}")
    head = f"{quality.rows:,} labelled answers of {quality.keys} keys, {quality.first} to {quality.last}"
    model = quality.model
    if model is not None:
        numbers.append(f"log loss {model.excess:+.4f} from what the model expects of itself")
    tested = [] if quality.promises is None else [quality.promises]
    if quality.held:
        tested.append(f"without held keys, where callers got {held_words(quality)}")
    pairs = [", ".join(numbers[place : place + 2]) for place in range(0, len(numbers), 2)]
    return "\n            ".join([head, *pairs, *tested])


def held_words(quality: Quality) -> str:
    """Return how good answers were on the newest keys that a quality leaves out: `auc 0.5850 on 2013-03-16`."""
    values = list(quality.held.items())
    name, more = quality.headline.replace("_", " "), len(values) - HELD_SHOWN
    told = [f"{name} {'unknown' if value is None else f'{value:.4f}'} on {key}" for key, value in values[-HELD_SHOWN:]]
    return ", ".join(told) + (f", and {more} keys before" if more > 0 else "")


def _drift_words(drift: Drift | None) -> str:
    if drift is None:
        return "unknown: no key was judged yet"
    index = "no index"
    if drift.percentile is not None:
        index = f"percentile {drift.percentile:.2f} of the training windows, {drift.limit:g} is the limit"
    return f"{drift.verdict} at {drift.key} ({index})"


def _decision_words(decision: Decided | None) -> str:
    if decision is None:
        return "none yet"
    cutoff = f" for cutoff {decision.cutoff}" if decision.action == "retrain" else ""
    why = shorten(" ".join(decision.reasons), LONGEST, placeholder=" …")
    return f"{decision.key}: {decision.action}{cutoff}. {why}"


def _held_words(held: list[Held]) -> str:
    if not held:
        return "no key"
    told = []
    for each in held[-HELD_SHOWN:]:
        what = f" ({each.source}: {each.check})" if each.source and each.check else ""
        told.append(f"{each.key} {'held' if each.is_held else 'dropped'}{what}")
    more = f" and {len(held) - HELD_SHOWN} before" if len(held) > HELD_SHOWN else ""
    return ", ".join(told) + more


def _unlabelled_words(found: list[Unlabelled]) -> str:
    told = []
    for each in found[-HELD_SHOWN:]:
        seen = f", came and seen from cutoff {each.until_cutoff} on" if each.until_cutoff else ""
        told.append(f"{each.key} left out from cutoff {each.from_cutoff} on{seen}")
    more = f"; and {len(found) - HELD_SHOWN} before" if len(found) > HELD_SHOWN else ""
    return "; ".join(told) + more


def _failure_words(failure: Failed | None) -> str:
    if failure is None:
        return "none on record"
    span = f" of {failure.first} to {failure.last}" if failure.first else ""
    return f"{failure.at_utc}: {failure.job}{span}: {failure.error}"


def _availability_words(found: Availability | None) -> str:
    if found is None:
        return "unknown: no service has left its numbers on this machine"
    share = "no request yet" if found.share is None else f"{found.share:.3%} available"
    counts = f"{found.answered:,} answered, {found.refused:,} refused, {found.failed:,} failed"
    return f"{'up' if found.is_up else 'down, was up'} since {found.since_utc}: {share} ({counts})"
