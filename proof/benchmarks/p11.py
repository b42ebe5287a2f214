"""Overhead: an asset of a daily run, and loading the definitions.

The run is the first recorded product's own `advance` job over a key with nothing to do: every asset reads its
partition records, sees that it is up to date, and reports. The rest is the cost of the platform. The peers are the
same graph with empty bodies, the cost of Dagster itself, and under Dagster's stock multiprocess executor; the limit is
the reading of the records, called directly.

The definitions are also loaded with 2, 10 and 50 products, in a checkout of their own to which copies of one product's
file were added: the price of one more is what lies between 10 and 50.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.instance import home
from platform_assets.store.product_store import ProductStore
from proof.benchmarks.harness import Disagreement, Measure
from tests.doubles.checkout import copied

ROUNDS = 5
LOAD_ROUNDS = 9
OURS, EMPTY, STOCK, LIMIT = "ours", "empty", "stock", "limit"
EMPTIED, MULTIPROCESS = "empty bodies in process", "stock multiprocess executor"
BARE = "import dagster, polars"
FROZEN = f"{BARE}, gc; gc.freeze()"
"""The definitions end so too, which spares a process the collection at its exit."""
FULL = "import platform_assets.definitions"
RESOLVED = "from platform_assets.definitions import defs; defs.get_repository_def()"
"""What a code server does with the definitions once it has loaded them: the graph of all assets."""
REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = REPOSITORY / "tests" / "doubles" / "products" / "hourly_temperature.py"
PRODUCTS = (2, 10, 50)
PRODUCT_ROUNDS = 5

shown: list[str] = []


def run() -> list[Measure]:
    shown.clear()
    return [*_daily_run(), _loading(), *_products()]


def _daily_run() -> list[Measure]:
    spec = next(spec for spec in product_files.load_all() if spec.history is not None)
    first = replay.history(spec).demo_first
    keys = spec.grain.span(first, spec.grain.shift(first, spec.lookback + 2))
    with tempfile.TemporaryDirectory(prefix="p11-") as path:
        settings = Settings(root=f"{path}/store", state=Path(path) / "state")
        home.prepare(settings)
        product = ProductStore(spec, settings)
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
            f"CPU ms per asset, a day of {assets} assets with nothing to do",
            cpu_ms[OURS],
            peers={EMPTIED: cpu_ms[EMPTY], MULTIPROCESS: cpu_ms[STOCK]},
            limit=cpu_ms[LIMIT],
            target="<= 60 ms",
        ),
        Measure(
            "the same over the empty bodies of the same graph",
            cpu_ms[OURS],
            limit=cpu_ms[EMPTY],
            target="<= 1.1x limit",
        ),
        Measure(
            "CPU s of that run as a process of its own, imports included",
            whole_s[OURS],
            peers={EMPTIED: whole_s[EMPTY], MULTIPROCESS: whole_s[STOCK]},
            limit=whole_s[LIMIT],
        ),
    ]


def _loading() -> Measure:
    result: dict[str, list[float]] = {FULL: [], FROZEN: [], BARE: []}
    for _ in range(LOAD_ROUNDS):
        for code, times in result.items():
            times.append(_cpu_s_of([sys.executable, "-c", code]))
    return Measure(
        "CPU s to load the definitions in a fresh process",
        median(result[FULL]),
        peers={"the limit without a collection at its exit": median(result[FROZEN])},
        limit=median(result[BARE]),
        target="<= 1.2x limit",
    )


def _products() -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="p11-") as path:
        checkouts = {count: checkout(Path(path) / str(count), count) for count in PRODUCTS}
        cpu_s: dict[tuple[str, int], list[float]] = {key: [] for key in itertools.product((FULL, RESOLVED), PRODUCTS)}
        for _ in range(1 + PRODUCT_ROUNDS):
            for (code, count), times in cpu_s.items():
                times.append(_cpu_s_of([sys.executable, "-W", "ignore", "-c", code], checkouts[count]))
    medians = {key: median(times[1:]) for key, times in cpu_s.items()}  # the first round compiles the modules
    for code, text in ((FULL, "imported"), (RESOLVED, "imported and resolved to a repository")):
        seconds = ", ".join(f"{medians[code, count]:.2f} s with {count}" for count in PRODUCTS)
        shown.append(f"definitions {text}, CPU in a fresh process: {seconds} products")
    few, many = PRODUCTS[1:]

    def per_product_ms(code: str) -> float:
        return 1000 * (medians[code, many] - medians[code, few]) / (many - few)

    return [
        Measure(
            f"CPU ms to load the definitions, per product from {few} to {many}", per_product_ms(FULL), target="<= 20 ms"
        ),
        Measure(
            "the same with Dagster's graph of all assets, which a code server makes of them", per_product_ms(RESOLVED)
        ),
    ]


def checkout(folder: Path, count: int) -> Path:
    """Copy the sources, and add copies of one product until there are this many."""
    specs_folder = copied(REPOSITORY, folder) / "platform_assets" / "products"
    text = COPIED.read_text(encoding="utf-8")
    for number in range(count - len(product_files.load_all())):
        name = f"{COPIED.stem}_{number:02}"
        (specs_folder / f"{name}.py").write_text(text.replace(f'"{COPIED.stem}"', f'"{name}"'), encoding="utf-8")
    return folder


def _cpu_s_of(command: list[str], checkout: Path = REPOSITORY) -> float:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=checkout, env=environment)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _child(settings: Settings, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "proof.benchmarks.overhead_run", *arguments]
    environment: Mapping[str, str] = {**os.environ, **settings.to_environment()}
    before = os.times()
    ended = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    after = os.times()
    whole_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(ended.stdout.splitlines()[-1]), "process_cpu_s": whole_s}
