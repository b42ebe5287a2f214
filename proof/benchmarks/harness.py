"""Run rows, print one JSON line per measure and a table, and keep the lines in docs/benchmarks.jsonl.

A row is a module next to the `__main__.py` that calls `main`: `p11.py` is row P11. It has `run() -> list[Measure]` and
a docstring: title, what is compared, which choices flatter it. docs/benchmarks.md is rendered from both.
A row whose contestants disagree raises `Disagreement`. A row that explains its numbers in sentences also has `shown:
list[str]`, filled by `run`; they are printed below the table.
"""

import argparse
import ast
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
AREAS = {
    "Serving": ("P1", "P2", "P3", "P12", "P13"),
    "Load and overload": ("R7", "R8"),
    "Hostile input, tampered stores": ("R3", "R4"),
    "Data": ("P6a", "P8", "P9", "P15", "P16", "R11", "D1"),
    "Cost": ("P11", "P22", "P18", "P19", "P20", "P21", "Q4"),
    "Failure": ("R1", "R5", "gangs", "R6", "R9", "R10", "alerts"),
    "Quality": ("Q1", "Q2", "Q5"),
}
# What a cluster proves outside of `make bench` and `make chaos`, and the module that says how.
ON_A_CLUSTER = {"gangs": "cluster/gang_endings", "alerts": "cluster/test_alerts"}
KEYS = ("row", "measure", "ours", "peers", "limit", "ratio_to_limit", "target", "is_met")
VERSIONS = ("dagster", "polars", "torch", "onnxruntime", "bentoml")
HEAD = """\
# Benchmarks

Written by `make bench` and `make chaos` from [benchmarks.jsonl](benchmarks.jsonl), which has one line per measure with
peers, limit, machine, versions, date and command. A row that has targets shows the measures with one. Costs are CPU
seconds of the whole process tree, medians of at least five rounds interleaved with the peers', because wall time on a
shared machine says little. No number is typed in by hand, and a row that falls short says so.
"""
_TARGET = re.compile(r"(<=|>=) (-?[0-9.]+)(x?)(?: |$)")


class Disagreement(Exception):
    """Contestants of one row gave different answers, so their costs cannot be compared."""


@dataclass(frozen=True)
class Measure:
    """One number of ours and the numbers it is compared with.

    Attributes:
        measure: the measured quantity, with its unit.
        ours: the number, or None if there is none.
        peers: the same number of each peer, from the same run.
        limit: the best possible value, in the same unit; None if there is none.
        target: `<= 60 ms` bounds `ours`; `<= 1.2x limit` bounds the ratio to the limit; None if only shown.
    """

    measure: str
    ours: float | None
    _: KW_ONLY
    peers: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if self.target is not None and not _TARGET.match(self.target):
            raise ValueError(f"target is {self.target!r}; expected `<= 60 ms`, `>= 0.9` or `<= 1.2x limit`.")

    @property
    def ratio_to_limit(self) -> float | None:
        """`ours` over `limit`, or None where there is no limit or it is 0."""
        return None if not self.limit or self.ours is None else self.ours / self.limit

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        result = _TARGET.match(self.target or "")
        if result is None:
            return None
        value = self.ratio_to_limit if result[3] else self.ours
        if value is None:
            return False
        return value <= float(result[2]) if result[1] == "<=" else value >= float(result[2])

    def line(self, row: str) -> dict[str, Any]:
        """Return the measure with exactly the keys `KEYS`, numbers rounded to five digits."""
        values = {name: getattr(self, name) for name in KEYS[1:]}
        values["peers"] = {name: _rounded(value) for name, value in self.peers.items()}
        for name in ("ours", "limit", "ratio_to_limit"):
            values[name] = _rounded(values[name])
        return {"row": row, **values}


