"""Judge keys of the watched batches in a process of its own, and die at a chosen write."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

LOADED = (__name__, "platform_assets.monitoring.drift", "pandera.polars", "deltalake", "matplotlib.figure", "PIL.Image")

_server = multiprocessing.get_context("forkserver")


def judge(variables: dict[str, str], first: str, last: str, *, die_before: int | None = None) -> int | None:
    """Materialise features and drift of a range; return the exit code, -9 if it died before that write (from 0)."""
    _server.set_forkserver_preload(list(LOADED))
    process = _server.Process(target=_run, args=(variables, first, last, die_before))
    process.start()
    process.join(120)
    return process.exitcode


def _run(variables: dict[str, str], first: str, last: str, die_before: int | None) -> None:
    import dagster as dg

    from platform_assets.data import features
    from platform_assets.engine import partitions
    from platform_assets.engine.store_resource import StoreResource
    from platform_assets.monitoring import drift
    from tests.doubles import instances
    from tests.doubles.watched_batches import SPEC

    if die_before is not None:
        _die_before(die_before)
    with partitions.beta_allowed():
        assets = [*features.build(SPEC), *drift.build(SPEC)]
    defs = dg.Definitions(assets=assets, resources={"driftline_store": StoreResource(variables=variables)})
    with instances.forgetful() as instance:
        defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )


def _die_before(number: int) -> None:
    """Count the commits of tables, blobs and ledger records of this process, and die right before one of them."""
    from platform_assets.store import delta
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.ledgers import Ledgers

    writes = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal writes
            if writes == number:
                os.kill(os.getpid(), signal.SIGKILL)
            writes += 1
            return write(*args, **options)

        return wrapped

    delta.commit = counted(delta.commit)
    ArtifactStore.put = counted(ArtifactStore.put)
    Ledgers.append = counted(Ledgers.append)
