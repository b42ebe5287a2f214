"""One contestant of row P11 in a process of its own: `... {ours|empty|stock|limit} PRODUCT FIRST LAST`.

Prints one JSON object: the CPU seconds of the run with everything it started, the number of assets, and the versions
and content digests in the records afterwards: equal for all contestants if none wrote.
"""

import json
import os
import sys

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.definitions import build_defs
from platform_assets.engine import product_files
from platform_assets.store.tables import TableStore

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def ours(product: str) -> dg.JobDefinition:
    return build_defs().resolve_job_def(naming.job("advance", product))


def stock(product: str) -> dg.JobDefinition:
    """Return the same graph under Dagster's default executor."""
    defs = build_defs()
    job = dg.define_asset_job("stock", selection=dg.AssetSelection.assets(*_data_keys(product)))
    stocked = dg.Definitions(
        assets=defs.assets, resources=defs.resources, jobs=[job], executor=dg.multiprocess_executor
    )
    return stocked.resolve_job_def("stock")


def empty(product: str) -> dg.JobDefinition:
    """Return the same keys and dependencies with bodies that do nothing, in process: the cost of Dagster itself."""
    defs = build_defs()
    expected = set(_data_keys(product))
    partitions = {key: item.partitions_def for item in defs.assets or [] for key in getattr(item, "keys", ())}

    def hollow(spec: dg.AssetSpec) -> dg.AssetsDefinition:
        deps = [dep.asset_key for dep in spec.deps if dep.asset_key != spec.key]

        @dg.asset(key=spec.key, deps=deps, partitions_def=partitions[spec.key])
        def body() -> dg.MaterializeResult[None]:
            return dg.MaterializeResult()

        return body

    hollows = [hollow(spec) for spec in defs.resolve_all_asset_specs() if spec.key in expected]
    job = dg.define_asset_job("hollow", selection=dg.AssetSelection.all())
    return dg.Definitions(assets=hollows, jobs=[job], executor=dg.in_process_executor).resolve_job_def("hollow")


def main(contestant: str, product: str, first: str, last: str) -> None:
    tables = TableStore(Settings.from_environment().root, product)
    stages = [key.path[-1] for key in _data_keys(product)]
    slow = {
        naming.stage(stage, source.name)
        for source in product_files.load(product).sources
        if source.is_slow
        for stage in ("raw", "validated", "quarantine")
    }
    if contestant == "limit":
        began = _cpu_s()
        digests = _digests(tables, stages, slow, last)
        used = _cpu_s() - began
    else:
        make = {"ours": ours, "empty": empty, "stock": stock}[contestant]
        job = dg.build_reconstructable_job(
            "proof.benchmarks.overhead_run", make.__name__, reconstructable_args=(product,)
        )
        job.get_definition()
        tags = {RANGE_START: first, RANGE_END: last} if first != last else {"dagster/partition": last}
        with dg.DagsterInstance.get() as instance:
            began = _cpu_s()
            with dg.execute_job(job, instance=instance, tags=tags, run_config=QUIET) as result:
                if not result.success:
                    raise SystemExit(f"the run of {contestant} failed")
            used = _cpu_s() - began
        digests = _digests(tables, stages, slow, last)
    print(json.dumps({"cpu_s": used, "assets": len(stages), "digests": digests}))


def _data_keys(product: str) -> list[dg.AssetKey]:
    group = product_files.load(product).group(naming.DATA)
    assets = (asset for asset in build_defs().assets or [] if isinstance(asset, dg.AssetsDefinition))
    return sorted(spec.key for asset in assets for spec in asset.specs if spec.group_name == group)


def _digests(tables: TableStore, stages: list[str], slow: set[str], key: str) -> list[str]:
    result = []
    for stage in stages:
        at = naming.UNPARTITIONED if stage in slow else key
        record = tables.records(stage, [at])[at]
        result.append(f"{record.sequence} {record.content_digest}")
    return result


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main(*sys.argv[1:])
