"""Run a script that builds images: show how far it is, and end everything that it started when it is interrupted.

Usage: supervise.py COMMAND ... The command writes what takes long, such as podman's output, to the file descriptor in
BUILD_LOG; a line `== NAME` says what is built now. Runs on any Python 3.11 without installed packages.

podman that gets SIGTERM or SIGINT leaves the processes of its containers at work, so these are ended first: then podman
fails, and removes its containers itself. Orphans come to this process, which is their subreaper.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

EVERY_S = 15.0
KEPT = 30
"""Last lines of the log that are shown after a failure."""
WIDTH = 100
GRACE_S = 10.0
STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+/\d+): (.*)")
NOT_ALLOWED = re.compile(r"rlimit|cgroup", re.IGNORECASE)
REMEDY = (
    "podman's runtime may not raise limits, or does not know this machine's cgroups. Limit what containers get, as "
    'deploy/images/containers.conf does: CONTAINERS_CONF="$PWD/deploy/images/containers.conf" make images'
)
PR_SET_CHILD_SUBREAPER = 36


class Progress:
    """What is built now, since when, and the last lines of the log."""

    def __init__(self) -> None:
        self.began_s = self._since_s = time.monotonic()
        self.last: deque[str] = deque(maxlen=KEPT)
        self._image, self._step = "images", ""

    def read(self, line: str) -> str | None:
        """Take a line of the log; return what to print about it."""
        line = line.rstrip()
        if line.startswith("== "):
            self._image, self._step = line[3:], ""
            self._since_s = time.monotonic()
            return self._line("begins")
        self.last.append(line)
        if not (match := STEP.match(line)):
            return None
        self._step, self._since_s = f"step {match[1]}", time.monotonic()
        return self._line(match[2])

    def waiting(self) -> str:
        """Return what to print while nothing new happens."""
        text = next((line.strip() for line in reversed(self.last) if line.strip()), "")
        return self._line(f"{text} ... for {time.monotonic() - self._since_s:.0f} s")

    def _line(self, text: str) -> str:
        place = f"{self._image} {self._step}".strip()
        return (
            f"{time.monotonic() - self.began_s:5.0f} s  {place}: {text if len(text) <= WIDTH else text[:WIDTH] + '...'}"
        )


def main(command: list[str]) -> int:
    """Run the command, and return its exit code; 128 and the signal's number after an interruption."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    progress, received = Progress(), list[int]()
    reading, writing = os.pipe()
    heard = [signal.SIGINT, signal.SIGTERM]
    heard += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []  # ignored under nohup
    for number in heard:
        signal.signal(number, lambda number, _: received.append(number))
    started_by = _ancestors()
    # In a session of its own: Ctrl-C reaches this process alone, which ends the others in the right order.
    variables = {**os.environ, "BUILD_LOG": str(writing)}
    script = subprocess.Popen(command, env=variables, pass_fds=[writing], start_new_session=True)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as log:
        reader = threading.Thread(target=_show, args=(log, progress), daemon=True)
        reader.start()
        shown_s = time.monotonic()
        while script.poll() is None and not received:
            time.sleep(0.1)
            if heard[-1] == signal.SIGHUP and _ancestors() != started_by:
                received.append(signal.SIGHUP)
            if time.monotonic() - shown_s >= EVERY_S:
                shown_s = time.monotonic()
                _print(progress.waiting())
        if received:
            _print(f"ends what was started, after {signal.Signals(received[0]).name}")
            end(script.pid)
            return 128 + received[0]
        reader.join(GRACE_S)
    if script.returncode:
        _print("\n".join(["failed; the log ends:", *progress.last]))
        if any(NOT_ALLOWED.search(line) for line in progress.last):
            _print(REMEDY)
    return script.returncode


def end(script: int) -> None:
    """End all descendants of this process.

    Args:
        script: the process that began it all, which gets SIGTERM and removes its files.
    """
    _kill([script], signal.SIGTERM)
    here, until_s = _namespace(os.getpid()), time.monotonic() + 2 * GRACE_S
    patient_until_s = time.monotonic() + GRACE_S / 2  # between two containers: it begins the next one
    while (processes := list(descendants(os.getpid()))) and time.monotonic() < until_s:
        if contained := [pid for pid in processes if _namespace(pid) not in (here, None)]:
            _kill(contained, signal.SIGKILL)
            patient_until_s = time.monotonic() + GRACE_S / 2
        elif time.monotonic() > patient_until_s:
            _kill(processes, signal.SIGTERM)
        time.sleep(0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    _kill(processes, signal.SIGKILL)


def descendants(ancestor: int) -> Iterator[int]:
    """Yield the processes below one, children before grandchildren; those that have ended do not count."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = place.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(place.parent.name))
    below = deque([ancestor])
    while below:
        for child in children.get(below.popleft(), ()):
            yield child
            below.append(child)


def _ancestors() -> list[int]:
    """Return this process's parent, and make's: a script that is killed while make runs tells neither of them."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        name, fields = Path(f"/proc/{parent}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")[::2]
        return [parent, int(fields.split()[1])] if name == "make" else [parent]
    return [parent]


def _namespace(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None


def _kill(processes: Iterable[int], number: int) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _show(log: Iterable[str], progress: Progress) -> None:
    for line in log:
        if text := progress.read(line):
            _print(text)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
