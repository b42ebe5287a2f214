"""Start a worker of `bentoml serve` as a copy of its parent, which has imported all that a worker needs.

A worker that starts as a program of its own imports BentoML and what answers again, which is most of the CPU seconds
until it answers. A copy also shares the memory of what it does not change.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from circus.process import Process

from platform_assets import settings

WORKER = "_bentoml_impl.worker.service"
"""The program that Bento would start for a worker."""
_OF_A_WORKER = (
    WORKER,
    "_bentoml_impl.server.app",
    "bentoml._internal.server.http.traffic",
    "bentoml._internal.utils.telemetry",
    "opentelemetry.instrumentation.asgi",
    "uvicorn.loops.auto",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
    "onnxruntime",
    *(f"platform_assets.serving.{name}" for name in ("assembly", "metrics", "middleware", "probes")),
)
"""What a worker imports until it answers, and little more."""


def preload(environment: Mapping[str, str]) -> None:
    """Import what a worker needs, and leave it out of all later collections, which would copy its pages.

    Args:
        environment: of the workers; prometheus-client reads a part of it while it is imported.
    """
    settings.take_environment(environment)
    for name in _OF_A_WORKER:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


class Forked(Process):
    """A worker, as circus sees it."""

    def spawn(self) -> None:
        """Start it: as circus would, but where the child would become another program it goes on as a worker."""
        self.started = time.time()
        arguments = self.format_args(sockets_fds=self._get_sockets_fds())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # otherwise the copy would write it, too
        self._worker = psutil.Popen(
            arguments,
            cwd=self.working_dir,
            env=self.env,
            stdin=subprocess.DEVNULL if self.close_child_stdin else None,
            start_new_session=True,
            close_fds=False,
            restore_signals=False,  # Python ignores SIGPIPE, and this child stays Python
            preexec_fn=lambda: _work(arguments, self.env),
        )


def _work(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Be a worker until it ends; never return, because the parent's code follows on the stack."""
    status = 1
    try:
        _forget_parent(environment)
        from _bentoml_impl.worker import service
        from bentoml._internal import context, log

        context.server_context.service_type = None
        log._component_name.cache_clear()  # with which the lines of this worker's log would begin
        assert arguments[1:3] == ["-m", WORKER], arguments
        sys.argv = [WORKER, *arguments[3:]]
        service.main.main(arguments[3:], WORKER)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        if sys.exc_info()[1] is not None:
            traceback.print_exc()
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _forget_parent(environment: Mapping[str, str]) -> None:
    """Do what another program's start would: its environment, default signals, and none of the parent's files.

    The numbers of the files stay taken: objects of the parent hold them, and may close them at any time.
    """
    settings.take_environment(environment)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for path in Path("/proc/self/fd").iterdir():
        descriptor = int(path.name)
        with contextlib.suppress(OSError):  # the folder's own
            if descriptor != nothing and fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.dup2(nothing, descriptor, inheritable=False)
