"""A step that ends as its extras specify: a double for launcher tests, run as `python -m tests.doubles.step`.

Its extra `folder` is where it and its test leave marks: a folder, or a URL of S3 for a step in a pod.
"""

import importlib
import os
import signal
import sys
import time

from platform_assets.training.steps.instructions import open_context
from tests.doubles.marks import Marks, marks_in


def main() -> None:
    with open_context() as pipes:
        marks = marks_in(pipes.extras["folder"])
        count = marks.begin()
        pipes.log.info(f"epoch {count} of the double")
        sys.stdout.write("a line on stdout\n")
        sys.stdout.flush()
        act(pipes.extras["ends"][min(count, len(pipes.extras["ends"])) - 1], marks)
        pipes.report_custom_message({"kind": "note", "value": 0})
        pipes.report_custom_message({"kind": "result", "value": count, "root": os.environ["DRIFTLINE_ROOT"]})


def act(end: str, marks: Marks) -> None:
    if end.startswith("import "):
        importlib.import_module(end.removeprefix("import "))
    if end == "code":
        raise ValueError("the double was told to fail")
    if end == "quiet":
        raise SystemExit(0)
    if end in ("killed", "preempted"):
        os.kill(os.getpid(), signal.SIGKILL if end == "killed" else signal.SIGTERM)
        time.sleep(60)
    if end == "memory":
        pieces = [b"x" * 10**8 for _ in range(100)]
        sys.stdout.write(f"{len(pieces)} pieces of memory were to be had\n")
    if end in ("hold", "stay"):
        signal.signal(signal.SIGTERM, lambda *_: leave(marks))
        marks.touch("ready")
        patience_s = 30 if end == "hold" else 600
        for _ in range(50 * patience_s):
            if marks.exists("go"):
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
        signal.signal(signal.SIGTERM, lambda *_: leave(marks))
        marks.touch("ready")
        time.sleep(120)


def leave(marks: Marks) -> None:
    marks.touch("saved")
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
