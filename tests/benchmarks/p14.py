"""Memory of ingesting a million answers of 89 fields for one key, under a limit of 1 GB.

A process like a run pod's materialises `predictions` from segments, in a memory cgroup with that limit where one can
be made. A second process ingests the same answers in twice as many segments: the content must be the same.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platform_assets.base.settings import Settings
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.store.product_store import ProductStore
from tests.benchmarks.harness import Disagreement, Measure
from tests.benchmarks.p14_run import FIELDS, KEY, SPEC
from tests.doubles import s3_server
from tests.doubles.shipped import ship

ANSWERS = int(os.environ.get("P14_ANSWERS", "1_000_000"))
LIMIT_BYTES = 1_000_000_000
SEGMENT_BYTES = 4_000_000
BUCKET = "answers"
CGROUP = Path("/sys/fs/cgroup/memory")
REPOSITORY = Path(__file__).parents[2]
MIDNIGHT = datetime(2020, 1, 5, tzinfo=UTC)
shown: list[str] = []


def run() -> list[Measure]:
    """Ingest the answers twice, in segments of two sizes."""
    digests, peaks = set(), []
    with tempfile.TemporaryDirectory() as folder, s3_server.running(Path(folder)) as server:
        os.environ.update(server.environment())
        server.make_bucket(BUCKET)
        for size in (SEGMENT_BYTES, SEGMENT_BYTES // 2):
            settings = Settings(environment="cluster", root=f"s3://{BUCKET}/{size}", state=Path(folder, f"state{size}"))
            count = fill(settings.root, size)
            print(f"{count} segments are in the store", flush=True)
            peak, cpu_s = limited(settings)
            record = ProductStore(SPEC, settings).tables.records(STAGE, [KEY])[KEY]
            if record.rows != ANSWERS:
                raise Disagreement(f"{record.rows:,} answers of {ANSWERS:,} arrived")
            digests.add(record.content_digest)
            peaks.append(peak)
            shown.append(f"{ANSWERS:,} answers in {count} segments: peak {peak / 1e6:.0f} MB, {cpu_s:.0f} s of CPU")
            print(shown[-1], flush=True)
    if len(digests) > 1:
        raise Disagreement(f"the content differs: {digests}")
    return [Measure(measure="MB, peak of the process", ours=max(peaks) / 1e6, target=f"<= {LIMIT_BYTES / 1e6:.0f} MB")]


def lines() -> Iterator[bytes]:
    """Yield the answers of one day, as a service logs them, in an order that is not that of asking."""
    chance = random.Random(1)
    texts = [",".join(f'"{name}":{round(chance.random(), 4)}' for name in FIELDS) for _ in range(1000)]
    order = list(range(ANSWERS))
    for start in range(0, ANSWERS, 10_000):
        part = order[start : start + 10_000]
        chance.shuffle(part)
        order[start : start + 10_000] = part
    for number in order:
        asked = f"{(MIDNIGHT + timedelta(microseconds=number * 80_000)).isoformat()}"
        yield (
            f'{{"prediction_id":"{number:032x}","digest":"{"a" * 64}","release":1,"entity":"job-{number}",'
            f'"service_time":"{asked}","asked_at":"{asked}","probability":{number % 97 / 97},'
            f'"answered_at_utc":"{asked}","latency_us":900,"features":{{{texts[number % 1000]}}}}}\n'
        ).encode()


def fill(root: str, size: int, product: str = SPEC.name) -> int:
    """Ship all answers in segments of about a size; return their number."""
    at, first, count, body = datetime.now(UTC), 0, 0, list[bytes]()
    for line in lines():
        body.append(line)
        if len(body) * len(line) >= size:
            ship(root, at + count * timedelta(milliseconds=1), b"".join(body), first=first, product=product)
            first, count, body = first + sum(map(len, body)), count + 1, []
    if body:
        ship(root, at + count * timedelta(milliseconds=1), b"".join(body), first=first, product=product)
        count += 1
    return count


def limited(settings: Settings, stage: str = STAGE) -> tuple[int, float]:
    """Run a stage in a process of its own under the limit; return its peak in bytes, and its CPU seconds."""
    group = CGROUP / f"driftline-p14-{os.getpid()}"
    is_limited = os.geteuid() == 0 and (CGROUP / "memory.limit_in_bytes").exists()
    if is_limited:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    else:
        shown.append("no memory cgroup can be made here, so nothing limits the process")
    try:
        child = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.p14_run", str(group) if is_limited else "", stage],
            cwd=REPOSITORY,
            env={**os.environ, **settings.to_environment()},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        if is_limited:
            group.rmdir()
    peak, cpu_s = child.stdout.splitlines()[-1].split()
    return int(peak), float(cpu_s)
