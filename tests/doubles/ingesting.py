"""Ingest a tiny product's segments in a process of its own, as its stage does."""

import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from platform_assets.base.settings import Settings
from platform_assets.prediction_log import claiming, prediction_log
from platform_assets.store.product_store import ProductStore
from tests.doubles.shipped import SPEC

KEYS = ("2020-01-05", "2020-01-06")
PATIENCE_S = 600.0

_server = multiprocessing.get_context("forkserver")


class Ingestion:
    """A process that is ready to ingest once."""

    def __init__(self, product: ProductStore, batch_bytes: int, variables: Mapping[str, str]) -> None:
        _server.set_forkserver_preload([__name__])
        ours, theirs = _server.Pipe()
        settings = (product.settings.root, str(product.settings.state), batch_bytes)
        self._process = _server.Process(target=_ingest, args=(theirs, settings, {**os.environ, **variables}))
        self._process.start()
        theirs.close()
        self._pipe = ours
        assert ours.poll(PATIENCE_S) and ours.recv() == "ready"

    def begin(self) -> None:
        self._pipe.send("begin")

    def kill(self) -> None:
        """Kill it, and wait until it is dead; another thread may wait for its end."""
        self._process.kill()
        assert self._pipe.poll(PATIENCE_S), "a killed process still holds its pipe"

    def end(self) -> int | None:
        """Wait for its end; return its exit status, -9 for a killed one."""
        self._process.join(PATIENCE_S)
        return self._process.exitcode


def _ingest(pipe: Connection, settings: tuple[str, str, int], variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    root, state, claiming.BATCH_BYTES = settings
    product = ProductStore(SPEC, Settings(environment="cluster", root=root, state=Path(state)))
    pipe.send("ready")
    pipe.recv()
    prediction_log.ingest_segments(product, "code", KEYS)
