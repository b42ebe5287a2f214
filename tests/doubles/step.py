"""Be a step that ends as its extras say: a double for launcher tests, run as `python -m tests.doubles.step`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from dagster_pipes import open_dagster_pipes


def main() -> None:
    with open_dagster_pipes() as pipes:
        folder = Path(pipes.extras["folder"])
        starts = folder / "starts"
        with starts.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        count = len(starts.read_text(encoding="utf-8").splitlines())
        pipes.log.info(f"epoch {count} of the double")
        sys.stdout.write("a line on stdout\n")
        sys.stdout.flush()
        act(pipes.extras["ends"][min(count, len(pipes.extras["ends"])) - 1], folder)
        pipes.report_custom_message({"kind": "note", "value": 0})
        pipes.report_custom_message({"kind": "result", "value": count, "root": os.environ["DRIFTLINE_ROOT"]})


def act(end: str, folder: Path) -> None:
    if end == "code":
        raise ValueError("the double was told to fail")
    if end == "quiet":
        raise SystemExit(0)
    if end in ("killed", "preempted"):
        os.kill(os.getpid(), signal.SIGKILL if end == "killed" else signal.SIGTERM)
        time.sleep(60)
    if end == "memory":
        held = [b"x" * 10**8 for _ in range(100)]
        sys.stdout.write(f"{len(held)} pieces of memory were to be had\n")
    if end in ("hold", "stay"):
        signal.signal(signal.SIGTERM, lambda *_: leave(folder))
        (folder / "ready").touch()
        patience_s = 30 if end == "hold" else 600
        for _ in range(50 * patience_s):
            if (folder / "go").exists():
                return
            time.sleep(0.02)
        raise SystemExit(f"nobody let the double go within {patience_s} seconds")
    if end == "loud":
        for number in range(3000):
            sys.stdout.write(f"line {number}\n")
        sys.stdout.flush()
    if end == "flood":
        for piece in (20, *[1] * 80):
            sys.stdout.write("x" * (piece * 10**6) + "\n")
        sys.stdout.flush()
    if end == "wait":
        signal.signal(signal.SIGTERM, lambda *_: leave(folder))
        (folder / "ready").touch()
        time.sleep(120)


def leave(folder: Path) -> None:
    (folder / "saved").touch()
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
