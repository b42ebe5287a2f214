"""Say how a product stands: what serves, how old it is, how good it was, what was decided, what is wrong.

Belongs here: reading records and ledgers into plain values, and those values as text. It computes and judges nothing;
what no record says is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from textwrap import shorten
from typing import Any

from platform_assets import clock, naming
from platform_assets.compute import performance_policy, releases
from platform_assets.serving import availability
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.stages import holds, unlabelled
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import PartitionRecord, TableStore

HELD_SHOWN = 8
LONGEST = 320
"""How many letters of a decision's reasons the screen shows; JSON has all."""


def of_product(settings: Settings, spec: ProductSpec) -> dict[str, Any]:
    """Return a product's state as JSON values; what is not known is None.

    `release.age_keys` counts keys from the live model's cutoff to the key after the newest closed one; `age_hours` is
    what passed on the product's clock since the release was recorded.
    """
    ledgers, tables = Ledgers(settings.root, spec.name), TableStore(settings.root, spec.name)
    try:
        now = clock.now(settings, spec.name, is_live=spec.is_live)
    except LookupError:
        now = None
    decided, held = _newest(spec, tables.records("decision")), _held(tables, ledgers)
    closed = None if decided is None else decided.key
    return {
        "product": spec.name,
        "title": spec.title,
        "is_live": spec.is_live,
        "now_utc": now.isoformat() if now else None,
        "newest_closed_key": closed,
        "release": _release(spec, ledgers, closed, now),
        "quality": _quality(spec, tables, [each["key"] for each in held]),
        "drift": _drift(spec, tables),
        "decision": None if closed is None else _decision(ledgers, closed),
        "held": held,
        "unlabelled": _unlabelled(spec, tables),
        "failure": _failure(ledgers),
        "availability": _availability(settings, spec),
    }


def as_text(state: dict[str, Any]) -> str:
    """Return a product's state for a terminal: one screen."""
    clock_words = "wall clock" if state["is_live"] else "recording"
    lines = [f"{state['product']}: {state['title']}", f"  clock     {state['now_utc'] or 'never set'} ({clock_words})"]
    lines += _release_lines(state["release"])
    lines.append(f"  quality   {_quality_words(state['quality'])}")
    lines.append(f"  drift     {_drift_words(state['drift'])}")
    lines.append(f"  decision  {_decision_words(state['decision'])}")
    lines.append(f"  held      {_held_words(state['held'])}")
    if state["unlabelled"]:
        lines.append(f"  no labels {_unlabelled_words(state['unlabelled'])}")
    lines.append(f"  failure   {_failure_words(state['failure'])}")
    lines.append(f"  service   {_availability_words(state['availability'])}")
    return "\n".join(lines)


