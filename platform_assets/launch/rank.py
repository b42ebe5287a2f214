"""Run a step's module as one of several processes: torchrun's agent starts `python -m platform_assets.launch.rank`.

Its arguments are the module, and how many processes the node has.
"""

from __future__ import annotations

import importlib
import os
import sys

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from platform_assets.base.problems import Problem
from platform_assets.training import process_group
from platform_assets.training.steps import process


def _end(sentence: str) -> None:
    """End this process in a thread: the main one does not return from torch, or from wherever it hangs."""
    get_error_handler().record_exception(process.Hung(sentence))
    sys.stderr.write(f"{sentence}.\n")
    sys.stderr.flush()
    os._exit(process.EXIT_HUNG)


def main(module: str, processes: int) -> None:
    """Call the module's `main` with the process group; leave the record by which `torchrun` knows how this ended."""
    process.die_with_parent()
    rank = 0
    try:
        with process_group.joined(processes, on_hang=_end) as group:
            rank = group.rank
            importlib.import_module(module).main(group)
    except BaseException as error:
        get_error_handler().record_exception(error)
        is_short = isinstance(error, Problem) if rank else isinstance(error, process.PeerLost)
        if not is_short:
            sys.excepthook = sys.__excepthook__  # torch's puts its rank before each line, where nobody looks for causes
            raise
        # Another process shows the cause; a second traceback would push it out of the last lines.
        sys.exit(f"rank {rank}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
