"""Storage: what 400 keys of 36 rows leave behind, taken in one by one, before and after the nightly cleaning.

Every key is a run of `advance` of its own, which makes the most files per key. `stored` is everything below the root
except the landing. The cleaning is the job `maintain__hourly_temperature`; here it removes at once what it would
remove after a week, listed separately. Bytes are those of the files; the disk's blocks are listed too.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import polars as pl

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.keys import HourlyGrain
from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.demo.replay.recording import Reader
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store import durable, upkeep
from platform_assets.store.product_store import ProductStore
from proof.benchmarks.harness import Measure
from tests.doubles.products import hourly_temperature

KEYS, FIRST = 400, "2013-01-01T06"
COPIES = 12
"""Number of stations made from each of the recording's three, so that a key lands about 6 kB."""
BLOCK = 4096
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
SHARE = 5.0


@dataclass(frozen=True)
class Size:
    files: int
    bytes: int
    blocks: int


def deliver(source: str, key: str) -> bytes | None:
    """Return an hour's file with the rows of many stations, each a little off the recording's."""
    rows = pl.read_csv(hourly_temperature.deliver(source, key) or b"", infer_schema=False)
    measured = [pl.col(name).cast(pl.Float64) for name in rows.columns if name in hourly_temperature.MEASURED]
    copies = [
        rows.with_columns(
            pl.format("{}{}", "station", pl.lit(f"{copy:02d}")).alias("station"),
            *((column * (1 - 0.0031 * copy)).round(2) for column in measured),
        )
        for copy in range(COPIES)
    ]
    return pl.concat(copies).write_csv().encode()


SPEC = replace(
    hourly_temperature.SPEC,
    grain=HourlyGrain(start=FIRST, end="2013-01-20T05"),
    history=replace(hourly_temperature.SPEC.history, deliver=deliver),
)
hourly_temperature.STATIONS = tuple(
    f"{name}{copy:02d}" for name in hourly_temperature.STATIONS for copy in range(COPIES)
)


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="driftline-p9-") as name:
        settings = Settings(root=f"{name}/store", state=Path(name, "state"))
        settings.dagster_home.mkdir(parents=True)
        keys = SPEC.grain.span(FIRST, SPEC.grain.shift(FIRST, KEYS - 1))
        list(replay.land(ProductStore(SPEC, settings), keys, labelled=set(keys)))
        replay.move_on(ProductStore(SPEC, settings), replay.end_of(SPEC, keys[-1], Reader(SPEC)))
        waited_s = durable.disk_waits.seconds
        defs = build_defs(specs=[SPEC], resources={"store": StoreResource(variables=settings.to_environment())})
        job, seconds = defs.resolve_job_def(naming.job("advance", SPEC.name)), []
        with dg.DagsterInstance.ephemeral() as instance:
            for number, key in enumerate(keys):
                began = time.perf_counter()
                job.execute_in_process(instance=instance, partition_key=key, run_config=QUIET)
                seconds.append(time.perf_counter() - began)
                if number % 40 == 39:
                    print(f"  {number + 1} keys, {seconds[-1]:.2f} s for the last", flush=True)
        waited_s, waits = durable.disk_waits.seconds - waited_s, durable.disk_waits.calls
        root = Path(settings.root)
        landed, before = _size(root / "landing"), _stored(root)
        weekly = upkeep.tidy(settings.root, SPEC.name, dry_run=True)
        upkeep.tidy(settings.root, SPEC.name, dry_run=False, retention_hours=0)
        after = _stored(root)
    early, late = (sum(part) / len(part) for part in (seconds[20:60], seconds[-40:]))
    young = sum(removed.files for removed in weekly.values())
    return [
        Measure("landed, bytes", landed.bytes, peers={"files": landed.files}),
        Measure(
            "stored before cleaning, bytes",
            before.bytes,
            peers={
                "files": before.files,
                "blocks of the disk": before.blocks,
                "files that a week's age would let go": young,
            },
        ),
        Measure(
            "stored after cleaning, bytes over bytes landed",
            after.bytes / landed.bytes,
            peers={"before cleaning": before.bytes / landed.bytes},
            target=f"<= {SHARE:g}",
        ),
        Measure(
            "stored after cleaning, bytes",
            after.bytes,
            peers={"files": after.files, "blocks of the disk": after.blocks},
        ),
        Measure(
            "seconds of a key's run that go into waiting for the disk",
            waited_s / KEYS,
            peers={"the run": sum(seconds) / KEYS, "calls": waits / KEYS},
        ),
        Measure("seconds of a key's run, the last 40 keys", late, peers={"keys 21 to 60": early}),
    ]


def _stored(root: Path) -> Size:
    sizes = [_size(folder) for folder in root.iterdir() if folder.name != "landing"]
    return Size(*(sum(getattr(size, name) for size in sizes) for name in ("files", "bytes", "blocks")))


def _size(folder: Path) -> Size:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Size(len(sizes), sum(sizes), sum(-(-size // BLOCK) * BLOCK for size in sizes))