def contestants(verdict: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the numbers of all that a verdict compared: challenger, champion, then the baselines by name."""
    order = sorted(verdict["models"], key=lambda name: ("challenger", "champion", name).index(name))
    return {name: verdict["models"][name] for name in order}


def _newest(spec: ProductSpec, records: Mapping[str, PartitionRecord]) -> PartitionRecord | None:
    return max(records.values(), key=lambda record: spec.grain.index(record.key), default=None)


def _release(spec: ProductSpec, ledgers: Ledgers, closed: str | None, now: datetime | None) -> dict[str, Any] | None:
    latest = ledgers.latest(naming.RELEASES)
    if latest is None:
        return None
    number, record = latest
    digest, grain = releases.live_digest(record), spec.grain
    hours = None if now is None else (now - datetime.fromisoformat(record["at_utc"])).total_seconds() / 3600
    verdict = ledgers.read(naming.VERDICTS, digest)
    return {
        "number": number,
        "digest": digest,
        **{name: record[name] for name in ("cutoff", "outcome", "why", "by", "at_utc")},
        "age_keys": None if closed is None else grain.index(closed) + 1 - grain.index(record["cutoff"]),
        "age_hours": None if hours is None else round(hours, 2),
        "verdict": None if verdict is None else _verdict(spec, verdict),
    }


def _verdict(spec: ProductSpec, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the live model was judged, each model's measures in the task's order."""
    names = [measure.name for measure in spec.task.measures]
    models = {model: {name: numbers.get(name) for name in names} for model, numbers in verdict["models"].items()}
    return {"passed": verdict["passed"], "rows": verdict["rows"], "models": models}


def _quality(spec: ProductSpec, tables: TableStore, held: Sequence[str]) -> dict[str, Any] | None:
    """Return the newest window of labelled answers; None before the first.

    `held` is what callers got on the keys that the window leaves out for a fault, by key: the task's headline.
    """
    records = tables.records("performance")
    newest = _newest(spec, {key: record for key, record in records.items() if record.notes.get("window") is not None})
    if newest is None:
        return None
    window = newest.notes["window"]
    told = {name: window[name] for name in ("keys", "first", "last", "rows", "model")}
    shown = {measure.name: window["quality"].get(measure.name) for measure in spec.task.shown}
    tests = {} if window["model"] is None else window["model"].get("tests", {})
    promises = performance_policy.words_of(tests, spec.retraining) or None
    left_out = {
        key: records[key].notes["quality"][spec.task.headline.name]
        for key in held
        if key in records and records[key].notes["quality"] and spec.grain.index(key) >= spec.grain.index(told["first"])
    }
    headline = spec.task.headline.name
    return {"key": newest.key, **told, "quality": shown, "promises": promises, "held": left_out, "headline": headline}


def _drift(spec: ProductSpec, tables: TableStore) -> dict[str, Any] | None:
    newest = _newest(spec, tables.records("drift"))
    if newest is None:
        return None
    index = newest.notes.get("index") or {}
    return {
        "key": newest.key,
        "verdict": newest.notes["verdict"],
        "percentile": index.get("percentile"),
        "mean_psi": index.get("mean_psi"),
        "limit": spec.monitors.drift_limit,
    }


def _decision(ledgers: Ledgers, key: str) -> dict[str, Any] | None:
    record = ledgers.read(naming.DECISIONS, key)
    return None if record is None else {name: record[name] for name in ("key", "action", "cutoff", "reasons", "at_utc")}


def _held(tables: TableStore, ledgers: Ledgers) -> list[dict[str, Any]]:
    found = holds.of_keys(tables, ledgers, list(tables.records(holds.STAGE)))
    return [
        {"key": key, "kind": hold.kind, "is_held": hold.is_held, **_of_fault(hold.record)}
        for key, hold in sorted(found.items())
        if hold.is_out
    ]


def _unlabelled(spec: ProductSpec, tables: TableStore) -> list[dict[str, Any]]:
    """Return the keys whose labels were given up, those that came after all too, in key order."""
    notes = unlabelled.notes(tables)
    return [{"key": key, **notes[key]} for key in sorted(notes, key=spec.grain.index)]


def _of_fault(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in ("source", "check", "why", "at_utc")}


def _failure(ledgers: Ledgers) -> dict[str, Any] | None:
    latest = ledgers.latest(naming.FAILURES)
    return None if latest is None else {"number": latest[0], **latest[1]}


def _availability(settings: Settings, spec: ProductSpec) -> dict[str, Any] | None:
    found = availability.read(settings.serving_metrics / spec.name)
    if found is None:
        return None
    counts = {name: getattr(found, name) for name in ("is_up", "answered", "refused", "failed", "share")}
    return {**counts, "since_utc": found.since_utc.isoformat(timespec="seconds")}


def _release_lines(release: Mapping[str, Any] | None) -> list[str]:
    if release is None:
        return ["  release   none yet"]
    age = "age unknown" if release["age_keys"] is None else f"{release['age_keys']} keys old"
    lines = [
        f"  release   {release['number']}, {release['outcome']}: {release['why']} (by {release['by']})",
        f"  model     {release['digest']}",
        f"  cutoff    {release['cutoff']}, {age}, released {release['at_utc']}",
    ]
    verdict = release["verdict"]
    if verdict is not None:
        rows, told = verdict["rows"], "passed" if verdict["passed"] else "failed"
        lines.append(f"  verdict   {told} on {rows['labelled']:,} rows, {rows['first_key']} to {rows['last_key']}")
        for name, numbers in contestants(verdict).items():
            lines.append(f"    {name:<18}" + _numbers_words(numbers))
    return lines


def _numbers_words(numbers: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if value is not None)


def _quality_words(quality: Mapping[str, Any] | None) -> str:
    if quality is None:
        return "unknown: no answer has a label yet"
    numbers = []
    for name, one in quality["quality"].items():
        if one is not None:
            interval = "" if one["low"] is None else f" ({one['low']:.4f} to {one['high']:.4f})"
            numbers.append(f"{name.replace('_', ' ')} {one['value']:.4f}{interval}")
    head = f"{quality['rows']:,} labelled answers of {quality['keys']} keys, {quality['first']} to {quality['last']}"
    model = quality["model"]
    if model is not None:
        numbers.append(f"log loss {model['excess']:+.4f} from what the model expects of itself")
    tested = [] if quality.get("promises") is None else [quality["promises"]]
    if quality.get("held"):
        tested.append(f"without held keys, where callers got {held_words(quality)}")
    pairs = [", ".join(numbers[place : place + 2]) for place in range(0, len(numbers), 2)]
    return "\n            ".join([head, *pairs, *tested])


def held_words(quality: Mapping[str, Any]) -> str:
    """Return how good answers were on the newest keys that a quality leaves out: `auc 0.5850 on 2013-03-16`."""
    values = list(quality["held"].items())
    name, more = quality["headline"].replace("_", " "), len(values) - HELD_SHOWN
    told = [f"{name} {'unknown' if value is None else f'{value:.4f}'} on {key}" for key, value in values[-HELD_SHOWN:]]
    return ", ".join(told) + (f", and {more} keys before" if more > 0 else "")


def _drift_words(drift: Mapping[str, Any] | None) -> str:
    if drift is None:
        return "unknown: no key was judged yet"
    index = "no index"
    if drift["percentile"] is not None:
        index = f"percentile {drift['percentile']:.2f} of the training windows, {drift['limit']:g} is the limit"
    return f"{drift['verdict']} at {drift['key']} ({index})"


def _decision_words(decision: Mapping[str, Any] | None) -> str:
    if decision is None:
        return "none yet"
    cutoff = f" for cutoff {decision['cutoff']}" if decision["action"] == "retrain" else ""
    why = shorten(" ".join(decision["reasons"]), LONGEST, placeholder=" …")
    return f"{decision['key']}: {decision['action']}{cutoff}. {why}"


def _held_words(held: list[dict[str, Any]]) -> str:
    if not held:
        return "no key"
    told = []
    for each in held[-HELD_SHOWN:]:
        what = f" ({each['source']}: {each['check']})" if each["source"] and each["check"] else ""
        told.append(f"{each['key']} {'held' if each['is_held'] else 'dropped'}{what}")
    more = f" and {len(held) - HELD_SHOWN} before" if len(held) > HELD_SHOWN else ""
    return ", ".join(told) + more


def _unlabelled_words(found: list[dict[str, Any]]) -> str:
    told = []
    for each in found[-HELD_SHOWN:]:
        seen = f", came and seen from cutoff {each['until_cutoff']} on" if each["until_cutoff"] else ""
        told.append(f"{each['key']} left out from cutoff {each['from_cutoff']} on{seen}")
    more = f"; and {len(found) - HELD_SHOWN} before" if len(found) > HELD_SHOWN else ""
    return "; ".join(told) + more


def _failure_words(failure: Mapping[str, Any] | None) -> str:
    if failure is None:
        return "none on record"
    span = f" of {failure['first']} to {failure['last']}" if failure.get("first") else ""
    return f"{failure['at_utc']}: {failure['job']}{span}: {failure['error']}"


def _availability_words(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "unknown: no service has left its numbers on this machine"
    share = "no request yet" if found["share"] is None else f"{found['share']:.3%} available"
    counts = f"{found['answered']:,} answered, {found['refused']:,} refused, {found['failed']:,} failed"
    return f"{'up' if found['is_up'] else 'down, was up'} since {found['since_utc']}: {share} ({counts})"
