"""Run the demo: land files, move the clock, ask questions, and show what the platform makes of it by itself.

Belongs here: the order of things. How each is shown (`show.py`, `tables.py`), followed (`runs.py`) or kept alive
(`processes.py`) does not belong here. It launches no run and materialises nothing: sensors do.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from time import perf_counter, process_time
from typing import Any

from rich.console import Console

from platform_assets import clock, naming, replay
from platform_assets.compute import policy, releases
from platform_assets.demo import home, loop, results, servers, show, state_lock, tables
from platform_assets.demo.journal import Journal, Plan, plan
from platform_assets.demo.loop import DemoProblem
from platform_assets.demo.processes import Children, MemoryWatch, tree_cpu_s
from platform_assets.demo.runs import Dagster
from platform_assets.handle import Product
from platform_assets.records import notes
from platform_assets.replay import Player
from platform_assets.report import pages

MOST_KEYS = 45
"""So many keys fit into the demo's ten minutes on two cores; a fixed number, so that two demos agree."""
SEED = 1
SENSOR_PATIENCE_S = 4.0
"""Keys of a recording come one right after the other: a tick that found nothing looks again instead of ending."""


def run(product: Product, console: Console, *, is_staying: bool, keys: int | None = None, seed: int = SEED) -> None:
    """Run the demo of a product and show it.

    Args:
        product: one with a history; what is done already is not done again.
        console: a terminal, or anything that takes text.
        is_staying: whether to keep the servers up at the end, until Ctrl-C.
        keys: how many keys are replayed; `MOST_KEYS` of those in the recording by default.
        seed: of the fault that is delivered on some of them.

    Raises:
        StateInUse: another demo or `driftline dev` works on the state; nothing was touched.
    """
    started_s = perf_counter()
    wanted = plan(product.spec, count=keys, most=MOST_KEYS, seed=seed)
    with state_lock.held(product.settings, f"driftline demo {product.name}") as lock:
        _run(product, console, wanted, lock, is_staying=is_staying, started_s=started_s)


def _run(product: Product, console: Console, wanted: Plan, lock: int, *, is_staying: bool, started_s: float) -> None:
    spec, settings = product.spec, product.settings
    cutoff = replay.first_cutoff(spec)
    journal = Journal(settings, spec.name)
    journal.begin(wanted)
    clock.announce(settings, spec.name, wanted.keys[-1])
    faulty = replay.inject(spec, wanted.injected)
    console.print(f"[bold]{spec.title}[/]: cutoff {cutoff}, state in {settings.state}", highlight=False, soft_wrap=True)
    home.prepare(settings)
    patience_s = max(settings.sensor_patience_s, SENSOR_PATIENCE_S)
    served = settings.replace(sensor_patience_s=patience_s, broken_products="show")
    logs = settings.state / "logs"
    with MemoryWatch() as memory, Children(served.child_environment(), logs, keeps=(lock,)) as children:
        with servers.dagster(settings, console, children) as dagster:
            check = loop.unless_given_up(product, children.check)
            land(product, console, cutoff)
            materialise(product, console, dagster, check, cutoff)
            address = serve(product, console, children, cutoff)
            own_cpu_s = process_time()
            with show.bars(console) as progress:
                bar = show.Keys(progress, len(wanted.keys))
                with Player(Product(faulty, settings), address, check=check, told=bar.told) as player:
                    first = loop.first_key(console, player, journal, wanted.keys[0], started_s)
                    console.print(_how_many(wanted), highlight=False)
                    loop.replay_keys(product, console, player, journal, wanted.keys, advanced=bar.advance)
            own_cpu_s = process_time() - own_cpu_s
            loop.wait_until_quiet(console, dagster, check)
            tree_s = tree_cpu_s()
        found = results.collect(product, wanted, journal)
        show_all(product, console, found, journal, wanted, {"the upstream and its callers": own_cpu_s})
        took_s, peak_gb = perf_counter() - started_s, memory.peak_bytes / 1e9
        console.print(
            f"The demo took {took_s:.0f} s, {tree_s:.0f} CPU seconds; "
            f"peak memory of all processes together {peak_gb:.2f} GB."
        )
        as_json, as_csv = found.write(journal.folder)
        console.print(
            f"Equal in every demo: {found.sha256}  {as_json} (keys: {as_csv})", highlight=False, soft_wrap=True
        )
        place = pages.write(settings, spec, settings.state / "reports" / f"{spec.name}.html")
        console.print(f"The report     {place}", highlight=False, soft_wrap=True)
        if is_staying:
            _show_doors(console, dagster.address, address, first)
            stay(children)
        else:
            console.print(
                "Its servers end now. `make dev` opens Dagster's UI on what it left; the same `make demo` without "
                "EXIT=1 brings the service back too, and asks nothing twice.",
                highlight=False,
            )


