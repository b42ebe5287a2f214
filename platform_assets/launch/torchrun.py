"""Run a step's module in several processes of this machine, or of several, by torchrun's agent.

`python -m platform_assets.launch.torchrun --processes 2 --grace-s 60 platform_assets.launch.train`. On several nodes
each runs this, with torchrun's variables: `PET_NNODES`, `PET_NODE_RANK`, `PET_MASTER_ADDR`, `PET_MASTER_PORT`. The
agent itself exits with 1 whatever its processes end with, so this process exits with the code of the first cause, as
a step of one process would.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from platform_assets.base.problems import Problem
from platform_assets.launch.peers import Peers, Place, find
from platform_assets.training.steps import process
from platform_assets.training.steps.process import PeerLost

KILL_S = 2.0
"""How long before this process is killed the agent kills what is left: nobody would, afterwards."""
JOIN_S = 180.0
"""How long to wait for the agents of other nodes, whose pods may wait for an image."""
LINGER_S = 5.0
"""How long to store last lines, and then to serve the store to other agents: they learn how this one ended."""
RECORD = "error.json"
"""What torch calls the record of a process's error, in a folder of the process's own."""


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Let the agent stop its processes, once: launchers repeat the signal while these save."""
    from torch.distributed.elastic.multiprocessing import SignalException

    _handle(signal.SIG_IGN)
    raise SignalException("asked to stop", sigval=signal.SIGTERM)


def exit_code(exit_codes: Sequence[int], errors: Sequence[str], *, is_asked: bool, is_shared: bool = False) -> int:
    """Return the exit code of the first cause by kind: error of its own, hang, kill, request to stop, lost peer.

    Args:
        exit_codes: of the processes that failed, negative for a signal; those that the agent ended may be missing.
        errors: what processes recorded of their end, beginning with the error's type.
        is_asked: whether this process was asked to stop.
        is_shared: whether the cause may be on another node.
    """
    kinds = {error.partition(":")[0] for error in errors}
    own = kinds - {"", process.Preempted.__name__, process.PeerLost.__name__}
    # Once one has failed the agent ends the others by SIGTERM, and by SIGKILL at last: an error comes before a kill.
    killed = [code for code in exit_codes if code < 0 and code != -signal.SIGTERM]
    if own:
        return process.EXIT_HUNG if own == {process.Hung.__name__} else 1
    if is_asked:
        return process.EXIT_PREEMPTED
    if killed:
        return 128 - max(killed)
    if process.Preempted.__name__ in kinds:
        return process.EXIT_PREEMPTED
    if is_shared and (not exit_codes or kinds == {process.PeerLost.__name__}):
        return process.EXIT_PEER_LOST
    return process.EXIT_PREEMPTED if -signal.SIGTERM in exit_codes else 1


def run(processes: int, grace_s: float, module: str, place: Place, *, join_s: float = JOIN_S) -> int:
    """Run the module in so many processes on each node until all have ended; return the exit code of the first cause.

    On one node, store and processes listen on the loopback device alone.

    Args:
        join_s: how long to wait for the agents of other nodes.
    """
    from torch.distributed.elastic.multiprocessing import SignalException

    from platform_assets.launch import agent, last_lines

    if sys.platform == "linux":
        device = place.device() if place.nodes > 1 else "lo"
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = device
    peers = Peers(place) if place.nodes > 1 else None
    failed, said, is_finished, is_asked = dict[int, int](), list[str](), False, False
    before = process.oom_kills()  # a control group counts over the container's life
    with TemporaryDirectory(prefix="driftline-ranks-") as folder:
        logs = last_lines.ForwardedLogs(folder)
        try:
            _handle(_stop)
            if peers is not None:
                peers.join(join_s)
            else:
                store = place.serve()
                place = replace(place, port=store.port)
            arguments = ["-m", "platform_assets.launch.rank", module, str(processes)]
            failed = agent.run(arguments, processes, place, peers, logs, grace_s=max(1, int(grace_s - KILL_S)))
            is_finished = not failed
        except agent.PeerEnded as problem:
            is_asked = problem.sigval == signal.SIGTERM
            said.append(f"{problem}: the processes of node {place.rank} were ended, too.")
        except SignalException:
            is_asked = True
        except PeerLost as problem:
            is_asked = peers is not None and peers.is_asked
            said.append(str(problem))
        finally:
            _handle(signal.SIG_IGN)  # what is left to do takes no time
            logs.close()
        errors = {int(path.parent.name): _error(path) for path in Path(folder).rglob(RECORD)}
    until_s, first = time.monotonic() + (0.75 * KILL_S if is_asked else LINGER_S), place.rank * processes
    # One that left a record may still get the agent's SIGTERM while Python shuts down.
    failed = {rank: 1 if rank - first in errors else code for rank, code in failed.items()}
    said += [f"rank {rank} got {signal.Signals(-code).name}." for rank, code in sorted(failed.items()) if code < 0]
    if count := process.oom_kills() - before:
        said.append(f"The kernel killed for memory, in this container: {count} processes.")
    codes, is_shared = list(failed.values()), peers is not None
    code = 0 if is_finished else exit_code(codes, list(errors.values()), is_asked=is_asked, is_shared=is_shared)
    if process.EXIT_HUNG in (code, peers and peers.code):
        mute = [first + here for here in range(processes) if here not in errors]
        said += [f"rank {rank} did not end by itself: it was stopped, or stuck outside Python." for rank in mute]
    sys.stderr.write("".join(f"{sentence}\n" for sentence in said))
    lines = {first + here: list(lines) for here, lines in logs.last_lines.items()}
    end = last_lines.NodeEnd(node=place.rank, exit_code=code, said=said, last_lines=lines)
    last_lines.store(end, patience_s=(until_s - time.monotonic()) / 2)
    if peers is not None:
        peers.leave(code, linger_s=until_s - time.monotonic())
    return code


def _error(path: Path) -> str:
    """Return what a process recorded of its end; empty for a record that it could not finish."""
    try:
        document: Mapping[str, Mapping[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return document["message"]["message"]
    except (ValueError, KeyError):
        return ""


def main() -> None:
    """Run the module that the command line names."""
    process.die_with_parent()
    process.exit_on_sigterm()  # until there are processes that save
    from torch.distributed.argparse_util import env

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--join-s", type=float, action=env, default=JOIN_S)
    parser.add_argument("--nnodes", type=int, action=env, default=1)
    parser.add_argument("--node-rank", type=int, action=env, default=0)
    parser.add_argument("--master-addr", action=env, default="")
    parser.add_argument("--master-port", type=int, action=env, default=0)
    parser.add_argument("module")
    given = parser.parse_args()
    try:
        if given.nnodes == 1:
            place = Place()
        else:
            place = find(given.nnodes, given.node_rank, given.master_addr, given.master_port, join_s=given.join_s)
        sys.exit(run(given.processes, given.grace_s, given.module, place, join_s=given.join_s))
    except Problem as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(process.EXIT_PEER_LOST if isinstance(problem, PeerLost) else 1)


if __name__ == "__main__":
    main()
