"""Run rows, print one JSON line per measure, write the row's page in docs/rows and the verdicts in docs/benchmarks.md.

A row is a module next to the `__main__.py` that calls `main`: `p11.py` is row P11. It has a docstring, whose first
line is its title and whose rest says on the page what is compared and how, and `run() -> list[Measure]`. A row whose
contestants disagree raises `Disagreement`. A row that explains its numbers in sentences also has `shown: list[str]`,
filled by `run`; they are printed below the table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
AREAS = {
    "Serving": ("P1", "P2", "P3", "P12", "P13", "P17"),
    "Load and overload": ("R7", "R8"),
    "Hostile input, tampered stores": ("R3", "R4"),
    "Data": ("P6a", "P8", "P9", "P14", "P15", "P16", "R11", "D1"),
    "Cost": ("P11", "P18", "P19", "P20", "P21", "Q4"),
    "Failure": ("R1", "R5", "R6", "R9", "R10"),
    "Quality": ("Q1", "Q2", "Q5"),
}
KEYS = ("row", "measure", "ours", "peers", "limit", "ratio_to_limit", "target", "is_met")
VERSIONS = ("dagster", "polars", "torch", "onnxruntime", "bentoml")
_TARGET = re.compile(r"(<=|>=) (-?[0-9.]+)(x?)(?: |$)")


class Disagreement(Exception):
    """Contestants of one row gave different answers, so their costs cannot be compared."""


@dataclass(frozen=True, kw_only=True)
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
    options = parser.parse_args(arguments)
    existing = rows_of(folder)
    if not existing:
        print(f"{command}: there are no rows yet.")
        return 0
    expected = [name.strip() for name in options.rows.split(",") if name.strip()] or list(existing)
    if unknown := [name for name in expected if name not in existing]:
        parser.error(f"there is no row {', '.join(unknown)}; known are {', '.join(existing)}.")
    short: list[str] = []
    for name in expected:
        module = _load(existing[name])
        lines = [measure.line(name) for measure in module.run()]
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        short += [f"{name}: {line['measure']}" for line in lines if line["is_met"] is False]
        write(command, name, module.__doc__ or name, lines, getattr(module, "shown", ()))
    for item in short:
        print(f"falls short: {item}", file=sys.stderr)
    return 1 if short and options.strict else 0


def rows_of(folder: Path) -> dict[str, Path]:
    """Return the rows of a folder by name, in order: `p11.py` is `P11`, `p6a.py` is `P6a`."""
    files = [path for path in folder.glob("*.py") if re.fullmatch(r"[dpqr][0-9]+[a-z]?", path.stem)]
    files.sort(key=lambda path: (path.stem[0], int(re.sub(r"\D", "", path.stem)), path.stem))
    return {path.stem[0].upper() + path.stem[1:]: path for path in files}


def write(command: str, row: str, description: str, lines: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> None:
    """Write the row's page in docs/rows, then the verdicts of all pages; `shown` has the sentences below its table."""
    page = DOCUMENT.with_name("rows") / f"{row.lower()}.md"
    page.parent.mkdir(exist_ok=True)
    _replace(page, _page(command, row, description, lines, shown))
    _replace(DOCUMENT, verdicts())


def verdicts() -> str:
    """Render docs/benchmarks.md: what stands before its first area, then a table per area from the rows' pages."""
    introduction, _, _ = DOCUMENT.read_text(encoding="utf-8").partition("\n## ")
    output = [introduction.rstrip()]
    for area, rows in AREAS.items():
        pages = [DOCUMENT.with_name("rows") / f"{row.lower()}.md" for row in rows]
        if lines := [line for page in pages if page.exists() for line in _verdicts_of_page(page)]:
            head = ["| row | measure | target | figure | | measured |", "|---|---|---|---|---|---|"]
            output += ["", f"## {area}", "", *head, *lines]
    return "\n".join(output) + "\n"


def machine() -> str:
    """Return processor, cores, memory and system of this machine, without its name."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return f"{model[1] if model else platform.machine()}, {cores} cores, {memory:.0f} GB, {platform.system()}"


def _page(
    command: str, row: str, description: str, lines: Sequence[Mapping[str, Any]], sentences: Sequence[str]
) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    title, _, method = description.strip().partition("\n")
    output = [
        *(f"# {row}: {title.rstrip('.')}", ""),
        *((method.strip(), "") if method.strip() else ()),
        "| measure | ours | peers | limit | ratio | target | |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        peers = ", ".join(f"{name} {value:.15g}" for name, value in line["peers"].items()) or "—"
        verdict = {True: "met", False: "**falls short**", None: ""}[line["is_met"]]
        cells = [line["measure"], line["ours"], peers, line["limit"], line["ratio_to_limit"], line["target"], verdict]
        output.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    output += ["", *(f"- {sentence}" for sentence in sentences)] if sentences else []
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    output += ["", f"`make {command} ROWS={row}`, {date}, Python {platform.python_version()}, {versions}; {machine()}."]
    return "\n".join(output) + "\n"


def _verdicts_of_page(page: Path) -> list[str]:
    """Return a line per measure with a target; of cases of one measure and target (`case: measure`), the worst."""
    text = page.read_text(encoding="utf-8")
    row, title = text.splitlines()[0].removeprefix("# ").split(": ", 1)
    (date,) = re.findall(r"^`make .*?`, ([0-9-]{10}), Python ", text, re.MULTILINE)
    cases: dict[tuple[str, str], list[tuple[float, str, list[str]]]] = {}
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if line.startswith("| ") and len(cells) >= 6 and (target := _TARGET.match(cells[5])):
            figure = f"{cells[4]}x" if target[3] else cells[1]
            value = float(figure.rstrip("x").replace("—", "nan"))
            over = value - float(target[2]) if target[1] == "<=" else float(target[2]) - value
            cases.setdefault((cells[0].partition(": ")[2] or cells[0], cells[5]), []).append((over, figure, cells))
    link = f"[{row}](rows/{page.name})"
    output = []
    for (measure, target), items in cases.items():
        over, figure, cells = max(items, key=lambda item: math.inf if math.isnan(item[0]) else item[0])
        name = f"{measure} (worst of {len(items)})" if len(items) > 1 else cells[0]
        by = "" if math.isnan(over) else f" by {over:.3g}{'x' if figure.endswith('x') else ''}"
        verdict = "met" if cells[-1] == "met" else f"**falls short{by}**"
        output.append(f"| {link} | {name} | {target} | {figure} | {verdict} | {date} |")
    return output or [f"| {link} | {title} | none | | | {date} |"]


def _replace(path: Path, text: str) -> None:
    waiting = path.with_suffix(".waiting")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(path)


def _cell(value: float | str | None) -> str:
    return "—" if value is None else f"{value:.15g}" if isinstance(value, float) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"row_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
