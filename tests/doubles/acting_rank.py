"""Be one of the ranks of a step on several nodes, and do what the step's input says: a module of `launch.rank`.

The input `acts` has one line per try: parts separated by `|`, each for the ranks before its colon (`*` for those that
no other part names), of words separated by semicolons. Besides those of `acting_step`:

    steps COUNT SECONDS   that many steps of a training: wait, add up with the others, stop if one was asked to
    raise TEXT            fail by an error
    signal NUMBER         send this process a signal
    memory                take memory until the kernel kills
    shm                   fill /dev/shm
    idle                  do nothing any more, and answer no signal
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_assets.training.process_group import ProcessGroup


def main(group: ProcessGroup) -> None:
    import boto3

    from platform_assets.training.steps import instructions, process
    from tests.doubles.acting_step import _Folder, act, say

    stop = process.StopRequest().listen()
    with instructions.open_context(is_silent=group.rank > 0) as context:
        bucket, _, folder = context.extras["folder"].removeprefix("s3://").partition("/")
        store = _Folder(boto3.client("s3"), bucket, folder)
        attempt = context.extras["attempt"]["id"]
        store.put(f"tries/{attempt}")
        tries = _tries(store)
        acts = context.extras["acts"]
        for words in _own(acts[min(tries, len(acts)) - 1], group.rank).split(";"):
            verb, *arguments = words.split()
            say(f"rank {group.rank}: {words.strip()}")
            if verb == "steps":
                _steps(group, stop, int(arguments[0]), float(arguments[1]))
            elif verb in OWN:
                OWN[verb](*arguments)
            elif verb == "report" and group.rank > 0:
                pass
            elif verb == "report":
                context.report_custom_message({"kind": "result", "value": 1})
            else:
                act(verb, arguments, context, store)


def _tries(store: Any) -> int:
    found = store.client.list_objects_v2(Bucket=store.bucket, Prefix=f"{store.folder}/tries/")
    return int(found["KeyCount"])


def _own(line: str, rank: int) -> str:
    """Return the words of one rank."""
    parts = dict(part.split(":", 1) for part in line.split("|"))
    named = {number: words for ranks, words in parts.items() for number in ranks.split(",")}
    return named.get(str(rank), parts.get("*", "report")).strip()


def _steps(group: ProcessGroup, stop: Any, count: int, seconds: float) -> None:
    import torch

    with group.watchdog.watching(0):
        for number in range(1, count + 1):
            time.sleep(seconds)
            group.add(torch.ones(1))
            stop.is_set, _ = group.is_any(stop.is_set)
            if stop.is_set:
                sys.stdout.write(f"rank {group.rank}: saved\n")
                sys.stdout.flush()
            stop.check()
            group.watchdog.step_ended(number)


def _raise(*words: str) -> None:
    raise RuntimeError(" ".join(words))


def _memory() -> None:
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 20)) * 16)


def _shm() -> None:
    with Path("/dev/shm/full").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))


def _idle() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


OWN = {
    "raise": _raise,
    "signal": lambda number: os.kill(os.getpid(), int(number)),
    "memory": _memory,
    "shm": _shm,
    "idle": _idle,
}
