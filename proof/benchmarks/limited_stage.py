"""Materialise a stage of one key like a run pod does: `python -m proof.benchmarks.limited_stage CGROUP STAGE`.

The last line of its output is the peak of its resident memory in bytes, and its CPU seconds.
"""

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from platform_assets.base import naming
from platform_assets.product.spec import Field
from tests.doubles import recorded

KEY = "2020-01-05"
FIELDS = tuple(f"field_{number:02d}" for number in range(int(os.environ.get("FIELDS", "89"))))
SPEC = replace(
    recorded.SPEC,
    monitors=replace(recorded.SPEC.monitors, drift_window=1),
    fields=tuple(Field(name=name, dtype="float", description="a number", is_nullable=True) for name in FIELDS),
)


def main() -> None:
    """Join the memory cgroup, if there is one, and run."""
    if sys.argv[1]:
        Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    import dagster as dg

    from platform_assets.definitions import build_defs
    from platform_assets.engine.store_resource import StoreResource

    defs = build_defs(specs=[SPEC], resources={"store": StoreResource()})
    job = defs.resolve_job_def(naming.job("advance", SPEC.name))
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([SPEC.name, sys.argv[2]])],
            tags={"dagster/asset_partition_range_start": KEY, "dagster/asset_partition_range_end": KEY},
        )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    # `ru_maxrss` has the peak of the process before it became this program.
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(1024 * int(peak.split()[1]), usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    main()
