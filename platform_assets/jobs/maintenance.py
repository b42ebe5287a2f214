"""Remove what a product's tables have written over: `maintain__product`, daily.

Old commits and checkpoints of the tables' logs, records that were folded into others, and the files of killed writers.
Rows, blobs and ledgers stay. With `dry_run` the run only says what would go.
"""
# Annotations are not postponed here: Dagster compares that of `context` as an object.

from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.specs.base import ProductSpec
from platform_assets.storage import upkeep
from resources.store import StoreResource

VERB = "maintain"
DAILY = "17 3 * * *"


class MaintainConfig(dg.Config):
    """How to clean.

    Attributes:
        dry_run: only say what would go.
        retention_hours: how old a file must be at least; less than a day only while nothing else runs.
    """

    dry_run: bool = False
    retention_hours: int = upkeep.RETENTION_HOURS


def build(spec: ProductSpec) -> list[Any]:
    """Return the product's job and its schedule."""

    @dg.op(name=naming.job("tidy", spec.name), description=f"Remove what the tables of {spec.title} have written over.")
    def tidy(context: dg.OpExecutionContext, store: StoreResource, config: MaintainConfig) -> None:
        gone = upkeep.tidy(
            store.settings.root, spec.name, dry_run=config.dry_run, retention_hours=config.retention_hours
        )
        verb = "would go" if config.dry_run else "went"
        for what, removed in gone.items():
            context.log.info(f"{what}: {removed.files:,} files with {removed.bytes / 1e6:.1f} MB {verb}.")
        context.add_output_metadata(
            {
                "is_dry_run": config.dry_run,
                **{f"{what.replace(' ', '_')}_files": removed.files for what, removed in gone.items()},
                **{f"{what.replace(' ', '_')}_bytes": removed.bytes for what, removed in gone.items()},
            }
        )

    @dg.job(
        name=naming.job(VERB, spec.name),
        description=f"Clean the tables of {spec.title}: old logs, folded records, files of killed writers.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    def maintain() -> None:
        tidy()

    schedule = dg.ScheduleDefinition(
        name=naming.job(VERB, spec.name),
        job=maintain,
        cron_schedule=DAILY,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Clean the tables of {spec.title} every night.",
    )
    return [maintain, schedule]