def _show_doors(console: Console, ui: str, service: str, question: Mapping[str, Any]) -> None:
    """Print where UI and service are, and a question to ask."""
    console.print("\nOne of the questions, to be pasted:\n")
    console.print(curl(service, question), soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"\nDagster's UI   {ui}/asset-groups\nThe service    {service}/predict, {service}/docs.json\n\nCtrl-C ends it.",
        highlight=False,
    )


def land(product: Product, console: Console, cutoff: str) -> None:
    """Land the files that upstream systems had delivered by the cutoff, and then set the clock to its instant.

    While a recording's clock has never been set, nothing looks at its files: all of them are there at once.
    """
    spec = product.spec
    started_s = perf_counter()
    history = replay.history(spec)
    keys = spec.grain.span(history.demo_first, history.demo_last)
    labelled = replay.labels_known(spec, cutoff)
    landing = replay.land(product, keys, labelled=labelled)
    landed = list(show.each(console, "landing files", landing, replay.count_due(spec, keys, labelled)))
    replay.move_on(product, replay.end_of(spec, history.demo_last, replay.Reader(spec)))
    files = [item for item in landed if item.bytes is not None]
    size_mb = sum(item.bytes or 0 for item in files) / 1e6
    known = f"{len(files) - sum(item.is_new for item in files)} there already"
    show.done(console, f"landed {len(files)} files of {len(keys)} keys, {size_mb:.0f} MB, {known}", started_s)


def materialise(product: Product, console: Console, dagster: Dagster, check: Callable[[], None], cutoff: str) -> None:
    """Wait until the sensors have advanced the landed keys, and trained and released what was decided.

    Raises:
        DemoProblem: the platform did not decide to train a first model.
    """
    history = replay.history(product.spec)
    last = history.demo_last
    show.runs_until(
        console,
        dagster,
        naming.job("advance", product.name),
        lambda: replay.decision_of(product, last) is not None,
        check=check,
        about=f"raw data to decisions, {history.demo_first} to {last}",
    )
    decision = replay.decision_of(product, last)
    assert decision is not None  # it was waited for
    console.print(f"  decided for {last}: {decision.action}. {' '.join(decision.reasons)}", highlight=False)
    decided = decision.cutoff
    if decision.action != policy.RETRAIN or decided is None:
        raise DemoProblem(f"a first model was expected to be trained for cutoff {cutoff}, and is not.")
    show.runs_until(
        console,
        dagster,
        naming.job("retrain", product.name),
        lambda: replay.outcome_of(product, decided) is not None,
        check=check,
        about=f"training to release, cutoff {decided}",
    )


def serve(product: Product, console: Console, children: Children, cutoff: str) -> str:
    """Start the service on the live release and return its address.

    Raises:
        DemoProblem: nothing was ever released; with the verdict's reasons.
    """
    started_s = perf_counter()
    latest = product.history.live()
    if latest is None:
        outcome = replay.outcome_of(product, cutoff)
        reasons = "" if outcome is None else " ".join(outcome.reasons)
        raise DemoProblem(
            f"the model of cutoff {cutoff} was not released, and nothing was before. {reasons} Change training, model, "
            f"features or gates in platform_assets/specs/{product.name}.py, train once more with `dg launch --job "
            f"{naming.job('retrain', product.name)} --partition {cutoff}`, and start the demo again."
        )
    number, record = latest
    built = product.tables.records("service", [record.cutoff])[record.cutoff]
    address = servers.service(console, children, notes.Service.of(built).tag)
    model = record.digest[: releases.SHORT_DIGEST]
    show.done(console, f"service at {address} on release {number}, model {model}", started_s)
    return address


def show_all(
    product: Product,
    console: Console,
    found: results.Results,
    journal: Journal,
    wanted: Plan,
    others: Mapping[str, float],
) -> None:
    """Print the tables at the end: first what must be equal between two demos, then what is measured."""
    spec = product.spec
    records = tables.Records(product.settings, spec.name)
    console.print()
    tables.show_data(console, spec, records)
    tables.show_quality(console, spec, tables.verdict_of(product.settings, spec.name, found.releases[-1]["digest"]))
    tables.show_results(console, found)
    tables.show_answers(console, journal, wanted.keys)
    tables.show_cost(console, spec, records, others)


def curl(address: str, request: Mapping[str, Any]) -> str:
    """Return a request as a command for a shell."""
    body = json.dumps(request, separators=(",", ":"), ensure_ascii=False)
    words = ["curl", "-sS", f"{address}/predict", "-H", "content-type: application/json", "-d", body]
    return shlex.join(words)


def stay(children: Children) -> None:
    """Wait for Ctrl-C, or for a server to end by itself."""
    try:
        while True:
            children.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _how_many(wanted: Plan) -> str:
    count = f"Replaying {len(wanted.keys)} keys, {wanted.keys[0]} to {wanted.keys[-1]}, seed {wanted.seed}"
    if len(wanted.keys) == MOST_KEYS < wanted.of:
        return f"{count}: of {wanted.of}, so many fit into ten minutes on two cores (--keys {wanted.of} for all)."
    return f"{count}."
