"""Be one of the ranks of a step on several nodes, and do what the step's input says: a module of `launch.rank`.

The input `acts` has one line per try: parts separated by `|`, each for the ranks before its colon (`*` for those that
no other part names), of words separated by semicolons. Besides those of `acting_step`:

    steps COUNT SECONDS   that many steps of a training: wait, add up with the others, stop if one was asked to
    lease                 rank 0 holds the work's lease from here on, and its record of the attempt shows each step
    raise TEXT            fail by an error
    signal NUMBER         send this process a signal
    memory                take memory until the kernel kills
    shm                   fill /dev/shm by tensors that are shared
    idle                  do nothing any more, and answer no signal
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from platform_assets.training.process_group import ProcessGroup
    from platform_assets.training.steps.attempt import Attempt


TTL_S = 30.0
"""How long the lease outlives its holder's last sign of life."""


def main(group: ProcessGroup) -> None:
    import boto3

    from platform_assets.training.steps import instructions, process
    from tests.doubles.acting_step import _Folder, act, say

    stop, lease = process.StopRequest().listen(), None
    with ExitStack() as held:
        context = held.enter_context(instructions.open_context(is_silent=group.rank > 0))
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
                _steps(group, stop, lease, int(arguments[0]), float(arguments[1]))
            elif verb == "lease":
                lease = held.enter_context(_attempt(context)) if group.rank == 0 else None
            elif verb in OWN:
                OWN[verb](*arguments)
            elif verb == "report" and group.rank > 0:
                pass
            elif verb == "report":
                context.report_custom_message({"kind": "result", "value": 1})
            else:
                act(verb, arguments, context, store)


def _tries(store: Any) -> int:
    return int(store.client.list_objects_v2(Bucket=store.bucket, Prefix=f"{store.folder}/tries/")["KeyCount"])


def _own(line: str, rank: int) -> str:
    parts = dict(part.split(":", 1) for part in line.split("|"))
    named = {number: words for ranks, words in parts.items() for number in ranks.split(",")}
    return named.get(str(rank), parts.get("*", "report")).strip()


def _attempt(context: Any) -> Attempt:
    """Return the attempt of rank 0, as a context that holds the lease."""
    from platform_assets.base.settings import Settings
    from platform_assets.store.ledgers import Ledgers
    from platform_assets.store.records.attempts import Launch
    from platform_assets.training.steps.attempt import Attempt

    launch, settings = Launch.read(context.extras["attempt"]), Settings.from_environment()
    return Attempt(
        settings,
        Ledgers(settings.root, str(launch.product)),
        fingerprint=str(launch.fingerprint),
        cutoff=str(launch.cutoff),
        profile_name="cpu_small",
        ttl_s=TTL_S,
        launch=launch,
    )


def _steps(group: ProcessGroup, stop: Any, lease: Attempt | None, count: int, seconds: float) -> None:
    import torch

    if lease is not None and not lease.fence:
        lease.acquire(wait=lambda: True)
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
            if lease is not None:
                lease.note(steps_done=number)
                lease.beat()


def _raise(*words: str) -> None:
    raise RuntimeError(" ".join(words))


def _memory() -> None:
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 20)) * 16)


def _shm() -> None:
    import torch

    shared = []
    while True:
        shared.append(torch.ones(1 << 20).share_memory_())


def _idle() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


OWN: dict[str, Callable[..., object]] = {
    "raise": _raise,
    "signal": lambda number: os.kill(os.getpid(), int(number)),
    "memory": _memory,
    "shm": _shm,
    "idle": _idle,
}
