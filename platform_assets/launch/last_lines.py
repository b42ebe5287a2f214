"""Forward what the processes of one node write, and keep their last lines next to the attempt's Pipes messages."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from collections import deque
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import obstore
from dagster_pipes import PipesEnvVarParamsLoader
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest

from platform_assets.store.artifacts import canonical
from platform_assets.store.objects import open_store

MOST = 50
"""Lines kept per process."""


class NodeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the processes of a node ended: `node-0.json` of the first node, in the folder of the attempt's messages.

    Attributes:
        exit_code: of the node's agent.
        said: sentences of the agent.
        last_lines: of each process, by its number among all.
    """

    version: int = 1
    node: int
    exit_code: int
    said: list[str]
    last_lines: dict[int, list[str]]


class ForwardedLogs(DefaultLogsSpecs):
    """Has each process write into a pipe; its lines go to this process's output, and the last ones are kept.

    Attributes:
        last_lines: by the number of the process on this node.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(log_dir=folder)
        self.last_lines = dict[int, deque[str]]()
        self._over, self._pipes = threading.Event(), selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._forward, name="forward lines", daemon=True)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Make the pipes; torch opens their other ends."""
        logs = super().reify(envs)
        paths = {here: str(Path(error).with_name("lines")) for here, error in logs.error_files.items()}
        for here, path in paths.items():
            os.mkfifo(path)
            # Open for writing too: otherwise it would be at its end until a process opens it.
            self._pipes.register(os.open(path, os.O_RDWR | os.O_NONBLOCK), selectors.EVENT_READ, here)
            self.last_lines[here] = deque(maxlen=MOST)
        self._thread.start()
        return replace(logs, stdouts=paths, stderrs=dict(paths))

    def close(self) -> None:
        """Forward what is left of the processes, which have ended."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _forward(self) -> None:
        rests = dict.fromkeys(self.last_lines, b"")
        while (ready := self._pipes.select(0.1)) or not self._over.is_set():
            for key, _ in ready:
                *lines, rests[key.data] = (rests[key.data] + os.read(key.fd, 2**16)).split(b"\n")
                self._keep(key.data, lines)
        for here, rest in rests.items():
            self._keep(here, [rest] if rest else [])

    def _keep(self, here: int, lines: list[bytes]) -> None:
        sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines))
        sys.stdout.buffer.flush()
        self.last_lines[here].extend(line.decode(errors="replace") for line in lines)


def store(end: NodeEnd, *, patience_s: float) -> None:
    """Write how a node ended to where the attempt's messages are; do nothing in a process without Dagster Pipes.

    Args:
        patience_s: how long to try at most; this process may be killed afterwards.
    """
    params = PipesEnvVarParamsLoader()
    if not params.is_dagster_pipes_process():
        return
    messages = params.load_messages_params()
    path = messages.get("path")
    root = str(Path(path).parent) if path else f"s3://{messages['bucket']}/{messages['key_prefix']}"
    problems = [f"no answer within {patience_s:g} s"]

    def put() -> None:
        try:
            target = open_store(root, timedelta(seconds=patience_s))
            obstore.put(target, f"node-{end.node}.json", canonical(msgspec.to_builtins(end, str_keys=True)))
            problems.clear()
        except (obstore.exceptions.BaseError, OSError) as problem:
            problems[:] = str(problem).splitlines()[:1]

    thread = threading.Thread(target=put, name="store last lines", daemon=True)
    thread.start()
    thread.join(patience_s)
    if problems:
        sys.stderr.write(f"The last lines of node {end.node} were not stored in {root}: {problems[0]}.\n")
