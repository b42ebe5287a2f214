"""Run the demo: land files, move the clock, send requests, and show what the platform does by itself.

It launches no run and materialises nothing: sensors do.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from time import perf_counter

from platform_assets.base import clock, naming
from platform_assets.base.settings import ONLY_PRODUCT
from platform_assets.base.wording import counted, span
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import loop, replay, results, servers, show, state_lock
from platform_assets.demo.journal import Journal, Plan, plan
from platform_assets.demo.loop import DemoProblem
from platform_assets.demo.processes import Children, MemoryWatch, tree_cpu_s
from platform_assets.demo.replay import Player
from platform_assets.demo.runs import Dagster
from platform_assets.demo.stillness import Stillness
from platform_assets.evaluation import releases
from platform_assets.monitoring import policy
from platform_assets.operations.report import pages
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records import notes

MOST_KEYS = 45
"""How many keys fit into the demo's ten minutes on two cores; a fixed number, so that two demos agree."""
SEED = 1
SENSOR_PATIENCE_S = 4.0
"""Keys of a recording follow each other without a pause: a tick that found nothing looks again instead of ending."""


def run(product: ProductStore, *, is_staying: bool, keys: int | None = None, seed: int = SEED) -> None:
    """Run the demo of a product and show it.

    Args:
        product: one with a recording. Work of an earlier demo is not repeated.
        is_staying: whether to keep the servers up at the end, until Ctrl-C.
        keys: how many keys are replayed; by default the recording's, at most `MOST_KEYS`.
        seed: of the injected fault.

    Raises:
        StateInUse: another demo or `driftline dev` uses the state; nothing was changed.
    """
    started_s = perf_counter()
    chosen = plan(product.spec, count=keys, most=MOST_KEYS, seed=seed)
    with state_lock.held(product.settings, f"driftline demo {product.name}") as lock:
        _run(product, chosen, lock, is_staying=is_staying, started_s=started_s)


def _run(product: ProductStore, plan: Plan, lock: int, *, is_staying: bool, started_s: float) -> None:
    spec, settings = product.spec, product.settings
    cutoff = replay.first_cutoff(spec)
    journal = Journal(settings, spec.name)
    journal.begin(plan)
    clock.announce(settings, spec.name, plan.keys[-1])
    faulty = replay.inject(spec, plan.injected)
    print(f"{spec.title}: cutoff {cutoff}, state in {settings.state}", flush=True)
    patience_s = max(settings.sensor_patience_s, SENSOR_PATIENCE_S)
    served = settings.replace(sensor_patience_s=patience_s, broken_products="show")
    logs = settings.state / "logs"
    # The store may hold other live products, which a demo must leave as they are.
    environment = served.child_environment({ONLY_PRODUCT: product.name})
    with MemoryWatch() as memory, Children(environment, logs, keeps=(lock,)) as children:
        with servers.dagster(settings, children) as dagster:
            check = loop.unless_given_up(product, Stillness(children.check, dagster))
            land(product, cutoff)
            materialise(product, dagster, check, cutoff)
            address = serve(product, children, cutoff)
            with Player(ProductStore(faulty, settings), address, check=check) as player:
                first = loop.first_key(player, journal, plan.keys[0], started_s)
                print(_how_many(plan), flush=True)
                loop.replay_keys(product, player, journal, plan.keys)
            loop.wait_until_quiet(dagster, check)
            tree_s = tree_cpu_s()
        demo_results = results.collect(product, plan, journal)
        print(f"\n{demo_results.injection_text()}\n")
        took_s, peak_gb = perf_counter() - started_s, memory.peak_bytes / 1e9
        print(
            f"The demo took {took_s:.0f} s, {tree_s:.0f} CPU seconds; "
            f"peak memory of all processes together {peak_gb:.2f} GB."
        )
        as_json, as_csv = demo_results.write(journal.folder)
        print(f"Equal in every demo: {demo_results.sha256}  {as_json} (keys: {as_csv})")
        report = pages.write(settings, spec, pages.folder(settings) / pages.file_name(spec), dagster=dagster.address)
        print(f"The report     {report}", flush=True)
        if is_staying:
            _show_doors(dagster.address, address, first)
            stay(children)
        else:
            print(
                "The servers stop now. `make dev` opens Dagster's UI on the result; the same `make demo` without "
                "EXIT=1 starts the service too, and repeats no request.",
                flush=True,
            )


def _show_doors(ui: str, service: str, question: RequestDocument) -> None:
    """Print the addresses of UI and service, and a request to try."""
    print(f"\nOne of the requests, to paste into a shell:\n\n{curl(service, question)}\n")
    print(f"Dagster's UI   {ui}/asset-groups\nThe service    {service}/predict, {service}/docs.json\n")
    print("Ctrl-C ends it.", flush=True)


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
    show.done(f"{counts}, {existing} existed already", started_s)


def materialise(product: ProductStore, dagster: Dagster, check: Callable[[], None], cutoff: str) -> None:
    """Wait until sensors have advanced the landed keys, then trained and released what was decided.

    Raises:
        DemoProblem: the platform did not decide to train a first model.
    """
    history = replay.history(product.spec)
    last = history.demo_last
    show.runs_until(
        dagster,
        naming.job("advance", product.name),
        lambda: product.history.decision(last) is not None,
        check=check,
        about=f"raw data to decisions, {history.demo_first} to {last}",
    )
    decision = product.history.decision(last)
    assert decision is not None  # runs_until waited for it
    print(f"  decided for {last}: {decision.action}. {' '.join(decision.reasons)}", flush=True)
    decided = decision.cutoff
    if decision.action != policy.RETRAIN or decided is None:
        raise DemoProblem(
            f"The decision for {last} is {decision.action}: {' '.join(decision.reasons)} Expected one to train a first "
            f"model for cutoff {cutoff}. See sources and retraining in platform_assets/products/{product.name}.py."
        )
    show.runs_until(
        dagster,
        naming.job("retrain", product.name),
        lambda: replay.outcome_of(product, decided) is not None,
        check=check,
        about=f"training to release, cutoff {decided}",
    )


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
    show.done(f"service at {address} on release {number}, model {model}", started_s)
    return address


def curl(address: str, request: RequestDocument) -> str:
    """Return a request as a command for a shell."""
    body = json.dumps(request, separators=(",", ":"), ensure_ascii=False)
    return shlex.join(["curl", "-sS", f"{address}/predict", "-H", "content-type: application/json", "-d", body])


def stay(children: Children) -> None:
    """Wait for Ctrl-C, or until a server stops by itself."""
    try:
        while True:
            children.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _how_many(plan: Plan) -> str:
    count = f"Replaying {counted(len(plan.keys), 'key')}, {span(plan.keys)}, seed {plan.seed}"
    if len(plan.keys) == MOST_KEYS < plan.available:
        more = f"{MOST_KEYS} of {plan.available} fit into ten minutes on two cores (--keys {plan.available} for all)"
        return f"{count}. {more}."
    return f"{count}."
