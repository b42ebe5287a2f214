"""Child process for the tests of races and kills: `python child.py TASK`, with TASK a JSON object.

It prints `ready`, waits for a line, then does `task["do"]`. With `kill` it sends itself SIGKILL before or after the
n-th call that writes.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers


def kill_at(module: Any, name: str, when: str, number: int) -> None:
    real = getattr(module, name)
    calls = 0

    def guarded(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, guarded)


def replace(task: dict[str, Any]) -> None:
    import polars as pl

    from platform_assets.store.tables import TableStore

    store = TableStore(task["root"], "tiny")
    for turn in range(task.get("turns", 1)):
        frames = {
            key: pl.DataFrame({"writer": [task["writer"]] * 50, "turn": [turn] * 50, "place": list(range(50))})
            for key in task["keys"]
        }
        inputs = {key: {"writer": f"{task['writer']}-{turn}"} for key in frames}
        store.replace("features", frames, inputs=inputs, code="code")


def append(task: dict[str, Any]) -> None:
    ledgers = Ledgers(task["root"], "tiny")
    for turn in range(task["turns"]):
        print(ledgers.append("releases", {"writer": task["writer"], "turn": turn}), flush=True)


def put(task: dict[str, Any]) -> None:
    store = ArtifactStore(task["root"])
    for turn in range(task["turns"]):
        print(store.put(turn.to_bytes(4, "big") * task["size"]), flush=True)


DOES: dict[str, Callable[[dict[str, Any]], None]] = {"replace": replace, "append": append, "put": put}
CALLS = {"write_deltalake": ("deltalake", "write_deltalake"), "put": ("platform_assets.store.objects", "create")}
"""Where a process may be killed: module and function, by the name that a test passes."""


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    if "kill" in request:
        module, name = CALLS[request["kill"]["call"]]
        kill_at(importlib.import_module(module), name, request["kill"]["when"], request["kill"]["number"])
    print("ready", flush=True)
    sys.stdin.readline()
    DOES[request["do"]](request)
