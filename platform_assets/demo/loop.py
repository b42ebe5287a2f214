"""Replay the keys after the first training one by one, and print one line per key."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from textwrap import shorten
from time import perf_counter

from platform_assets.base.problems import Problem
from platform_assets.base.wording import counted
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import show
from platform_assets.demo.journal import Journal, RequestResults
from platform_assets.demo.replay import Answer, Outcome, Player
from platform_assets.demo.runs import Dagster
from platform_assets.monitoring import policy
from platform_assets.serving.answer import answers
from platform_assets.store.history.faults import judgement
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Decision
from platform_assets.store.records.judgements import Judgement
from platform_assets.store.tables import TableStore

LONGEST = 140
"""Characters of a reason that a key's line shows."""
ALERTS_READ = 3
QUIET_S = 6.0
"""Seconds without a run in progress after which everything requested counts as done: Dagster's daemon evaluates its
sensors every 5 s."""


class DemoProblem(Problem, RuntimeError):
    """The demo did not reach what it shows; the message says what happened instead."""


def unless_given_up(product: ProductStore, check: Callable[[], None]) -> Callable[[], None]:
    """Return a check that also raises when the platform has given something up: nobody watches a demo to fix it.

    Raises:
        DemoProblem: with the text of the platform's alert.
    """
    history = product.history

    def checked() -> None:
        check()
        for queued in history.newest_queued(ALERTS_READ):
            alert = history.alert(queued.id)
            if alert is not None and alert.kind == "gave_up":
                raise DemoProblem(f"{alert.text} Dagster's UI shows the failed runs.")

    return checked


def first_key(player: Player, journal: Journal, key: str, started_s: float) -> RequestDocument:
    """Request answers for the first key, print how long the first one took, and return its request.

    Raises:
        DemoProblem: the key has no entities, or no request was answered.
    """
    entry = journal.results_of(key)
    if entry is None:
        start_s = perf_counter()
        first: list[Answer] = []

        def print_first(answer: Answer) -> None:
            if not first and answer.status == 200:
                first.append(answer)
                first_s = perf_counter() - started_s
                text = f"{answer.body['entity']} {answers.describe(answer.body)}"
                print(f"  first answer after {first_s:.0f} s: {text}", flush=True)

        requests = player.ask(key, on_answer=print_first)
        journal.note(key, requests)
        show.done(f"sent {requests.requests} requests for {key}, one by one", start_s)
        entry = journal.results_of(key)
    if entry is None or entry.first is None:
        sent = counted(entry.requests if entry else 0, "request")
        logs = journal.folder.parents[1] / "logs"
        raise DemoProblem(f"none of {sent} for {key} was answered; {logs / 'service.log'} says why.")
    return entry.first


def replay_keys(product: ProductStore, player: Player, journal: Journal, keys: Sequence[str]) -> None:
    """Play the keys in order. Keys that are closed already get no more requests."""
    tables = product.tables
    for index, key in enumerate(keys):
        following = keys[index + 1] if index + 1 < len(keys) else None
        start_s = perf_counter()
        if journal.results_of(key) is None:
            journal.note(key, player.ask(key))
        is_decided = product.history.decision(key) is not None
        decision, outcome = player.close(
            key, None if following is None or journal.results_of(following) is not None else following
        )
        if not is_decided:
            line = line_of(key, journal.results_of(key), _judged(tables, key), decision, outcome)
            print(f"{line} ({perf_counter() - start_s:.1f} s)", flush=True)


def line_of(
    key: str,
    requests: RequestResults | None,
    judged: Judgement,
    decision: Decision,
    outcome: Outcome | None,
) -> str:
    """Return one line about a key: answers, judgement, decision and its outcome."""
    refused = f", {requests.refused} refused" if requests and requests.refused else ""
    parts = [f"{key}  {requests.answered if requests else 0:>5,} answered{refused}"]
    if judged.index:
        parts.append(f"drift {judged.index.percentile:.2f}")
    action, reason = decision.action, shorten(decision.reasons[0], LONGEST, placeholder=" …")
    if action == policy.ALERT_FAULT:
        parts.append(f"fault: {reason}")
    elif action == policy.RETRAIN:
        parts.append(f"retrain: {reason}")
        if outcome is not None and outcome.kind == "released":
            parts.append(f"release {outcome.release} of cutoff {decision.cutoff}")
        elif outcome is not None:
            parts.append(f"champion kept: {' '.join(outcome.reasons)}")
    else:
        parts.append(f"{action}: {reason}")
    return " · ".join(parts)


def wait_until_quiet(dagster: Dagster, check: Callable[[], None]) -> None:
    """Wait until no run is in progress and the sensors have had time to launch another."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        check()
        if any(run.is_under_way for run in dagster.runs(limit=20)):
            quiet_since = time.monotonic()
        time.sleep(0.5)


def _judged(tables: TableStore, key: str) -> Judgement:
    record = tables.records("drift", [key]).get(key)
    return Judgement() if record is None else judgement(record)
