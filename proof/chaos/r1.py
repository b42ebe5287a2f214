"""Power loss and SIGKILL at sixty points of writing: what was acknowledged is there, and the work goes on.

A process writes tables, records, bundles and ledgers below a preloaded shim that logs each call to the file system.
For power losses the log is cut at sixty places, and each cut gives three disks: of the data not synced to the disk,
everything is gone, or the names remain without bytes, or half of the bytes remain. For kills the process is really
killed, by SIGKILL, before the call of that number. The shim stands in for a disk; a disk that acknowledges unwritten
data is not covered.
"""

import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from proof.benchmarks.harness import Measure
from proof.chaos.r1_cases import run_case, work
from proof.chaos.r1_disk import LOSSES, calls_of, disk_at

CUTS, SEED, BACK_TO_WORK_S = 60, 20261126, 30.0
WORKERS, MEMORY, ROOM_BYTES = 2, "/dev/shm", 2_000_000_000
SOURCE = Path(__file__).with_name("r1_shim.c")
shown: list[str] = []


def run() -> list[Measure]:
    shown.clear()
    broken: dict[str, list[str]] = {name: [] for name in (*LOSSES, "killed")}
    seconds: list[float] = []
    # The shim logs what reaches a disk wherever the files are; in memory everything else is quicker.
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    memory = MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix="driftline-r1-", dir=memory) as name:
        folder = Path(name)
        if shutil.which("cc") is None:
            raise RuntimeError(
                "row R1 builds its shim with a C compiler and there is none: apt-get install gcc libc6-dev."
            )
        shim = folder / "shim.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(SOURCE), "-ldl", "-lpthread"], check=True)
        root, log = folder / "store", folder / "log"
        work(shim, root, log)
        calls = list(calls_of(log))
        replayed = disk_at(root, calls)
        written = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert replayed.now() == written, "the shim missed a call"
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
    for problem in (problem for result in broken.values() for problem in result):
        shown.append(problem)
        print(f"  {problem}", flush=True)
    titles = {"all": "names and bytes lost", "bytes": "bytes lost, names kept", "half": "half of the bytes lost"}
    return [
        Measure("calls logged", len(calls), peers={"of them fsync": kinds["s"] + kinds["d"]}),
        *(
            Measure(f"power cuts survived: {titles[loss]}", CUTS - len(broken[loss]), target=f">= {CUTS}")
            for loss in LOSSES
        ),
        Measure("SIGKILLs survived", CUTS - len(broken["killed"]), target=f">= {CUTS}"),
        Measure("seconds back to work, worst", max(seconds), target=f"<= {BACK_TO_WORK_S:g} s"),
    ]
