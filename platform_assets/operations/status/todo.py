"""List what a person should do now about a product, with the command for each step."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from platform_assets.base import naming
from platform_assets.base.wording import NOUNS, counted, span
from platform_assets.data import unlabelled
from platform_assets.data.key_changes import LATE_KEYS
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.launch import rebuilding
from platform_assets.monitoring import ages, policy
from platform_assets.monitoring.faults import AWAITED, UNREADABLE
from platform_assets.operations.status.state import Refused, Step, Todo
from platform_assets.store.records.faults import Fault, Hold, Repair
from platform_assets.training import versions

if TYPE_CHECKING:
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.records.decisions import Decision

FEW = 3
"""More keys without labels than this, of the same kind, are one thing to do, named by first, last and number."""


def all_of(product: ProductStore, holds: Mapping[str, Hold], decision: Decision | None) -> list[Todo]:
    """Return what to do about held keys, a stale model and missing labels, in this order; empty without any.

    Args:
        holds: the keys that are held or dropped, by key.
        decision: the newest.
    """
    # A key whose fault waits for another one's is settled with it, and a new delivery is judged by the platform.
    waiting = {
        key: hold
        for key, hold in sorted(holds.items())
        if hold.is_held
        and not isinstance(hold.record, Repair)
        and not (isinstance(hold.record, Fault) and all(check.check == AWAITED for check in hold.record.checks))
    }
    return [
        *(_held(product, key, hold) for key, hold in waiting.items()),
        *_stale_model(product, decision),
        *_missing_labels(product, decision),
    ]


def of_broken(name: str, file: str, error: str) -> list[Todo]:
    """Return what to do about a product whose file cannot be loaded."""
    check = Step(when=f"after fixing {file}", command=shlex.join(["driftline", "check", name]))
    return [Todo(about="broken_file", key=None, text=f"The product's file cannot be loaded: {error}", steps=[check])]


def of_refused(product: ProductStore, refused: Refused | None) -> list[Todo]:
    """Return what to do when the newest model was refused and no model is live; empty otherwise."""
    if refused is None or product.history.live() is not None:
        return []
    text = f"No model is live, and the model of cutoff {refused.cutoff} was refused: {' '.join(refused.reasons)}"
    override = ["driftline", "release", product.name, refused.digest[:SHORT_DIGEST], "--override", "REASON"]
    steps = [
        Step(when="to look for better parameters", command=shlex.join(["driftline", "tune", product.name])),
        Step(when="to compare its trainings", command=shlex.join(["driftline", "runs", product.name])),
        Step(when="to release it anyway, under your name", command=shlex.join(override)),
    ]
    return [Todo(about="refused", key=refused.cutoff, text=text, steps=steps)]


def of_older(product: ProductStore, behind: versions.Older | None) -> list[Todo]:
    """Return what to do about keys of an earlier version that the next training waits for; empty without any."""
    if behind is None or versions.renewing(product, behind) or rebuilding.usd(behind) <= rebuilding.limit_usd(product):
        return []
    steps = [
        Step(when="to make them again", command=versions.rebuild_command(product.name, reason="the product changed")),
        Step(
            when="if rows of both versions may train together",
            command=versions.rebuild_command(product.name, keys="compatible", reason="the rows are equal in meaning"),
        ),
    ]
    text = f"{behind.describe()[0].upper()}{behind.describe()[1:]}: {rebuilding.outlook(product, behind)}."
    return [Todo(about="older_rows", key=None, text=text, steps=steps)]


def _held(product: ProductStore, key: str, hold: Hold) -> Todo:
    spec, record = product.spec, hold.record
    text, path = f"{key} is held.", None
    if isinstance(record, Fault):
        column = f", column {record.column}" if record.column else ""
        text = f"{key} is held: source {record.source}{column} failed the check {record.check}."
        channel = product.channels.get(record.source)
        path = None if channel is None else channel.cite(key)
        if record.check == UNREADABLE:
            text += f" It brought {record.came}. A new file is taken in by itself."
        place = spec.grain.index(record.since) + spec.monitors.repair_within
        if spec.grain.size is None or place < spec.grain.size:
            text += f" Without an answer the platform settles it when {spec.grain.key_at(place)} is judged."
    again = "after a corrected delivery" + (f" to {path}" if path else "")
    return Todo(
        about="held",
        key=key,
        text=text,
        steps=[
            Step(when=again, command=_launch(product, "repair", key=key, why="delivered again")),
            Step(when="if the delivery is right", command=_launch(product, "accept", key=key, why="it is right")),
            Step(
                when="to leave the key out permanently",
                command=_launch(product, "accept", key=key, why="not usable", outcome="drop"),
            ),
        ],
    )


def _stale_model(product: ProductStore, decision: Decision | None) -> list[Todo]:
    overdue = decision.numbers.overdue_keys if decision else None
    if decision is None or not overdue or decision.action == policy.RETRAIN:
        return []
    clause = ages.overdue(decision.numbers)
    reasons = " ".join(ages.other_reasons(decision.numbers, decision.reasons))
    text = f"{clause[0].upper()}{clause[1:]}. Not trained because: {reasons}"
    command = ["dg", "launch", "--job", naming.job("retrain", product.name), "--partition", str(decision.cutoff)]
    return [
        Todo(about="stale_model", key=None, text=text, steps=[Step(when="to train now", command=shlex.join(command))])
    ]


def _missing_labels(product: ProductStore, decision: Decision | None) -> list[Todo]:
    """Return the keys whose labels were given up, and those that a training waits for."""
    spec, grain = product.spec, product.spec.grain
    given_up = [key for key, note in unlabelled.notes(product.tables).items() if note["kind"] == unlabelled.GIVEN_UP]
    awaited: Iterable[str] = ()
    if decision is not None and decision.numbers.awaits_labels:
        awaited = set(decision.numbers.unlabelled) - set(given_up)
        awaited = awaited - set(product.tables.records("outcomes", awaited))
    newest = None if decision is None else grain.index(decision.key)
    reach = LATE_KEYS + spec.label_delay + spec.label_patience
    groups = dict[tuple[bool, bool], list[str]]()
    for key in sorted([*given_up, *awaited], key=grain.index):
        is_recent = newest is None or newest - grain.index(key) < reach
        groups.setdefault((key in given_up, is_recent), []).append(key)
    todo = []
    for (is_given_up, is_recent), keys in groups.items():
        wait = "trainings go on without them" if is_given_up else "a training waits for them"
        taken = "The platform takes the file in by itself." if is_recent else "The file needs the job below."
        for some in [keys] if len(keys) > FEW else [[key] for key in keys]:
            path = product.channels[spec.label_source.name].cite(some[-1])
            ends = span(some) if len(some) == 1 else f"{counted(len(some), NOUNS[grain.kind])}, {span(some)},"
            text = f"The labels of {ends} have not arrived; {wait}. Deliver them to {path}. {taken}"
            step = Step(
                when="after the delivery" if len(some) == 1 else "after each delivery, with its key",
                command=_launch(product, "repair", key=some[-1], why="labels delivered"),
            )
            if is_recent:
                step = Step(
                    when="to see when they are taken in", command=shlex.join(["driftline", "status", product.name])
                )
            key_of = some[0] if len(some) == 1 else None
            todo.append(Todo(about="missing_label", key=key_of, text=text, steps=[step]))
    return todo


def _launch(product: ProductStore, verb: str, **config: Any) -> str:
    """Return the command that runs the product's job `repair` or `accept` for a key."""
    document = {"ops": {naming.job(f"{verb}_key", product.name): {"config": config}}}
    job = naming.job(verb, product.name)
    return shlex.join(["dg", "launch", "--job", job, "--config-json", json.dumps(document)])
