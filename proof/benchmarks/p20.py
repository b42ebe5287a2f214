"""What the exporter of metrics costs: CPU, memory and requests to the store per scrape, for 1, 10 and 50 products.

`driftline exporter` in a process of its own, on a Dagster whose database has some runs, and on products with six keys,
a release, a fault and answers in a store on S3. Each scrape reads everything again: in use, products are read once a
minute at most, whatever the interval of scrapes.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import dagster as dg
import httpx
import obstore

from platform_assets.base.settings import Settings
from platform_assets.demo.processes import free_port
from platform_assets.store.objects import open_store
from proof.benchmarks.harness import Disagreement, Measure
from proof.benchmarks.p20_run import named
from tests.doubles import recorded, s3_server, watched
from tests.doubles.faulty_s3 import Faults, in_front_of

COUNTS = (1, 10, 50)
BUCKET = "exported"
SCRAPES = 7
KEYS = recorded.GRAIN.span("2020-01-11", "2020-01-16")


@dg.op
def nothing() -> None: ...


@dg.job
def empty() -> None:
    nothing()


def run() -> list[Measure]:
    measures = list[Measure]()
    with tempfile.TemporaryDirectory() as name, s3_server.running(Path(name)) as server:
        home = Path(name, "home")
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            for _ in range(5):
                empty.execute_in_process(instance=instance)
        server.make_bucket(BUCKET)
        with in_front_of(server.endpoint) as faults:
            os.environ.update(server.environment(faults.endpoint))
            _fill(f"s3://{BUCKET}/store")
            for count in COUNTS:
                cpu_ms, megabytes, requests, text = _scraped(home, count, faults)
                case = f"{count} product{'s' if count > 1 else ''}"
                measures += [
                    Measure(f"{case}: CPU ms per scrape", cpu_ms),
                    Measure(f"{case}: MB of memory", megabytes),
                    Measure(f"{case}: requests to the store per scrape", requests),
                    Measure(f"{case}: kB per scrape", len(text.encode()) / 1e3),
                ]
    return measures


def _fill(root: str) -> None:
    store = open_store(root)
    for name in named(max(COUNTS)):
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(root=f"{folder}/store", state=Path(folder, "state"))
            watched.write(settings, replace(recorded.SPEC, name=name), KEYS)
            for path in Path(folder, "store").rglob("*"):
                if path.is_file():
                    obstore.put(store, f"{path.relative_to(f'{folder}/store')}", path.read_bytes())


def _scraped(home: Path, count: int, faults: Faults) -> tuple[float, float, float, str]:
    """Return medians of what a scrape costs, and the last answer."""
    with _exporter(home, count) as address:
        texts, cpus_s, requests = list[str](), list[float](), list[int]()
        for _ in range(SCRAPES + 1):
            before = len(faults.requests)
            texts.append(httpx.get(address, timeout=600).text)
            cpus_s.append(_number(texts[-1], "process_cpu_seconds_total"))
            requests.append(len(faults.requests) - before)
    if f'driftline_newest_release{{product="shop_{count - 1}"}} 1.0' not in texts[-1]:
        raise Disagreement(f"the scrape of {count} products lacks the last one's release: it took too long.")
    cpu_s = median(after - before for before, after in pairwise(cpus_s))
    return cpu_s * 1e3, _number(texts[-1], "process_resident_memory_bytes") / 1e6, median(requests[1:]), texts[-1]


@contextmanager
def _exporter(home: Path, count: int) -> Iterator[str]:
    port = free_port(9464)
    command = [sys.executable, "-m", "proof.benchmarks.p20_run", str(home), str(port), str(count)]
    environment = {
        **os.environ,
        "DRIFTLINE_ENV": "cluster",
        "DRIFTLINE_ROOT": f"s3://{BUCKET}/store",
        "DRIFTLINE_STATE": f"{home}/state",
    }
    process = subprocess.Popen(command, env=environment)
    try:
        address, until_s = f"http://127.0.0.1:{port}/metrics", time.monotonic() + 120
        while time.monotonic() < until_s:
            try:
                httpx.get(address, timeout=600)
                break
            except httpx.ConnectError:
                if process.poll() is not None:
                    raise Disagreement(f"the exporter ended with {process.returncode}.") from None
                time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def _number(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found)
