"""Replay keys one by one and say in a line what happened on each.

Belongs here: the keys after the first training. Does not belong here: what a key is made of (`platform_assets.replay`)
or how the servers are started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from time import perf_counter
from typing import Any

from rich.console import Console

from platform_assets import replay
from platform_assets.compute import policy
from platform_assets.demo import show
from platform_assets.demo.journal import Journal, Noted
from platform_assets.demo.runs import Dagster
from platform_assets.handle import Product
from platform_assets.history.faults import judgement
from platform_assets.problems import Problem
from platform_assets.records.decisions import Decision
from platform_assets.records.judgements import Judgement
from platform_assets.replay import Answer, Outcome, Player
from platform_assets.serving import answers
from platform_assets.storage.tables import TableStore

LONGEST = 140
"""How many letters of a reason a key's line shows."""
ALERTS_READ = 3
QUIET_S = 6.0
"""For how long no run may be under way before all that was asked for is taken to be done: Dagster's daemon looks at its
sensors every 5 s."""


class DemoProblem(Problem, RuntimeError):
    """The demo did not come to what it shows; the message says what came instead."""


def unless_given_up(product: Product, check: Callable[[], None]) -> Callable[[], None]:
    """Return a check that also raises when the platform has given something up: nobody is there to mend it.

    Raises:
        DemoProblem: with the platform's own words.
    """
    history = product.history

    def checked() -> None:
        check()
        for alert_id in history.newest_queued(ALERTS_READ):
            alert = history.alert(alert_id)
            if alert is not None and alert.kind == "gave_up":
                raise DemoProblem(f"{alert.text} Dagster's UI shows the failed runs.")

    return checked


def first_key(console: Console, player: Player, journal: Journal, key: str, started_s: float) -> Mapping[str, Any]:
    """Ask about the first key, say how long the first answer took, and return its request.

    Raises:
        DemoProblem: nobody was there to ask about, or no question was answered.
    """
    known = journal.asked(key)
    if known is None:
        asking_s = perf_counter()
        said: list[Answer] = []

        def heard(answer: Answer) -> None:
            if not said and answer.status == 200:
                said.append(answer)
                first_s = perf_counter() - started_s
                words = f"{answer.body['entity']} {answers.describe(answer.body)}"
                console.print(f"  first answer after {first_s:.0f} s: {words}", highlight=False, soft_wrap=True)

        asked = player.ask(key, on_answer=heard)
        journal.note(key, asked)
        show.done(console, f"asked {asked.requests} times about {key}, one by one", asking_s)
        known = journal.asked(key)
    if known is None or known.first is None:
        raise DemoProblem(f"no question about {key} was answered.")
    return known.first


def replay_keys(
    product: Product,
    console: Console,
    player: Player,
    journal: Journal,
    keys: Sequence[str],
    *,
    advanced: Callable[[], None],
) -> None:
    """Play the keys in order; those that are closed already are not asked about again.

    Args:
        advanced: called after each key.
    """
    tables = product.tables
    for place, key in enumerate(keys):
        then = keys[place + 1] if place + 1 < len(keys) else None
        began_s = perf_counter()
        if journal.asked(key) is None:
            journal.note(key, player.ask(key))
        is_known = replay.decision_of(product, key) is not None
        decision, outcome = player.close(key, None if then is None or journal.asked(then) is not None else then)
        advanced()
        if not is_known:
            line = line_of(key, journal.asked(key), _judged(tables, key), decision, outcome)
            console.print(f"{line} [dim]({perf_counter() - began_s:.1f} s)[/]", highlight=False, soft_wrap=True)


def line_of(
    key: str,
    asked: Noted | None,
    judged: Judgement,
    decision: Decision,
    outcome: Outcome | None,
) -> str:
    """Return one line about a key: answers, judgement, decision and what came of it.

    Args:
        key: which.
        asked: from the journal.
        judged: how it was judged.
        decision: its record.
        outcome: of a training that was decided.
    """
    refused = f", {asked.refused} refused" if asked and asked.refused else ""
    parts = [f"{key}  {asked.answered if asked else 0:>5,} answered{refused}"]
    if judged.index:
        parts.append(f"drift {judged.index.percentile:.2f}")
    action, why = decision.action, shorten(decision.reasons[0], LONGEST, placeholder=" …")
    if action == policy.ALERT_FAULT:
        parts.append(f"[bold red]fault[/]: {why}")
    elif action == policy.RETRAIN:
        parts.append(f"[bold green]retrain[/]: {why}")
        if outcome is not None and outcome.kind == "released":
            parts.append(f"[bold green]release {outcome.release}[/] of cutoff {decision.cutoff}")
        elif outcome is not None:
            parts.append(f"champion kept: {' '.join(outcome.reasons)}")
    else:
        parts.append(f"{action}: [dim]{why}[/]")
    return " · ".join(parts)


def wait_until_quiet(console: Console, dagster: Dagster, check: Callable[[], None]) -> None:
    """Wait until the sensors have had time to launch what is left to do, and nothing is under way."""
    with show.waiting(console, "waiting until nothing is under way"):
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_S:
            check()
            if any(run.is_under_way for run in dagster.runs(limit=20)):
                quiet_since = time.monotonic()
            time.sleep(0.5)


def _judged(tables: TableStore, key: str) -> Judgement:
    record = tables.records("drift", [key]).get(key)
    return Judgement() if record is None else judgement(record)
