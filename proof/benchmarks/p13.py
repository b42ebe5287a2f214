"""What sending the prediction log to the store costs: CPU of the service, and requests to the store.

Two services of one Bento, one that ships and one that does not, answer the same lists in turns (A B B A); medians of
the rounds. CPU is that of the process, with the threads of the store's client. The store is a real S3 server behind a
proxy that counts requests. Then the one that ships is left alone for two
minutes.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from platform_assets.serving.run import child as serving
from proof.benchmarks.harness import Measure
from proof.doubles import shipping_service
from proof.doubles.asking import Callers
from proof.doubles.shipping_service import figure
from tests.doubles import s3_server
from tests.doubles.faulty_s3 import Faults, in_front_of

ROUNDS, ROUND_S, IDLE_S = 6, 12.0, 121.0
SHIPS, KEEPS = "driftline-ships", "driftline-keeps"
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        bento = shipping_service.built(base).path
        (base / "s3").mkdir()
        server = stack.enter_context(s3_server.running(base / "s3"))
        faults = stack.enter_context(in_front_of(server.endpoint))
        servers = {}
        for name in (SHIPS, KEEPS):
            server.make_bucket(name)
            ships = str(name == SHIPS).lower()
            serve = shipping_service.serve(base, bento, name, server, faults.endpoint, serving_ships=ships)
            servers[name] = stack.enter_context(serve)[1]
        # A B, B A, A B: what changes with time falls on both.
        orders = [sorted(servers, reverse=bool(number % 2)) for number in range(ROUNDS)]
        rounds = [{name: _round(servers[name], faults, ROUND_S, name) for name in order} for order in orders]
        idle = _round(servers[SHIPS], faults, IDLE_S, SHIPS, rows=0)
    busy = [turn[SHIPS] for turn in rounds]
    us_per_row = {
        name: statistics.median(turn[name]["cpu_s"] / turn[name]["rows"] for turn in rounds) * 1e6 for name in servers
    }
    ours = statistics.median(turn["ship_s"] / turn["rows"] for turn in busy) * 1e6
    rows_per_s = statistics.median(turn["rows"] for turn in busy) / ROUND_S
    shown.append(f"{rows_per_s:.0f} rows per second in lists of 16")
    return [
        Measure("CPU of shipping's threads, us per row", ours),
        Measure(
            "share of the CPU of the process",
            statistics.median(turn["ship_s"] / turn["cpu_s"] for turn in busy),
            target="<= 0.1",
        ),
        Measure("CPU us per row with shipping", us_per_row[SHIPS], peers={"without": us_per_row[KEEPS]}),
        Measure(
            "requests per process and hour for shipping, busy", statistics.median(turn["shipping"] for turn in busy)
        ),
        Measure("requests per process and hour for shipping, idle", idle["shipping"]),
        Measure("requests per process and hour for releases", idle["other"]),
    ]


def _round(server: serving.Server, faults: Faults, seconds: float, bucket: str, rows: int = 16) -> dict[str, float]:
    """Return CPU seconds and rows of some seconds, and requests to the store per process and hour."""
    before, counted, began_s = _figures(server), len(faults.requests), time.monotonic()
    if rows:
        with Callers(int(server.url.rsplit(":", 1)[1]), callers=2, rows=rows, pause_s=0.05):
            time.sleep(seconds)
    else:
        time.sleep(seconds)
    after, took_s = _figures(server), time.monotonic() - began_s
    requests = [
        path for _, path in faults.requests[counted:] if path.startswith(f"/{bucket}/") or f"/{bucket}?" in path
    ]
    shipping = sum("prediction_log" in path for path in requests)
    changes = {name: after[name] - before[name] for name in after}
    per_hour = 3600 / took_s
    return {**changes, "shipping": shipping * per_hour, "other": (len(requests) - shipping) * per_hour}


def _figures(server: serving.Server) -> dict[str, float]:
    time.sleep(3.0)  # it publishes its CPU every two seconds
    text = server.probe("/metrics")[1].decode()
    names = {"cpu_s": "cpu_seconds", "ship_s": "shipping_cpu_seconds", "rows": "predictions"}
    return {name: sum(figure(text, f"driftline_{metric}_total")) for name, metric in names.items()}
