"""Serving: latency of the flights' product at a fixed rate of arrivals, half of what a default Bento can answer.

Open loop: a request is sent when it is due, on a free connection or a new one, and its latency runs from the moment it
was due. Contestants take turns; a figure is the median of the rounds, and the worst round is printed too. Once alone,
once next to a training of the same network with all cores, and ours with a mix of one row, lists of 256, escapes and
bad rows. The limit is an ASGI application that answers two bytes. How long one request may hold the event loop is row
P12. Lists are not in the two comparisons, because one costs as much as a hundred rows.
"""

import contextlib
import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from proof.benchmarks import serving_contest as contest
from proof.benchmarks.harness import Disagreement, Measure
from proof.benchmarks.serving_contest import Connection, Running

ROUNDS, REQUESTS, OF_MIX = 5, 300, 1_000
HELLO, DEFAULT, LOGGED = "hello world", "default Bento", "FastAPI with log"
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
MIX = {"one row": 0.90, "list of 256": 0.04, "escapes": 0.03, "bad row": 0.03}
P999_MS = 100
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        prepared = contest.prepare(Path(name))
        running = [
            stack.enter_context(contest.ours(prepared)),
            stack.enter_context(contest.peer(prepared, HELLO)),
            stack.enter_context(contest.peer(prepared, LOGGED)),
            stack.enter_context(contest.default_bento(prepared, DEFAULT, "Default")),
        ]
        contest.agree(prepared, [server for server in running if server.name != HELLO])
        rate = _most(running[-1], prepared) / 2
        shown.append(f"{rate:.0f} requests per second: half of what a default Bento answered over 16 connections")
        measures = _compared("alone", prepared, running, rate)
        with _training():
            measures += _compared("next to a training", prepared, running[:2], rate)
        ours = running[0]
        escaped = [json.dumps({**row, "entity": "\\é💥" * 20}).encode() for row in prepared.rows[:50]]
        kinds = {
            "one row": prepared.one_row(),
            "list of 256": prepared.lists(),
            "escapes": escaped,
            "bad row": list(contest.bad_rows(prepared.rows[0]).values()),
        }
        rounds = []
        for number in range(ROUNDS):
            drawn = random.Random(number).choices(list(MIX), list(MIX.values()), k=OF_MIX)
            requests = [
                (ours.requests([random.Random(n).choice(kinds[kind])])[0], kind != "bad row")
                for n, kind in enumerate(drawn)
            ]
            rounds.append(_quantiles(open_loop(ours.port, requests, rate)))
        shown.append(
            f"mix: the slowest of {ROUNDS * OF_MIX} answers took {max(item['worst'] for item in rounds):.0f} ms"
        )
        return [
            *measures,
            Measure(
                f"mix with lists of 256, escapes and bad rows: p99.9 of the worst of {ROUNDS} rounds, ms",
                max(item["p99.9"] for item in rounds),
                target=f"<= {P999_MS} ms",
            ),
        ]


def open_loop(port: int, requests: Sequence[tuple[bytes, bool]], rate: float) -> list[float]:
    """Send requests at fixed times; return the seconds from each one's time to its whole answer.

    Args:
        requests: with whether each must be answered with 200; the others must be refused with 422.
        rate: per second.
    """
    poll, latencies = select.epoll(), list[float]()
    free: list[Connection] = []
    busy: dict[int, tuple[Connection, float, bool]] = {}
    begin_s, sent = time.perf_counter(), 0
    while len(latencies) < len(requests):
        due_s = begin_s + sent / rate
        now_s = time.perf_counter()
        if sent < len(requests) and now_s >= due_s:
            if free:
                connection = free.pop()
            else:
                connection = Connection(port)
                poll.register(connection.socket, select.EPOLLIN)
            request, is_good = requests[sent]
            connection.send(request)
            busy[connection.socket.fileno()] = connection, due_s, is_good
            sent += 1
            continue
        wait_s = max(0.0, due_s - now_s) if sent < len(requests) else 30.0
        for number, _ in poll.poll(wait_s):
            connection, asked_s, is_good = busy[number]
            answer = connection.receive()
            if answer is None:
                continue
            if answer[0] != (200 if is_good else 422):
                raise Disagreement(f"the server on port {port} answered {answer[0]}: {answer[1][:300]!r}")
            latencies.append(time.perf_counter() - asked_s)
            free.append(busy.pop(number)[0])
    poll.close()
    for connection in free:
        connection.socket.close()
    return latencies


def _most(running: Running, prepared: contest.Contest) -> float:
    requests = running.requests(prepared.one_row())
    contest.closed_loop(running.port, requests, 16, 100)
    begin_s = time.perf_counter()
    contest.closed_loop(running.port, requests, 16, REQUESTS)
    return REQUESTS / (time.perf_counter() - begin_s)


def _compared(case: str, prepared: contest.Contest, running: Sequence[Running], rate: float) -> list[Measure]:
    bodies = {server.name: server.requests(prepared.one_row()) for server in running}
    rounds: dict[str, list[dict[str, float]]] = {server.name: [] for server in running}
    for number in range(ROUNDS):
        for server in running if number % 2 else reversed(running):
            requests = [(bodies[server.name][place % len(prepared.rows)], True) for place in range(REQUESTS)]
            rounds[server.name].append(_quantiles(open_loop(server.port, requests, rate)))
    measures = []
    for quantile in QUANTILES:
        ms = {name: statistics.median(item[quantile] for item in items) for name, items in rounds.items()}
        measures.append(
            Measure(
                f"{case}: {quantile}, ms",
                ms.pop(contest.OURS),
                limit=ms.pop(HELLO),
                peers=ms,
                target="<= 2x limit" if quantile == "p99" else None,
            )
        )
    worst = max(item["worst"] for item in rounds[contest.OURS])
    shown.append(f"{case}: the slowest of our {ROUNDS * REQUESTS} answers took {worst:.0f} ms")
    return measures


def _quantiles(latencies_s: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies_s)
    chosen = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in QUANTILES.items()}
    return {name: value * 1e3 for name, value in {**chosen, "worst": ordered[-1]}.items()}


@contextlib.contextmanager
def _training() -> Iterator[None]:
    """Train in another process, with as many threads as cores, until the block ends."""
    environment = {**os.environ, "PYTHONPATH": str(contest.REPOSITORY)}
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _train() -> None:
    """Take steps of a network like that of the flights' product for ever."""
    import torch
    from torch import nn

    layers = [nn.Linear(245, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1)]
    network = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters())
    rows, labels = torch.randn(1024, 245), torch.rand(1024, 1).round()
    print("trains", flush=True)
    while True:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(rows), labels).backward()
        optimizer.step()


if __name__ == "__main__":
    _train()
