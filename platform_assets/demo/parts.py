"""Show the parts of a work on a terminal: a bar for each, a line when it ends, and what a silent one waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

SILENT_S = 60.0
"""After this long without progress, a part says what it waits for."""
WIDTH = 8


class Part:
    """One part: how far it is, and what became of it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        """Show a bar whose end is not known yet."""
        self._progress, self._task = progress, task
        self.moved_s = time.monotonic()
        self.outcome = ""

    def expect(self, total: int) -> None:
        """Say how much there is to do."""
        self._progress.update(self._task, total=total)

    def advance(self, count: int) -> None:
        """Say that so much more is done."""
        self.moved_s = time.monotonic()
        self._progress.advance(self._task, count)

    def show(self, done: int, total: int) -> None:
        """Say how much is done."""
        self.moved_s = time.monotonic()
        self._progress.update(self._task, completed=done, total=total)

    def end(self, outcome: str) -> None:
        """Say what became of it, in one line."""
        self.outcome = outcome


class Parts:
    """The parts, one after the other."""

    def __init__(self, console: Console, silent_s: float = SILENT_S) -> None:
        """Show nothing yet."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._console, self._silent_s = console, silent_s
        self._progress = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Leave the lines and take the bar away."""
        self._progress.stop()

    @contextmanager
    def part(self, name: str, waits_for: str) -> Iterator[Part]:
        """Show one part until it ends.

        Args:
            waits_for: what is waited for where nothing has moved for a minute, as part of a sentence.
        """
        task = self._progress.add_task(f"{name:{WIDTH}}", total=None)
        part, started_s, ended = Part(self._progress, task), time.monotonic(), threading.Event()
        watch = threading.Thread(target=self._watch, args=(part, waits_for, ended), daemon=True)
        watch.start()
        try:
            yield part
        finally:
            ended.set()
            watch.join()
            self._progress.remove_task(task)
        self._say(f"[bold]{name:{WIDTH}}[/bold] {time.monotonic() - started_s:5.1f} s  {escape(part.outcome)}")

    def _watch(self, part: Part, waits_for: str, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self._silent_s / 4)):
            silent_s = time.monotonic() - part.moved_s
            if silent_s >= self._silent_s:
                part.moved_s = time.monotonic()
                self._say(f"         nothing has moved for {silent_s:.0f} s; waiting for {escape(waits_for)}")

    def _say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, soft_wrap=not self._console.is_terminal)
