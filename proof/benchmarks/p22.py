"""One key of flights, from the name of its last file to the record of its decision; and a platform that idles.

A demo's platform (Dagster's webserver, daemon and code server, SQLite, a folder) with a live model and its service
plays days one after the other, each when nothing else is under way. CPU is that of Dagster's processes and the runs
until the run has ended, less what they use when idle; flushes of the disk and connections to SQLite are counted by a
preloaded library in all of them. The peers of a key are the same assets with empty bodies in one process, from row P11.
Idle are three products after those days, fifty without data, and `dagster dev` with one asset, SQLite and no sensor,
all at once.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from proof.benchmarks.harness import Measure, stored
from proof.benchmarks.p11 import checkout

IDLE_S = float(os.environ.get("P22_IDLE_S", "600"))
SOURCE = Path(__file__).with_name("p22_shim.c")
COUNTED = ("flushes", "connections")
NOT_A_KEYS = ("webserver", "code server's proxy")
"""Processes that only show."""

shown: list[str] = []


def run() -> list[Measure]:
    shown.clear()
    with tempfile.TemporaryDirectory(prefix="p22-") as path:
        folder = Path(path)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        three = checkout(folder / "three", 3)
        (key_outcome,) = _outcomes(folder, [("keys", three)])
        fifty = checkout(folder / "fifty", 50)
        others = _outcomes(folder, [("idle", fifty), ("bare", three)])
    idle, keys = key_outcome["idle"], key_outcome["keys"]
    used = [{name: max(0.0, key["used"][name] - idle[name] * key["over"]) for name in key["used"]} for key in keys]
    cpu_s = [sum(value for name, value in one.items() if name not in (*COUNTED, *NOT_A_KEYS)) for one in used]
    empty_s = [
        line["peers"]["empty bodies in process"]
        for line in stored().get("P11", [])
        if "own, imports" in line["measure"]
    ]
    shown.append("s per step: " + _medians([key["steps"] for key in keys]))
    shown.append(
        "CPU s per key by process: " + _medians([{n: v for n, v in one.items() if n not in COUNTED} for one in used])
    )
    for name, outcome in (("three products", idle), ("fifty", others[0]["idle"]), ("Dagster", others[1]["idle"])):
        shown.append(f"idle, {name}, CPU s per s by process: " + _medians([_cpu(outcome)]))
    bare = sum(_cpu(others[1]["idle"]).values())
    return [
        Measure("s from the last file to the decision, median", median(key["wall"] for key in keys), target="<= 3 s"),
        *(Measure(f"of them {name}", median(key["parts"][name] for key in keys)) for name in keys[0]["parts"]),
        Measure(
            "CPU s of a key, less the idle share, median",
            median(cpu_s),
            peers={"empty bodies in one process": empty_s[0]} if empty_s else {},
            target="<= 4 s",
        ),
        Measure("flushes of the disk per key", median(one["flushes"] for one in used), target="<= 300"),
        Measure("connections to SQLite opened per key", median(one["connections"] for one in used), target="<= 20"),
        Measure("CPU s per s, idle, three products", sum(_cpu(idle).values()), limit=bare, target="<= 0.075 s"),
        Measure(
            "CPU s per s, idle, 50 products", sum(_cpu(others[0]["idle"]).values()), limit=bare, target="<= 0.12 s"
        ),
    ]


def _outcomes(folder: Path, wanted: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Run platforms at the same time, and return what each prints."""
    started = []
    for kind, place in wanted:
        (folder / kind).mkdir()
        counts = folder / f"{kind}.counts"
        counts.write_bytes(bytes(16))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{place}",
            "LD_PRELOAD": f"{folder}/shim.so",
            "P22_COUNTS": f"{counts}",
        }
        command = [sys.executable, "-m", "proof.benchmarks.p22_run", kind, str(folder / kind), str(IDLE_S)]
        started.append(subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True))
    outcomes = []
    for process in started:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        outcomes.append(json.loads(output.splitlines()[-1]))
    return outcomes


def _cpu(used: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in used.items() if name not in COUNTED}


def _medians(rows: list[dict[str, float]]) -> str:
    values = {name: median(row.get(name, 0.0) for row in rows) for name in rows[0]}
    return ", ".join(f"{name} {value:.3f}" for name, value in sorted(values.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    print(run(), *shown, sep="\n")
