"""Run the main job: from landed files to answered predictions, every step an asset that the UI shows meanwhile.

Belongs here: the order of things. How each is shown (`show.py`), asked for (`graphql.py`) or kept alive
(`processes.py`) does not belong here. It materialises nothing itself: it asks the webserver, as a person would.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from time import perf_counter, process_time
from typing import Any

from rich.console import Console

from platform_assets import naming, replay
from platform_assets.compute import releases
from platform_assets.demo import home, report, servers, show
from platform_assets.demo.graphql import PARTITION, RANGE_END, RANGE_START, Dagster
from platform_assets.demo.processes import Children, MemoryWatch
from platform_assets.replay import Answer
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore


class DemoProblem(RuntimeError):
    """The main job did not do what it shows; the message says what came instead."""


def run(spec: ProductSpec, settings: Settings, console: Console, *, is_staying: bool) -> None:
    """Run the main job of a product and show it.

    Args:
        spec: a product with a history.
        settings: where everything is kept; what is done already is not done again.
        console: a terminal, or anything that takes text.
        is_staying: whether to keep the servers up at the end, until Ctrl-C.
    """
    started_s = perf_counter()
    cutoff = replay.first_cutoff(spec)
    console.print(f"[bold]{spec.title}[/]: cutoff {cutoff}, state in {settings.state}", highlight=False, soft_wrap=True)
    home.prepare(settings)
    with MemoryWatch() as memory, Children(settings.child_environment(), settings.state / "logs") as children:
        with servers.dagster(settings, console, children) as dagster:
            land(spec, settings, console, cutoff)
            materialise(spec, console, dagster, children, cutoff)
        address, digest = serve(spec, settings, console, children, cutoff)
        cpu_before_s = process_time()
        answers = ask(spec, settings, console, address, cutoff, started_s)
        cpu_s = process_time() - cpu_before_s
        console.print("\nOne of them, to be pasted:\n")
        console.print(curl(address, answers[0].request), soft_wrap=True, highlight=False, markup=False)
        show_all(spec, settings, console, cutoff, digest, answers, cpu_s)
        took_s, peak_gb = perf_counter() - started_s, memory.peak_bytes / 1e9
        console.print(f"The job took {took_s:.0f} s; peak memory of all processes together {peak_gb:.2f} GB.")
        console.print(
            f"Dagster's UI   {dagster.address}/asset-groups\nThe service    {address}/predict, {address}/docs.json",
            highlight=False,
        )
        if is_staying:
            console.print("\nCtrl-C ends it.")
            stay(children)


def land(spec: ProductSpec, settings: Settings, console: Console, cutoff: str) -> None:
    """Land the files that upstream systems had delivered by the cutoff, and set the clock to its instant."""
    started_s = perf_counter()
    history = replay.history(spec)
    keys = spec.grain.span(history.demo_first, history.demo_last)
    labelled = replay.labels_known(spec, cutoff)
    landing = replay.land(spec, settings, keys, labelled=labelled)
    landed = list(show.each(console, "landing files", landing, replay.count_due(spec, keys, labelled)))
    replay.move_on(spec, settings, spec.grain.instant(cutoff))
    files = [item for item in landed if item.bytes is not None]
    size_mb = sum(item.bytes or 0 for item in files) / 1e6
    known = f"{len(files) - sum(item.is_new for item in files)} there already"
    show.done(console, f"landed {len(files)} files of {len(keys)} keys, {size_mb:.0f} MB, {known}", started_s)


def materialise(spec: ProductSpec, console: Console, dagster: Dagster, children: Children, cutoff: str) -> None:
    """Run the data stages over the landed keys, then the model stages for the cutoff: two runs."""
    history = replay.history(spec)
    span = {RANGE_START: history.demo_first, RANGE_END: history.demo_last}
    for verb, tags, about in (
        ("advance", span, f"raw data to features, {history.demo_first} to {history.demo_last}"),
        ("retrain", {PARTITION: cutoff}, f"training to release, cutoff {cutoff}"),
    ):
        job = naming.job(verb, spec.name)
        show.run(console, dagster, job, tags, check=children.check, about=about)


def serve(spec: ProductSpec, settings: Settings, console: Console, children: Children, cutoff: str) -> tuple[str, str]:
    """Start the service on the live release; return its address and the digest that is live.

    Raises:
        DemoProblem: nothing was ever released; with the verdict's reasons.
    """
    started_s = perf_counter()
    tables, ledgers = TableStore(settings.root, spec.name), Ledgers(settings.root, spec.name)
    verdict = report.verdict_of(settings, spec.name, tables.records("onnx", [cutoff])[cutoff].content_digest)
    reasons = " ".join(verdict["reasons"])
    latest = ledgers.latest(naming.RELEASES)
    if latest is None:
        raise DemoProblem(f"the model of cutoff {cutoff} was not released, and nothing was before. {reasons}")
    if not verdict["passed"]:
        console.print(f"[yellow]The model of cutoff {cutoff} was not released:[/] {reasons}", highlight=False)
    digest = releases.live_digest(latest[1])
    built = tables.records("service", [latest[1]["cutoff"]])[latest[1]["cutoff"]]
    address = servers.service(console, children, built.notes["tag"])
    model = digest[: releases.SHORT_DIGEST]
    show.done(console, f"service at {address} on release {latest[0]}, model {model}", started_s)
    return address, digest


def ask(
    spec: ProductSpec, settings: Settings, console: Console, address: str, key: str, started_s: float
) -> list[Answer]:
    """Ask about every entity of the key after the last landed one, each at its moment.

    Raises:
        DemoProblem: nobody was there to ask about, or a question was refused.
    """
    building_s = perf_counter()
    questions = replay.requests(spec, key)
    if not questions:
        raise DemoProblem(f"{spec.name} has nothing to ask about in {key}.")
    show.done(console, f"built {len(questions)} requests from what had happened by then", building_s)
    asking_s = perf_counter()
    answers: list[Answer] = []
    for answer in show.each(console, "asking", replay.ask(spec, settings, questions, address), len(questions)):
        if answer.status != 200:
            raise DemoProblem(f"the service answered {answer.status} to {answer.request['entity']}: {answer.body}")
        if not answers:
            first_s = perf_counter() - started_s
            console.print(f"  first answer after {first_s:.0f} s: {_words(answer)}", highlight=False, soft_wrap=True)
        answers.append(answer)
    show.done(console, f"asked {len(answers)} times, one by one", asking_s)
    return answers


def show_all(
    spec: ProductSpec,
    settings: Settings,
    console: Console,
    key: str,
    digest: str,
    answers: Sequence[Answer],
    asking_cpu_s: float,
) -> None:
    """Print the tables at the end."""
    records = report.Records(settings, spec.name)
    console.print()
    report.show_data(console, spec, records)
    report.show_quality(console, report.verdict_of(settings, spec.name, digest))
    report.show_answers(console, key, answers)
    report.show_cost(console, spec, records, asking_cpu_s)


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


def _words(answer: Answer) -> str:
    return f"{answer.body['entity']} with probability {answer.body['probability']:.3f}"
