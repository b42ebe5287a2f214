"""Run stages of the numbered batches in a process of their own, and die at a chosen write.

A fork server imports Dagster once; a run then costs tenths of a second instead of seconds.
"""

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
    import dagster as dg

    from platform_assets.automation.factory import build_defs
    from platform_assets.engine.store_resource import StoreResource
    from platform_assets.store import delta
    from platform_assets.store.artifacts import ArtifactStore
    from tests.doubles import instances
    from tests.doubles.numbered_batches import SPEC

    if die_before is not None:
        die_at_write(die_before, (delta, "commit"), (ArtifactStore, "put"))
    defs = build_defs(specs=[SPEC], resources={"store": StoreResource(variables=variables)})
    job = defs.resolve_implicit_global_asset_job_def()
    with instances.forgetful() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([SPEC.name, stage]) for stage in STAGES],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )


def die_at_write(number: int, *functions: tuple[Any, str]) -> None:
    """Count the calls of functions, each by owner and name, in this process, and die right before one of them."""
    calls = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal calls
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return write(*args, **options)

        return wrapped

    for owner, name in functions:
        setattr(owner, name, counted(getattr(owner, name)))


def exit_codes(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]
