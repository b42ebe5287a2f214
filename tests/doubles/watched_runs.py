"""Judge keys of the watched batches in a process of its own, and die at a chosen write."""

import multiprocessing

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
    from platform_assets.engine.store_resource import StoreResource
    from platform_assets.monitoring import drift
    from platform_assets.store import delta
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.ledgers import Ledgers
    from tests.doubles import instances
    from tests.doubles.built import built
    from tests.doubles.runs import die_at_write
    from tests.doubles.watched_batches import SPEC

    if die_before is not None:
        die_at_write(die_before, (delta, "commit"), (ArtifactStore, "put"), (Ledgers, "append"))
    store = StoreResource(variables=variables)
    defs = dg.Definitions(assets=built(SPEC, features, drift), resources={"driftline_store": store})
    with instances.forgetful() as instance:
        defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )
