"""A server in a process of its own that can be killed, and started again on its files."""

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ENDED_S = 60.0


@dataclass(eq=False)
class Program:
    """The process of a server.

    Attributes:
        folder: in which it runs and keeps its files; its output goes to `server.log` there.
        options: more of `subprocess.Popen`.
        process: the one that was started last.
    """

    command: Sequence[str]
    folder: Path
    options: Mapping[str, Any]
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start it; whether it answers is the caller's to find out."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log, **self.options)

    def kill(self) -> None:
        """Kill the process and its children at once, as a crash of the machine would."""
        # One that has ended and was waited for has no number any more, or another process has it.
        if self.process.poll() is not None:
            return
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(ENDED_S)
        psutil.wait_procs(processes, ENDED_S)

    def log(self) -> str:
        """Return the end of its output."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]
