"""Show experiments on a terminal: progress while they run, and tables of their results."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def progress(console: Console) -> Progress:
    """Return bars with a name, a count and the time that is left; they go when it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return a table without rows, with columns of texts to the left and of numbers to the right."""
    result = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title=title)
    for name in (*texts, *numbers):
        result.add_column(name, no_wrap=True, justify="right" if name in numbers else "left")
    return result
