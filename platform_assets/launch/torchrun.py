"""Run a step's module in several processes of this machine, by torchrun's agent.

`python -m platform_assets.launch.torchrun --processes 2 --grace-s 60 platform_assets.launch.train`. The agent itself
exits with 1 whatever its processes end with, so this process exits with the code of the first cause, as a step of one
process would.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from platform_assets.training.steps import process

HERE = "127.0.0.1"
KILL_S = 2.0
"""How long before this process is killed the agent kills what is left: nobody would, afterwards."""
STOPS = (signal.SIGTERM, signal.SIGINT)
RECORD = "error.json"
"""What torch calls the record of a process's error, in a folder of the process's own."""


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in STOPS:
        signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Let the agent stop its processes, once: launchers repeat the signal while these save."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    _handle(signal.SIG_IGN)
    raise SignalException("asked to stop", sigval=signal.SIGTERM)


def exit_code(exit_codes: Sequence[int], errors: Sequence[str], *, is_asked: bool) -> int:
    """Return the exit code of the first cause, by kind: an error of its own, a kill, a request to stop, a lost peer.

    Args:
        exit_codes: of the processes that failed, negative for a signal; those that the agent ended may be missing.
        errors: what processes recorded of their end, beginning with the error's type.
        is_asked: whether this process was asked to stop.
    """
    kinds = {error.partition(":")[0] for error in errors}
    has_own_error = bool(kinds - {"", process.Preempted.__name__, process.PeerLost.__name__})
    # Once one has failed the agent ends the others by SIGTERM, and by SIGKILL at last: an error comes before a kill.
    killed = [code for code in exit_codes if code < 0 and code != -signal.SIGTERM]
    if is_asked:
        return 1 if has_own_error else process.EXIT_PREEMPTED
    if has_own_error or not exit_codes:
        return 1
    if killed:
        return 128 - max(killed)
    is_preempted = process.Preempted.__name__ in kinds or -signal.SIGTERM in exit_codes
    return process.EXIT_PREEMPTED if is_preempted else 1


def run(processes: int, grace_s: float, module: str) -> int:
    """Run the module in so many processes until all have ended; return the exit code of the first cause.

    The rendezvous is static: torch's others unpickle what peers write. Store and processes listen on the loopback
    device alone.
    """
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    listener = socket.create_server((HERE, 0))
    port = listener.getsockname()[1]
    # The agent's own store, of the same port in this process, becomes a client of this one.
    store = TCPStore(
        HERE, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listener.detach()
    )
    with TemporaryDirectory(prefix="driftline-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="step",
            rdzv_backend="static",
            rdzv_endpoint=f"{HERE}:{store.port}",
            rdzv_configs={"rank": 0},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=max(1, int(grace_s - KILL_S)),
            signals_to_handle="SIGQUIT",  # SIGTERM and SIGINT are ours: the agent would give up at a second one
        )
        failed, is_asked = dict[int, int](), False
        before = process.oom_kills()
        try:
            _handle(_stop)
            launch_agent(config, sys.executable, ["-m", "platform_assets.launch.rank", module])
        except SignalException:
            is_asked = True
        except ChildFailedError as problem:
            failed = {rank: failure.exitcode for rank, failure in problem.failures.items()}
        else:
            return 0
        finally:
            _handle(signal.SIG_IGN)  # what is left to do takes no time
        errors = [_error(path) for path in sorted(Path(folder).rglob(RECORD))]
    for rank, code in sorted(failed.items()):
        if code < 0:
            sys.stderr.write(f"rank {rank} of {processes} got {signal.Signals(-code).name}.\n")
    if count := process.oom_kills() - before:
        sys.stderr.write(f"The kernel killed for memory, in this container: {count} processes.\n")
    return exit_code(list(failed.values()), errors, is_asked=is_asked)


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("module")
    arguments = parser.parse_args()
    sys.exit(run(arguments.processes, arguments.grace_s, arguments.module))


if __name__ == "__main__":
    main()
