"""Run stages of the numbered batches in a process of their own, and die at a chosen write.

A fork server imports Dagster once; a run then costs tenths of a second instead of seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

STAGES = ("raw_readings", "validated_readings", "quarantine_readings", "features")
WRITES = (
    "a blob",
    *(f"{part} of {stage}" for stage in ("raw", "quarantine", "validated", "features") for part in ("rows", "records")),
)
"""Writes of a run over one key, in order."""

_server: ForkServerContext = multiprocessing.get_context("forkserver")


def start(
    variables: dict[str, str], first: str, last: str | None = None, *, die_before: int | None = None
) -> ForkServerProcess:
    """Start a run over a range of keys; it kills itself before its write number `die_before` (from 0)."""
    _server.set_forkserver_preload([__name__, "platform_assets.automation.factory", "pandera.polars", "deltalake"])
    process = _server.Process(target=run, args=(variables, first, last or first, die_before))
    process.start()
    return process


def run(variables: dict[str, str], first: str, last: str, die_before: int | None) -> None:
    """Materialise `STAGES`; exit with code 0 on success."""
    import dagster as dg

    from platform_assets.automation.factory import build_defs
    from platform_assets.engine.store_resource import StoreResource
    from tests.doubles import instances
    from tests.doubles.numbered_batches import SPEC

    if die_before is not None:
        _die_before(die_before)
    defs = build_defs(specs=[SPEC], resources={"store": StoreResource(variables=variables)})
    job = defs.resolve_implicit_global_asset_job_def()
    with instances.forgetful() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([SPEC.name, stage]) for stage in STAGES],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )


def _die_before(number: int) -> None:
    from platform_assets.store import delta
    from platform_assets.store.artifacts import ArtifactStore

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


def exit_codes(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    """Wait for the processes and return their exit codes."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]
