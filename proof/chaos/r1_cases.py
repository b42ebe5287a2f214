"""One case of row R1: a disk after a power loss, or a process that is really killed; the losses, and the recovery."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import islice
from pathlib import Path

from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.content import content_digest
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from proof.chaos import r1_work
from proof.chaos.r1_disk import calls_of, disk_at, lay_out

REPOSITORY = Path(__file__).parents[2]


def work(shim: Path, root: Path, log: Path, kill_at: int | None = None) -> int:
    root.mkdir(parents=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "R1_ROOT": str(root),
        "R1_LOG": str(log),
        "R1_KILL_AT": "" if kill_at is None else str(kill_at),
        "POLARS_MAX_THREADS": "1",
    }
    command = [sys.executable, "-m", "proof.chaos.r1_work", str(root)]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, check=kill_at is None, stderr=subprocess.PIPE)
    return ended.returncode


def run_case(case: tuple[str, int, str, str, str]) -> tuple[str, str | None, float]:
    """Run one case in a process of the pool; return its kind, the loss if any, and the seconds of the recovery."""
    kind, location, values, log, folder = case
    if kind == "killed":
        problem, took_s = _killed(Path(values), Path(folder), location)
        return kind, problem, took_s
    disk = disk_at(Path(values), list(islice(calls_of(Path(log)), location)))
    done = disk.now().get(r1_work.DONE, b"").decode().splitlines()
    cut = Path(folder, f"cut-{location}-{kind}")
    lay_out({path: data for path, data in disk.after(kind).items() if path != r1_work.DONE}, cut)
    problem, took_s = _judged(cut, done)
    shutil.rmtree(cut)
    return kind, f"{kind} lost at call {location}: {problem}" if problem else None, took_s


def _killed(shim: Path, folder: Path, position: int) -> tuple[str | None, float]:
    root, log = folder / f"killed-{position}", folder / f"log-{position}"
    code = work(shim, root, log, kill_at=position)
    if code != -9:
        return f"the process ended by itself with {code} before call {position}", 0.0
    done = (root / r1_work.DONE).read_text(encoding="utf-8").splitlines() if (root / r1_work.DONE).exists() else []
    problem, took_s = _judged(root, done)
    return (f"killed at call {position}: {problem}" if problem else None), took_s


def _judged(folder: Path, done: list[str]) -> tuple[str | None, float]:
    """Return what was lost or no longer works after these acknowledged steps, and the seconds of the recovery."""
    root = str(folder)
    folder.mkdir(exist_ok=True)
    began = time.perf_counter()
    try:
        problem = _lost(root, done)
        if problem is None:
            for _, step in r1_work.steps(root)[len(done) :]:
                step()
            problem = _lost(root, [name for name, _ in r1_work.steps(root)])
    except Exception as error:  # noqa: BLE001 - whatever the error, the store did not survive
        problem = f"{type(error).__name__}: {error}"
    return problem, time.perf_counter() - began


def _lost(root: str, done: list[str]) -> str | None:
    """Return the first acknowledged item that is missing or changed."""
    tables, ledgers, artifacts = (kind(root, r1_work.PRODUCT) for kind in (TableStore, Ledgers, _Blobs))
    count = len(done)
    under_way = r1_work.steps(root)[count : count + 1]
    for stage in r1_work.STAGES:
        numbers = [number for number in range(r1_work.ROUNDS) if f"table {stage} {number}" in done]
        started = [
            number for number in range(r1_work.ROUNDS) if (f"table {stage} {number}") in [n for n, _ in under_way]
        ]
        candidates: dict[str, list[int]] = {}
        for number in numbers:
            candidates[r1_work.key_of(number)] = [number]
        for number in started:
            candidates.setdefault(r1_work.key_of(number), []).append(number)
        records = tables.records(stage)
        for key, numbers_of_key in candidates.items():
            if key not in records:
                if set(numbers_of_key) <= set(started):
                    continue
                return f"{stage} {key} has no record"
            expected = {content_digest(r1_work.rows(number)) for number in numbers_of_key}
            if content_digest(tables.read(stage, [key]).drop("key")) not in expected:
                return f"{stage} {key} holds what was not written last"
    for name in done:
        kind, *_, number = name.split(" ")
        if kind == "keyed" and ledgers.read("decisions", f"{int(number):04d}") != {"number": int(number)}:
            return f"decision {number} is gone"
        if kind == "numbered" and ledgers.at("releases", int(number) + 1) != {"number": int(number)}:
            return f"release {number} is gone"
        if kind == "bundle":
            artifacts.check(tables, int(number))
    ledgers.latest("releases")
    list(ledgers.records("releases"))
    return None


class _Blobs:
    def __init__(self, root: str, product: str) -> None:
        self._store = ArtifactStore(root)

    def check(self, tables: TableStore, number: int) -> None:
        digest, model = _bundle_of(number)
        assert self._store.bundle(digest).read("model") == model
        key = r1_work.key_of(number)
        assert key in tables.records("onnx", [key]), f"onnx {key} has no record"


@cache
def _bundle_of(number: int) -> tuple[str, bytes]:
    """Return the digest and the model of a round's bundle, written elsewhere."""
    model = f"model {number}".encode() * 100
    with tempfile.TemporaryDirectory() as other:
        return ArtifactStore(other).write_bundle({"model": model}, {"number": number}), model
