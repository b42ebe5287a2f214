"""The demo's one table: a row per key with its numbers and what happened on it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from platform_assets.demo.results import Cell, Results
from platform_assets.status.words import NOUNS

HEADINGS = {
    "requests": "asked",
    "log_loss": "log loss",
    "drift_percentile": "drift",
    "answers_percentile": "answers drift",
}
"""Columns of the results with a shorter name here; drift is a percentile of the training windows."""
LEFT = ("key", "verdict", "decision")
"""Columns of text."""
WORKS = {"fault": "failed", "null": "left out by the platform", "drop": "key dropped"}


def show_keys(console: Console, results: Results, grain: str) -> None:
    """Print one row per key: answers, quality, drift, decision, releases and faults.

    Args:
        results: of the demo.
        grain: the kind of the product's grain, which names the first column.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for name in results.columns:
        heading = NOUNS[grain] if name == "key" else HEADINGS.get(name, name.replace("_", " "))
        table.add_column(heading, justify="left" if name in LEFT else "right", no_wrap=True)
    table.add_column("what happened", justify="left")
    for row in results.keys:
        table.add_row(*(_text(row[name]) for name in results.columns), _events(results, str(row["key"])))
    console.print(table)


def show_injected(console: Console, results: Results) -> None:
    """Print which fault the upstream delivered, and on which keys the platform named its source."""
    injected = results.injected
    if injected is None:
        console.print("No fault was injected: too few keys are replayed, or the recording declares none.\n")
        return
    console.print(
        f"Injected without telling the platform: [bold]{injected.kind}[/] ({injected.description}), "
        f"{injected.source} of {', '.join(injected.keys)}.",
        highlight=False,
    )
    for key, check in results.caught().items():
        if check is None:
            console.print(f"  {key}: [bold red]not named[/]; expected {injected.check}", highlight=False)
        else:
            console.print(f"  {key}: named by {check} of {injected.source}", highlight=False)
    console.print()


def _events(results: Results, key: str) -> str:
    """Return the releases from a key on and the records of its faults, oldest first."""
    releases = [f"release {one['number']} goes live" for one in results.releases if one["cutoff"] == key]
    faults = []
    for fault in results.faults:
        if fault["key"] == key:
            check = f" {fault['check'].replace('_', ' ')}" if fault["check"] else ""
            source = f"{fault['source']}{check} " if fault["source"] else ""
            faults.append(f"{source}{WORKS.get(fault['kind'], fault['kind'])}")
    return "; ".join([*releases, *faults])


def _text(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value.replace("_", " ")
