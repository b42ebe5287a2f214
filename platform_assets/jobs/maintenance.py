"""Delete what a product's tables no longer need: `maintain__product`, daily.

Old commits and checkpoints of the tables' logs, folded records, files of killed writers, and segments of the
prediction log that were taken in. Rows, blobs and ledgers stay. With `dry_run` the run only counts.
"""
# No postponed annotations here: Dagster compares the annotation of `context` as an object.

from typing import Any

import dagster as dg

from platform_assets.automation.resources import Resources
from platform_assets.base import clock, naming
from platform_assets.base.wording import counted
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs import job_of
from platform_assets.prediction_log import pruning
from platform_assets.product.spec import Product
from platform_assets.store import upkeep
from platform_assets.store.product_store import ProductStore

VERB = "maintain"


class MaintainConfig(dg.Config):
    """How to clean.

    Attributes:
        dry_run: only count.
        retention_hours: minimum age of a file; less than a day only while nothing else runs.
        segment_days: minimum age of a segment of the prediction log that was taken in; at least 1.
    """

    dry_run: bool = False
    retention_hours: int = upkeep.RETENTION_HOURS
    segment_days: int = pruning.RETENTION_DAYS


def build(spec: Product, resources: Resources) -> list[Any]:
    """Return the product's job."""

    @dg.op(name=naming.job("tidy", spec.name), description=f"Delete what the tables of {spec.title} no longer need.")
    def tidy(context: dg.OpExecutionContext, driftline_store: StoreResource, config: MaintainConfig) -> None:
        removed = upkeep.tidy(
            driftline_store.settings.root, spec.name, dry_run=config.dry_run, retention_hours=config.retention_hours
        )
        removed["segments"] = pruning.prune(
            ProductStore(spec, driftline_store.settings),
            now=clock.now(driftline_store.settings, spec.name, is_live=True),  # segments have the store's time
            dry_run=config.dry_run,
            retention_days=config.segment_days,
        )
        verb = "to delete" if config.dry_run else "deleted"
        for kind, count in removed.items():
            context.log.info(f"{kind}: {counted(count.files, 'file')}, {count.bytes / 1e6:.1f} MB {verb}.")
        context.add_output_metadata(
            {
                "is_dry_run": config.dry_run,
                **{f"{kind.replace(' ', '_')}_files": count.files for kind, count in removed.items()},
                **{f"{kind.replace(' ', '_')}_bytes": count.bytes for kind, count in removed.items()},
            }
        )

    about = f"Clean the tables of {spec.title}: old logs, folded records, files of killed writers."
    return [job_of(tidy, spec, resources, VERB, about)]


def nightly(spec: Product, job: dg.JobDefinition, *, is_running: bool) -> dg.ScheduleDefinition:
    """Return the schedule of the product's job."""
    status = dg.DefaultScheduleStatus.RUNNING if is_running else dg.DefaultScheduleStatus.STOPPED
    return dg.ScheduleDefinition(
        name=job.name,
        job=job,
        cron_schedule="17 3 * * *",
        default_status=status,
        description=f"Clean the tables of {spec.title} every night.",
    )
