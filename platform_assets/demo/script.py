"""Run the demo: land files, move the clock, send requests, and show what the platform does by itself.

It launches no run and materialises nothing: sensors do. What came of it is in `driftline status` and the report.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from time import perf_counter

import dagster as dg

from platform_assets.automation import failed_runs
from platform_assets.base import clock, naming
from platform_assets.base.problems import Problem
from platform_assets.base.settings import ONLY_PRODUCT, Settings
from platform_assets.base.wording import counted, span
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import replay, servers
from platform_assets.demo.processes import Children, sole_user
from platform_assets.demo.replay import Answer, Injected, Outcome, Player
from platform_assets.demo.replay.playing import ANSWERED, Requests
from platform_assets.evaluation import releases
from platform_assets.monitoring import policy
from platform_assets.operations import status
from platform_assets.operations.report import pages
from platform_assets.product.spec import Product
from platform_assets.serving.answer import answers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records import notes
from platform_assets.store.records.decisions import Decision
from platform_assets.store.records.faults import Judgement
from platform_assets.store.records.notes import judgement

MOST_KEYS = 45
"""A fixed number, so that two demos agree."""
SEED = 1
SENSOR_PATIENCE_S = 4.0
"""Keys of a recording follow each other without a pause: a tick that found nothing looks again instead of ending."""
POLL_S = 0.5
LONGEST = 140
"""Characters of a reason that a key's line shows."""
ALERTS_READ = 3
QUIET_S = 6.0
"""Seconds without a run in progress after which everything requested counts as done: Dagster's daemon evaluates its
sensors every 5 s."""


class DemoProblem(Problem, RuntimeError):
    """The demo did not reach what it shows; the message says what happened instead."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a demo replays.

    Attributes:
        keys: in order; the first is the cutoff of the first training.
        available: how many keys the recording has for demos.
        seed: of the injected fault.
        injected: the fault; None when too few keys are replayed for one.
    """

    keys: tuple[str, ...]
    available: int
    seed: int
    injected: Injected | None


def plan(spec: Product, *, count: int | None = None, seed: int = SEED) -> Plan:
    """Return what a demo replays: its keys, and the fault drawn for them.

    Args:
        spec: a product with a history.
        count: how many keys; by default the recording's, at most `MOST_KEYS`.
    """
    first = replay.first_cutoff(spec)
    until = replay.history(spec).demo_until or first
    keys = spec.grain.span(first, until)
    if count is not None and not 1 <= count <= len(keys):
        raise ValueError(
            f"--keys is {count}; {spec.name} has a recording for 1 to {len(keys)} keys from {first} on. It ends with "
            f"history.demo_until in platform_assets/products/{spec.name}.py."
        )
    chosen = keys[: MOST_KEYS if count is None else count]
    return Plan(keys=chosen, available=len(keys), seed=seed, injected=replay.draw(spec, chosen, seed))


