"""Serving: CPU per request of the flights' product, validated, logged and counted.

Contestants validate by the same contract and give the same answers, which is checked first; ours logs and counts too.
CPU is that of the server's whole process tree, without the client; medians of interleaved rounds, A B A B. The limit is
ASGI under uvicorn that decodes, calls ONNX Runtime once per request, and answers. Two equal keys of one object are
refused by ours and the bare ones only: pydantic does not see them.
"""

import random
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path

import msgspec

from platform_assets.serving.answer.batching import run_graph
from platform_assets.serving.answer.slices_of_work import ROWS_AT_ONCE
from platform_assets.training import export
from platform_assets.training.matrix import inputs_of
from proof.benchmarks import serving_contest as contest
from proof.benchmarks.harness import Measure
from proof.benchmarks.serving_contest import Running
from proof.benchmarks.serving_peers import load
from tests.doubles.inputs import own_answers

GROUPINGS, DAYS = 1_000, 31
ROUNDS = 5
LIMIT, DEFAULT, LOGGED = "bare ASGI", "default Bento", "FastAPI with log"
PEERS = (LIMIT, "bare ASGI per tick", "FastAPI", LOGGED)
BENTOS = {DEFAULT: "Default", "Bento, async": "Coroutine"}
CASES = {(1, 1): 120, (16, 1): 480, (1, 256): 4, (16, 256): 16}
"""Requests per round by connections and rows."""
TARGETS = {1: "<= 1.5x limit", 16: "<= 1.0x limit"}
CHEAPER_THAN_BENTO = 8
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        prepared = contest.prepare(Path(folder))
        running = [stack.enter_context(contest.ours(prepared))]
        running += [stack.enter_context(contest.peer(prepared, name)) for name in PEERS]
        running += [stack.enter_context(contest.default_bento(prepared, *item)) for item in BENTOS.items()]
        contest.agree(prepared, running)
        # How many answers of random groups of rows differ in any bit from the answer of the row alone.
        model = load(Path(folder))
        rows = [model.decoding.decode(body).rows[0] for body in prepared.one_row()]
        values = [msgspec.structs.astuple(row.features) for row in rows]
        alone = [run_graph(model, [row])[0] for row in values]
        drawn, moved = random.Random(0), 0
        for _ in range(GROUPINGS):
            places = drawn.sample(range(len(rows)), drawn.randint(2, ROWS_AT_ONCE))
            outputs = run_graph(model, [values[place] for place in places])
            moved += sum(output != alone[place] for output, place in zip(outputs, places, strict=True))
        cases = {case: _case(prepared, running, *case, count) for case, count in CASES.items()}
    bits = Measure(
        f"answers whose bits depend on what shares their run, {GROUPINGS} random groupings", moved, target="<= 0"
    )
    # The graph against the network it was exported from, on all rows of a month.
    spec, learned, network = contest.untrained()
    first = date(2013, 1, 1)
    keys = [(first + timedelta(days=day)).isoformat() for day in range(DAYS)]
    inputs = inputs_of(contest.features_of(spec, keys), spec.fields)
    graph = export.to_onnx(network, learned, spec.task)
    parity = export.prove_parity(own_answers(network, learned, spec.task, inputs), learned, graph, inputs)
    return [
        *(measure for case, us in cases.items() for measure in _measures(*case, us)),
        bits,
        Measure(
            f"largest difference of the graph from its network, {parity.rows:,} rows of January",
            parity.max_abs_difference,
            target="<= 0.000001",
        ),
    ]


def _case(
    prepared: contest.Contest, running: Sequence[Running], connections: int, rows: int, count: int
) -> dict[str, float]:
    """Return each contestant's CPU-us per request."""
    bodies = prepared.one_row() if rows == 1 else prepared.lists()
    requests = {server.name: server.requests(bodies, lists=rows > 1) for server in running}
    for server in running:
        contest.closed_loop(server.port, requests[server.name], connections, max(connections, count // 10))
    rounds: dict[str, list[float]] = {server.name: [] for server in running}
    for number in range(ROUNDS):
        for server in running if number % 2 else reversed(running):
            before_s = server.cpu_s()
            contest.closed_loop(server.port, requests[server.name], connections, count)
            rounds[server.name].append((server.cpu_s() - before_s) / count * 1e6)
    return {name: statistics.median(values) for name, values in rounds.items()}


def _measures(connections: int, rows: int, us: dict[str, float]) -> list[Measure]:
    peers = {name: value for name, value in us.items() if name not in (contest.OURS, LIMIT)}
    case = f"{connections} connection{'s' * (connections > 1)}, {rows} row{'s' * (rows > 1)}"
    ours = us[contest.OURS]
    measures = [
        Measure(
            f"{case}: CPU-us per request",
            ours,
            peers=peers,
            limit=us[LIMIT],
            target=TARGETS[connections] if rows == 1 else None,
        ),
        Measure(f"{case}: share of the CPU of FastAPI without a log", ours / us["FastAPI"], target="<= 1"),
    ]
    if (connections, rows) == (16, 1):
        measures.append(
            Measure(
                f"{case}: times cheaper than a default Bento", us[DEFAULT] / ours, target=f">= {CHEAPER_THAN_BENTO}"
            )
        )
    shown.append(f"{case}: {us[DEFAULT] / ours:.1f} times cheaper than a default Bento")
    return measures
