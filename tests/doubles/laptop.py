"""Run a job of a checkout's product to its end in this process: `advance PRODUCT FIRST LAST`, `retrain PRODUCT KEY`."""

import sys

import dagster as dg


def main(verb: str, product: str, *keys: str) -> None:
    from platform_assets.definitions import defs

    job = defs.resolve_job_def(f"{verb}__{product}")
    with dg.DagsterInstance.ephemeral() as instance:
        if verb == "advance":
            first, last = keys
            ends = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            job.execute_in_process(instance=instance, tags=ends)
        else:
            job.execute_in_process(instance=instance, partition_key=keys[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