def run(product: ProductStore, *, is_staying: bool, keys: int | None = None, seed: int = SEED) -> None:
    """Run the demo of a product and show it.

    Args:
        product: one with a recording. Work of an earlier demo is not repeated.
        is_staying: whether to keep the servers up at the end, until Ctrl-C.

    Raises:
        StateInUse: another demo or `driftline dev` uses the state; nothing was changed.
    """
    started_s = perf_counter()
    spec, settings, chosen = product.spec, product.settings, plan(product.spec, count=keys, seed=seed)
    patience_s = max(settings.sensor_patience_s, SENSOR_PATIENCE_S)
    # The store may hold other live products, which a demo must leave as they are.
    environment = settings.replace(sensor_patience_s=patience_s, broken_products="show").child_environment(
        {ONLY_PRODUCT: product.name}
    )

    def check() -> None:
        children.check()
        raise_if_given_up(product)

    with (
        sole_user(settings, f"driftline demo {product.name}") as lock,
        Children(environment, settings.state / "logs", keeps=(lock,)) as children,
    ):
        go_on(settings, spec.name, chosen)
        # Before servers load the definitions: partitions end with the announced replay, or the rest is missing.
        clock.announce(settings, spec.name, chosen.keys[-1])
        print(f"{spec.title}: cutoff {chosen.keys[0]}, state in {settings.state}", flush=True)
        with servers.dagster(settings, children) as (ui, instance):
            _done(f"Dagster's UI is at {ui}", started_s)
            land(product, chosen.keys[0])
            materialise(product, ui, instance, check, chosen.keys[0])
            address = serve(product, children, chosen.keys[0])
            print(replay_text(chosen), flush=True)
            faulty = ProductStore(replay.inject(spec, chosen.injected), settings)
            with Player(faulty, address, check=check) as player:
                replay_keys(product, player, chosen.keys, started_s)
            wait_until_quiet(instance, check)
        print(f"\n{fault_text(chosen)}\n\n{status.as_text(status.of_product(product))}\n")
        report = pages.write(settings, spec, pages.default_path(settings, spec))
        print(f"The demo took {perf_counter() - started_s:.0f} s.\nThe report     {report}", flush=True)
        if not is_staying:
            print(
                "The servers stop now. `make dev` opens Dagster's UI on the result; `make demo STAY=1` with the same "
                "options starts the service too, and asks nothing again.",
                flush=True,
            )
            return
        show_doors(ui, address, replay.requests(spec, chosen.keys[0])[0])
        with suppress(KeyboardInterrupt):
            while True:
                children.check()
                time.sleep(POLL_S)


def go_on(settings: Settings, name: str, plan: Plan) -> None:
    """Record the demo's options, or check that they are those of the demo that goes on.

    Raises:
        ValueError: the demo was started with other keys or another seed.
    """
    file = settings.state / "demo" / f"{name}.json"
    # The fault follows from these, so a demo with others would deliver other files for keys that have landed.
    options = json.dumps({"first": plan.keys[0], "last": plan.keys[-1], "seed": plan.seed})
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and (begun := file.read_text(encoding="utf-8")) != options:
        raise ValueError(
            f"{file} says that the demo was started with {begun}; it cannot go on with {options}. Deliveries cannot be "
            f"taken back: use the same options, start over with `rm -r {settings.state}`, which removes all that demos "
            "left there, or keep it and set DRIFTLINE_STATE to another folder."
        )
    file.write_text(options, encoding="utf-8")


def raise_if_given_up(product: ProductStore) -> None:
    """End the demo where the platform has given something up: nobody watches a demo to fix it.

    Raises:
        DemoProblem: with the text of the platform's alert.
    """
    for queued in product.history.newest_queued(ALERTS_READ):
        alert = product.history.alert(queued.id)
        if alert is not None and alert.kind == "gave_up":
            raise DemoProblem(f"{alert.text} Dagster's UI shows the failed runs.")


def land(product: ProductStore, cutoff: str) -> None:
    """Land the files that upstream systems had delivered by the cutoff, then set the clock to its instant.

    Before a recording's clock is set nothing looks at its files, so all of them appear at once.
    """
    spec = product.spec
    started_s = perf_counter()
    history = replay.history(spec)
    keys = spec.grain.span(history.demo_first, history.demo_last)
    landed = list(replay.land(product, keys, labelled=replay.labelled_keys(spec, cutoff)))
    replay.move_on(product, replay.end_of(spec, history.demo_last, replay.Reader(spec)))
    files = [item for item in landed if item.bytes is not None]
    size_mb = sum(item.bytes or 0 for item in files) / 1e6
    existing = len(files) - sum(item.is_new for item in files)
    counts = f"landed {counted(len(files), 'file')} of {counted(len(keys), 'key')}, {size_mb:.0f} MB"
    _done(f"{counts}, {existing} existed already", started_s)


