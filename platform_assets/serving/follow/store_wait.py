"""Wait for a store that is away, for a bounded time, and say so: in the log, and in `/readyz` on the port of probes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.serving.run.probes import READINESS, Page, Probes, json_page
from platform_assets.store import objects

WAIT_S = 300.0
"""The bound: then the process ends, and whoever started it sees that. The kubelet starts a container that ends again
after 10 s, then 20 s, and up to 5 minutes after the store is back."""
PAUSE_S = 2.0
PATIENCE, REACH_S = timedelta(seconds=10), 30.0
"""For how long the client repeats a request before the wait is reported, and until a request that hangs is given up."""
Result = TypeVar("Result")


class StoreAway(Problem):
    """The store cannot be read, for a reason that may pass."""


def reach(root: str, digest: str) -> None:
    """Ask for a blob, which need not exist.

    Raises:
        StoreAway: the store cannot be read for now.
        obstore.exceptions.BaseError, OSError: it cannot be read at all; see `objects.reason`.
    """
    import obstore

    def read() -> None:
        objects.read(objects.open_store(root, PATIENCE), naming.blob_path(digest))

    try:
        Deadline(REACH_S).run("the first request", read)
    except Overdue as problem:
        raise StoreAway(f"the store at {root} cannot be read: {problem}") from problem
    except (obstore.exceptions.BaseError, OSError) as problem:
        if not objects.may_pass(root, problem):
            raise
        raise StoreAway(f"the store at {root} cannot be read: {objects.reason(root, problem)}.") from problem


def wait(
    attempt: Callable[[], Result], say: Callable[[str], object], probes: socket.socket | None, wait_s: float = WAIT_S
) -> Result:
    """Return what an attempt returns, and repeat it while it raises `StoreAway`, until `wait_s` is over.

    Args:
        attempt: must end by itself; anything else that it raises is raised at once.
        say: gets a sentence when waiting begins.
        probes: the listening socket on which `/readyz` says so meanwhile; None for none. It stays open.

    Raises:
        StoreAway: the store is still away.
    """
    until_s = time.monotonic() + wait_s
    problem = ""

    def page() -> Page:
        return json_page(503, {"is_ready": False, "problem": problem})

    with contextlib.ExitStack() as answering:
        while True:
            try:
                return attempt()
            except StoreAway as away:
                if time.monotonic() + PAUSE_S > until_s:
                    raise
                is_first = not problem
                problem = f"{away} Waiting for the store, {wait_s:g} s at most."
            if is_first:
                say(problem)
                if probes is not None:
                    server = Probes(probes.dup(), {READINESS: page})
                    server.start()
                    answering.callback(server.stop)
            time.sleep(PAUSE_S)
