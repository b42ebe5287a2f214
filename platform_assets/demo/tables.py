"""The demo's one table: a row per key with its numbers and what happened on it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from platform_assets.demo.results import Cell, Results
from platform_assets.status.words import measure_words
from platform_assets.wording import NOUNS

SETTLED = {"null": "left out", "drop": "key dropped"}
"""What a record after a fault did, in few words: the table must fit into 80 columns."""


def show_keys(console: Console, results: Results, grain: str) -> None:
    """Print one row per key: answers, headline, drift, decision, releases and faults. The results' CSV has all numbers.

    Args:
        grain: the kind of the product's grain, which names the first column.
    """
    headline = results.columns[results.columns.index("labelled") + 1]
    title = measure_words(headline)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (NOUNS[grain], "answered", title, "drift", "decision"):
        justify = "right" if heading in ("answered", "drift", title) else "left"
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # one of the two
    table.add_column("what happened")
    for row in results.keys:
        key = str(row["key"])
        refused = f" ({row['refused']} refused)" if row["refused"] else ""
        numbers = (_number(row[headline], 4), _number(row["drift_percentile"], 2))
        decision = str(row["decision"] or "").replace("_", " ")
        table.add_row(key, f"{row['answered'] or 0:,}{refused}", *numbers, decision, _events(results, key))
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
    for key, check in results.checks_by_key().items():
        if check is None:
            console.print(f"  {key}: [bold red]not named[/]; expected {injected.check}", highlight=False)
        else:
            console.print(f"  {key}: named by {check} of {injected.source}", highlight=False)
    console.print()


def _events(results: Results, key: str) -> str:
    """Return the releases from a key on and the records of its faults, oldest first."""
    events = [f"release {one['number']} live" for one in results.releases if one["cutoff"] == key]
    for fault in results.faults:
        if fault["key"] == key and fault["kind"] == "fault":
            events.append(f"{fault['source']}: {str(fault['check']).replace('_', ' ')}")
        elif fault["key"] == key:
            events.append(SETTLED.get(fault["kind"], fault["kind"]))
    return "; ".join(events)


def _number(value: Cell, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else ""