def materialise(
    product: ProductStore, ui: str, instance: dg.DagsterInstance, check: Callable[[], None], cutoff: str
) -> None:
    """Wait until sensors have advanced the landed keys, then trained and released what was decided.

    Raises:
        DemoProblem: the platform did not decide to train a first model.
    """
    history = replay.history(product.spec)
    last, show = history.demo_last, partial(show_runs, instance, check=check, ui=ui)
    days, job = f"raw data to decisions, {history.demo_first} to {last}", naming.job("advance", product.name)
    show(job, lambda: product.history.decision(last) is not None, about=days)
    decision = product.history.decision(last)
    assert decision is not None  # show_runs waited for it
    print(f"  decided for {last}: {decision.action}. {' '.join(decision.reasons)}", flush=True)
    decided = decision.cutoff
    if decision.action != policy.RETRAIN or decided is None:
        raise DemoProblem(
            f"The decision for {last} is {decision.action}: {' '.join(decision.reasons)} Expected one to train a first "
            f"model for cutoff {cutoff}. See sources and retraining in platform_assets/products/{product.name}.py."
        )
    training, job = f"training to release, cutoff {decided}", naming.job("retrain", product.name)
    show(job, lambda: replay.outcome_of(product, decided) is not None, about=training)


def show_runs(
    instance: dg.DagsterInstance,
    job: str,
    is_over: Callable[[], bool],
    *,
    check: Callable[[], None],
    about: str,
    ui: str,
) -> None:
    """Show a job's runs, which sensors launch, until their result exists and all of them have ended.

    A failed run is shown, and waiting goes on: its sensor tries again, a bounded number of times.

    Args:
        check: raises when waiting is pointless.
        about: what the runs do, for the terminal.
    """
    of_job = dg.RunsFilter(job_name=job)
    # Runs of an earlier demo on this state are not shown again.
    ended = {run.run_id for run in instance.get_runs(of_job) if run.is_finished}
    begun: dict[str, float] = {}
    while True:
        check()
        is_last = is_over()  # before the look at the runs, so that it sees the one that made the result
        runs = [run for run in instance.get_runs(of_job, limit=20) if run.run_id not in ended]
        for run in reversed(runs):  # Dagster lists the newest first
            if run.run_id not in begun:
                begun[run.run_id] = perf_counter()
                launcher = run.tags.get(servers.SENSOR, "a person")
                print(f"  {about}, launched by {launcher}: {ui}/runs/{run.run_id}", flush=True)
            if run.is_success:
                _done(job, begun[run.run_id])
            elif run.is_finished:
                step, reason = failed_runs.cause(instance, run.run_id)
                at_step = f"step {step}: " if step else ""
                print(f"! {at_step}{reason}\nThe run and its log: {ui}/runs/{run.run_id}", flush=True)
        ended.update(run.run_id for run in runs if run.is_finished)
        if is_last and all(run.is_finished for run in runs):
            return
        time.sleep(POLL_S)


def serve(product: ProductStore, children: Children, cutoff: str) -> str:
    """Start the service on the live release and return its address.

    Raises:
        DemoProblem: nothing was ever released; names the verdict's reasons.
    """
    started_s = perf_counter()
    latest = product.history.live()
    if latest is None:
        outcome = replay.outcome_of(product, cutoff)
        reasons = "" if outcome is None else " ".join(outcome.reasons)
        raise DemoProblem(
            f"The model of cutoff {cutoff} was not released, and there is no earlier one. {reasons} Change training, "
            f"model, features or gates in platform_assets/products/{product.name}.py, train again with `dg launch "
            f"--job {naming.job('retrain', product.name)} --partition {cutoff}`, and start the demo again."
        )
    number, record = latest
    record_of_service = product.tables.records("service", [record.cutoff])[record.cutoff]
    address = servers.service(children, notes.Service.of(record_of_service).tag)
    model = record.digest[: releases.SHORT_DIGEST]
    _done(f"service at {address} on release {number}, model {model}", started_s)
    return address


