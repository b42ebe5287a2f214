"""Power loss and SIGKILL at sixty points of writing: what was acknowledged is there, and the work goes on.

A process writes tables, records, bundles and ledgers below a preloaded shim that logs each call to the file system.
For power losses the log is cut at sixty places, and each cut gives three disks: of the data not synced to the disk,
everything is gone, or the names remain without bytes, or half of the bytes remain. For kills the process is really
killed, by SIGKILL, before the call of that number. The shim stands in for a disk; a disk that acknowledges unwritten
data is not covered.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from platform_assets.store import durable
from tests.benchmarks.harness import Measure
from tests.chaos import r1_work
from tests.chaos.r1_cases import run_case, work
from tests.chaos.r1_disk import LOSSES, calls_of, disk_at

CUTS, SEED, BACK_TO_WORK_S = 60, 20261126, 30.0
WORKERS, MEMORY, ROOM_BYTES = 2, "/dev/shm", 2_000_000_000
SOURCE = Path(__file__).with_name("r1_shim.c")
shown: list[str] = []


def run() -> list[Measure]:
    """Cut the power and kill the process, and count the survived cases."""
    shown.clear()
    broken: dict[str, list[str]] = {name: [] for name in (*LOSSES, "killed")}
    seconds: list[float] = []
    # The shim logs what reaches a disk wherever the files are; in memory everything else is quicker.
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    memory = MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix="driftline-r1-", dir=memory) as name, tempfile.TemporaryDirectory() as disk:
        folder = Path(name)
        shim = _built(folder)
        root, log = folder / "store", folder / "log"
        work(shim, root, log)
        calls = list(calls_of(log))
        replayed = disk_at(root, calls)
        assert replayed.now() == _tree(root), "the shim missed a call"
        positions = sorted(random.Random(SEED).sample(range(1, len(calls)), CUTS))
        kinds = Counter(call.kind for call in calls)
        cuts = [(loss, position, str(root), str(log), str(folder)) for position in positions for loss in LOSSES]
        kills = [("killed", position, str(shim), "", str(folder)) for position in positions]
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
            for done, (kind, problem, took_s) in enumerate(pool.map(run_case, [*cuts, *kills]), 1):
                seconds.append(took_s)
                if problem:
                    broken[kind].append(problem)
                if done % CUTS == 0:
                    print(f"  {done} of {len(cuts) + len(kills)} tried", flush=True)
        cost = _cost(Path(disk))
    for problem in (problem for result in broken.values() for problem in result):
        shown.append(problem)
        print(f"  {problem}", flush=True)
    titles = {"all": "names and bytes lost", "bytes": "bytes lost, names kept", "half": "half of the bytes lost"}
    return [
        Measure(measure="calls logged", ours=len(calls), peers={"of them fsync": kinds["s"] + kinds["d"]}),
        *(
            Measure(measure=f"power cuts survived: {titles[loss]}", ours=CUTS - len(broken[loss]), target=f">= {CUTS}")
            for loss in LOSSES
        ),
        Measure(measure="SIGKILLs survived", ours=CUTS - len(broken["killed"]), target=f">= {CUTS}"),
        Measure(measure="seconds back to work, worst", ours=max(seconds), target=f"<= {BACK_TO_WORK_S:g} s"),
        *cost,
    ]


def _built(folder: Path) -> Path:
    if shutil.which("cc") is None:
        raise RuntimeError("row R1 builds its shim with a C compiler and there is none: apt-get install gcc libc6-dev.")
    shim = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return shim


def _cost(folder: Path) -> list[Measure]:
    """Return the cost of syncing to the disk per kind of step, interleaved with and without."""
    seconds: dict[tuple[str, bool], list[float]] = {}
    for turn in range(3):
        for is_synced in (True, False):
            root = str(folder / f"cost-{turn}-{is_synced}")
            fsync = os.fsync
            os.fsync = fsync if is_synced else lambda _: None  # type: ignore[assignment]
            durable._flushed.clear()
            try:
                for name, step in r1_work.steps(root):
                    began = time.perf_counter()
                    step()
                    seconds.setdefault((name.split(" ")[0], is_synced), []).append(time.perf_counter() - began)
            finally:
                os.fsync = fsync
    return [
        Measure(
            measure=f"ms of a {kind} step, with fsync",
            ours=1000 * statistics.median(seconds[kind, True]),
            peers={"without": 1000 * statistics.median(seconds[kind, False])},
        )
        for kind in ("table", "bundle", "keyed", "numbered")
    ]


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
