"""Serve a Bento in one process, as a pod does: `python -m platform_assets.serving.run.pod` in the Bento's folder `src`.

It is the application that `bentoml serve` serves, without Bento's supervisor: a process that dies ends its container,
and the kubelet starts another.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

from platform_assets.serving.run import protocol
from platform_assets.serving.run.listening import PortProblem, bound


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="pod", description="Serve the Bento in this folder.")
    parser.add_argument("--port", type=int, default=3000, help="of the callers (default: 3000)")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")  # a pod's
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        callers = bound(options.host, options.port)
    except PortProblem as problem:
        print(f"serve: {problem}", file=sys.stderr)
        return 1
    # After the port is bound: this import finds the socket, and checks the port of probes next to it.
    from platform_assets.serving.run.bento import PredictionService

    application = PredictionService.to_asgi()  # type: ignore[attr-defined]  # a bentoml.Service
    # By default uvicorn goes on after a start that failed, and serves nothing.
    protocol.server(application, lifespan="on").run(sockets=[callers])
    return 0


if __name__ == "__main__":
    # The first process of a container gets no signal without a handler: its pod would end only after its grace.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    sys.exit(main())