def replay_keys(product: ProductStore, player: Player, keys: Sequence[str], started_s: float) -> None:
    """Play the keys in order, and print one line per key. Keys that are decided already get no more requests.

    Raises:
        DemoProblem: no request of the first key was answered.
    """
    history = product.history
    shown: list[Answer] = []

    def show_first(answer: Answer) -> None:
        if not shown and answer.status == ANSWERED:
            shown.append(answer)
            text = f"{answer.body['entity']} {answers.describe(answer.body)}"
            print(f"  first answer after {perf_counter() - started_s:.0f} s: {text}", flush=True)

    for index, key in enumerate(keys):
        start_s, then = perf_counter(), keys[index + 1] if index + 1 < len(keys) else None
        # An answer that is ingested after its key's decision is late, and late answers count nowhere.
        requests = None if history.decision(key) is not None else player.ask(key, on_answer=show_first)
        if index == 0 and requests is not None and not requests.answered:
            sent, log = counted(requests.requests, "request"), product.settings.state / "logs" / "service.log"
            raise DemoProblem(f"none of {sent} for {key} was answered; {log} says why.")
        # The next key's requests are built while this one is decided; those of a decided key are not sent.
        is_next_open = then is not None and history.decision(then) is None
        decision, outcome = player.close(key, then if is_next_open else None)
        if requests is not None:
            record = product.tables.records("drift", [key]).get(key)
            judged = Judgement() if record is None else judgement(record)
            line = line_of(key, requests, judged, decision, outcome)
            print(f"{line} ({perf_counter() - start_s:.1f} s)", flush=True)


def line_of(key: str, requests: Requests, judged: Judgement, decision: Decision, outcome: Outcome | None) -> str:
    """Return one line about a key: answers, judgement, decision and its outcome."""
    refused = f", {requests.refused} refused" if requests.refused else ""
    parts = [f"{key}  {requests.answered:>5,} answered{refused}"]
    if judged.index:
        parts.append(f"drift {judged.index.percentile:.2f}")
    action = "fault" if decision.action == policy.ALERT_FAULT else decision.action
    parts.append(f"{action}: {shorten(decision.reasons[0], LONGEST, placeholder=' …')}")
    if decision.action == policy.RETRAIN and outcome is not None:
        is_released = outcome.kind == "released"
        released = f"release {outcome.release} of cutoff {decision.cutoff}"
        parts.append(released if is_released else f"champion kept: {' '.join(outcome.reasons)}")
    return " · ".join(parts)


def wait_until_quiet(instance: dg.DagsterInstance, check: Callable[[], None]) -> None:
    """Wait until no run is in progress and the sensors have had time to launch another."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        check()
        if not all(run.is_finished for run in instance.get_runs(limit=20)):
            quiet_since = time.monotonic()
        time.sleep(POLL_S)


def show_doors(ui: str, service: str, question: RequestDocument) -> None:
    """Print the addresses of UI and service, and a request to try."""
    body = json.dumps(question, separators=(",", ":"), ensure_ascii=False)
    curl = ["curl", "-sS", f"{service}/predict", "-H", "content-type: application/json", "-d", body]
    print(f"\nOne of the requests, to paste into a shell:\n\n{shlex.join(curl)}\n")
    print(f"Dagster's UI   {ui}/asset-groups\nThe service    {service}/predict, {service}/docs.json\n")
    print("Ctrl-C ends it.", flush=True)


def replay_text(plan: Plan) -> str:
    """Return how many keys are replayed, and how many there are."""
    keys = f"{counted(len(plan.keys), 'key')}, {span(plan.keys)}, of {plan.available} in the recording (`--keys`)"
    return f"Replaying {keys}, seed {plan.seed}."


def fault_text(plan: Plan) -> str:
    """Return which fault the upstream delivered, which the platform is not told."""
    if plan.injected is None:
        return "No fault was injected: too few keys are replayed, or the recording declares none."
    kind, keys = plan.injected.kind, ", ".join(plan.injected.keys)
    return (
        f"Injected without telling the platform: {kind.name} ({kind.description}), {kind.source} of {keys}. Expected "
        f"to be found by {kind.check}."
    )


def _done(text: str, started_s: float) -> None:
    print(f"✓ {text} ({perf_counter() - started_s:.1f} s)", flush=True)