def main(command: str, folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the rows of a folder; return 1 if one fails, or with --strict misses a target.

    Args:
        command: `bench` or `chaos`: the make target that repeats the measurement.
        folder: folder of the rows' modules.
        arguments: arguments of the command line; by default the process's own.
    """
    parser = argparse.ArgumentParser(prog=f"make {command}")
    parser.add_argument("rows", nargs="?", default="", help="names separated by commas; all without it")
    parser.add_argument("--strict", action="store_true", help="fail when a row falls short")
    parser.add_argument("--page", action="store_true", help="measure nothing; write docs/benchmarks.md again")
    options = parser.parse_args(arguments)
    if options.page:
        _replace(ROOT / "docs" / "benchmarks.md", page(stored()))
        return 0
    existing = rows_of(folder)
    if not existing:
        print(f"{command}: there are no rows yet.")
        return 0
    expected = [name.strip() for name in options.rows.split(",") if name.strip()] or list(existing)
    if unknown := [name for name in expected if name not in existing]:
        parser.error(f"there is no row {', '.join(unknown)}; known are {', '.join(existing)}.")
    short: list[str] = []
    for name in expected:
        path = existing[name]
        spec = importlib.util.spec_from_file_location(f"row_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        lines = [measure.line(name) for measure in module.run()]
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        short += [f"{name}: {line['measure']}" for line in lines if line["is_met"] is False]
        write(f"make {command} ROWS={name}", lines)
        print("\n".join([*section(name, lines), "", *getattr(module, "shown", ())]), file=sys.stderr)
    for item in short:
        print(f"falls short: {item}", file=sys.stderr)
    return 1 if short and options.strict else 0


def rows_of(folder: Path) -> dict[str, Path]:
    """Return the rows of a folder by name, in order: `p11.py` is `P11`, `p6a.py` is `P6a`."""
    files = [path for path in folder.glob("*.py") if re.fullmatch(r"[dpqr][0-9]+[a-z]?", path.stem)]
    files.sort(key=lambda path: (path.stem[0], int(re.sub(r"\D", "", path.stem)), path.stem))
    return {path.stem[0].upper() + path.stem[1:]: path for path in files}


def write(command: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace the stored lines of a row, and render docs/benchmarks.md.

    Args:
        command: repeats the measurement.
        lines: what `Measure.line` returns, all of one row.
    """
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": command,
        "machine": machine(),
        "versions": f"Python {platform.python_version()}, {versions}",
    }
    kept = stored() | {lines[0]["row"]: [{**line, **facts} for line in lines]}
    ordered = [line for rows in AREAS.values() for row in rows for line in kept.get(row, ())]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ordered)
    _replace(ROOT / "docs" / "benchmarks.jsonl", text)
    _replace(ROOT / "docs" / "benchmarks.md", page(kept))


def stored() -> dict[str, list[dict[str, Any]]]:
    """Return the lines of docs/benchmarks.jsonl by row."""
    path, rows = ROOT / "docs" / "benchmarks.jsonl", dict[str, list[dict[str, Any]]]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        values = json.loads(line)
        rows.setdefault(values["row"], []).append(values)
    return rows


def page(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Render docs/benchmarks.md from the stored lines of each row."""
    output = [HEAD.rstrip()]
    for area, names in AREAS.items():
        if measured := [name for name in names if name in rows]:
            output += ["", f"## {area}"]
        for name in measured:
            facts = rows[name][0]
            output += ["", *section(name, rows[name])]
            output += ["", f"`{facts['command']}`, {facts['date']}, {facts['versions']}; {facts['machine']}."]
    return "\n".join(output) + "\n"


def section(row: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a row's heading, what its module says of it, and its table, as lines of Markdown."""
    place = ON_A_CLUSTER.get(row, f"*/{row.lower()}")
    (module,) = (path for top in ("proof", "tests") for path in (ROOT / top).glob(f"{place}.py"))
    described = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or row
    shown = [line for line in lines if line["target"]] or lines
    head = ["| measure | ours | peers | limit | target | |", "|---|---|---|---|---|---|"]
    return [f"### {row}", described, "", *head, *map(_table_row, shown)]


def _table_row(line: Mapping[str, Any]) -> str:
    peers = ", ".join(f"{name} {value:.15g}" for name, value in line["peers"].items()) or "—"
    verdict = {True: "met", False: "**falls short**", None: ""}[line["is_met"]]
    target = _TARGET.match(line["target"] or "")
    value = line["ratio_to_limit"] if target and target[3] else line["ours"]
    if line["is_met"] is False and target and value is not None:
        verdict = f"**falls short by {abs(value - float(target[2])):.3g}{target[3]}**"
    ours = f"{_cell(line['ours'])} ({_cell(value)}x)" if target and target[3] else _cell(line["ours"])
    cells = [line["measure"], ours, peers, _cell(line["limit"]), line["target"] or "—", verdict]
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Return processor, cores, memory and system of this machine, without its name."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return f"{model[1] if model else platform.machine()}, {cores} cores, {memory:.0f} GB, {platform.system()}"


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    waiting = path.with_suffix(".waiting")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(path)


def _cell(value: float | None) -> str:
    return "—" if value is None else f"{value:.15g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
