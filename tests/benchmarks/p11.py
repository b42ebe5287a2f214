"""Overhead: an asset of a daily run, and loading the definitions.

The run is the first recorded product's own `advance` job over a key with nothing to do: every asset reads its
partition records, sees that it is up to date, and reports. The rest is the cost of the platform. The peers are the
same graph with empty bodies, the cost of Dagster itself, and under Dagster's stock multiprocess executor; the limit is
the reading of the records, called directly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from platform_assets import replay, specs
from platform_assets.demo import home
from platform_assets.handle import Product
from platform_assets.settings import Settings
from tests.benchmarks.harness import Disagreement, Measure

ROUNDS = 5
LOAD_ROUNDS = 9
OURS, EMPTY, STOCK, LIMIT = "ours", "empty", "stock", "limit"
EMPTIED, MULTIPROCESS = "empty bodies in process", "stock multiprocess executor"
BARE = "import dagster, polars"
FULL = "import platform_assets.definitions"


def run() -> list[Measure]:
    """Measure both, each in interleaved rounds."""
    return [*_daily_run(), _loading()]


def _daily_run() -> list[Measure]:
    spec = next(spec for spec in specs.load_all() if spec.history is not None)
    first = replay.history(spec).demo_first
    keys = spec.grain.span(first, spec.grain.shift(first, spec.lookback + 2))
    with tempfile.TemporaryDirectory(prefix="p11-") as path:
        settings = Settings(root=f"{path}/store", state=Path(path) / "state")
        home.prepare(settings)
        product = Product(spec, settings)
        for _ in replay.land(product, keys):
            pass
        replay.move_on(product, replay.end_of(spec, keys[-1], replay.Reader(spec)))
        _child(settings, OURS, spec.name, keys[0], keys[-1])
        outcome: dict[str, list[dict[str, float]]] = {OURS: [], EMPTY: [], STOCK: [], LIMIT: []}
        answers = set()
        for _ in range(ROUNDS):
            for contestant, results in outcome.items():
                result = _child(settings, contestant, spec.name, keys[-1], keys[-1])
                answers.add(str(result.pop("digests")))
                results.append({name: float(value) for name, value in result.items() if isinstance(value, int | float)})
    if len(answers) != 1:
        raise Disagreement(f"key {keys[-1]} was written between rounds: {len(answers)} different sets of records.")
    assets = int(outcome[OURS][0]["assets"])
    cpu_ms = {name: 1000 * median(result["cpu_s"] for result in results) / assets for name, results in outcome.items()}
    whole_s = {name: median(result["process_cpu_s"] for result in results) for name, results in outcome.items()}
    return [
        Measure(
            measure=f"CPU ms an asset, a day of {assets} assets with nothing to do",
            ours=cpu_ms[OURS],
            peers={EMPTIED: cpu_ms[EMPTY], MULTIPROCESS: cpu_ms[STOCK]},
            limit=cpu_ms[LIMIT],
            target="<= 60 ms",
        ),
        Measure(
            measure="CPU s of that run as a process of its own, imports included",
            ours=whole_s[OURS],
            peers={EMPTIED: whole_s[EMPTY], MULTIPROCESS: whole_s[STOCK]},
            limit=whole_s[LIMIT],
        ),
    ]


def _loading() -> Measure:
    result: dict[str, list[float]] = {FULL: [], BARE: []}
    for _ in range(LOAD_ROUNDS):
        for code, times in result.items():
            times.append(_cpu_s_of([sys.executable, "-c", code]))
    return Measure(
        measure="CPU s to load the definitions in a fresh process",
        ours=median(result[FULL]),
        limit=median(result[BARE]),
        target="<= 1.2x limit",
    )


def _cpu_s_of(command: list[str]) -> float:
    """Return the CPU seconds of a command and of everything that it started and waited for."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _child(settings: Settings, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.benchmarks.overhead_run", *arguments]
    environment: Mapping[str, str] = {**os.environ, **settings.to_environment()}
    before = os.times()
    ended = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    after = os.times()
    whole_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(ended.stdout.splitlines()[-1]), "process_cpu_s": whole_s}
