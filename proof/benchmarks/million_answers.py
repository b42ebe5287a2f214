"""A million answers of 89 fields for one key, and a stage in a process of its own under a limit of 1 GB."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platform_assets.base.settings import Settings
from proof.benchmarks.limited_stage import FIELDS, SPEC
from tests.doubles.shipped import ship

ANSWERS = int(os.environ.get("ANSWERS", "1_000_000"))
LIMIT_BYTES = 1_000_000_000
SEGMENT_BYTES = 4_000_000
BUCKET = "answers"
CGROUP = Path("/sys/fs/cgroup/memory")
REPOSITORY = Path(__file__).parents[2]
MIDNIGHT = datetime(2020, 1, 5, tzinfo=UTC)


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


def limited(settings: Settings, stage: str) -> tuple[int, float]:
    """Run a stage in a process of its own under the limit; return its peak in bytes, and its CPU seconds."""
    group = CGROUP / f"driftline-limited-{os.getpid()}"
    is_limited = os.geteuid() == 0 and (CGROUP / "memory.limit_in_bytes").exists()
    if is_limited:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    else:
        print("no memory cgroup can be made here, so nothing limits the process", flush=True)
    try:
        child = subprocess.run(
            [sys.executable, "-m", "proof.benchmarks.limited_stage", str(group) if is_limited else "", stage],
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
