"""Run a stage for one cutoff: one record, made again when its inputs or its code moved.

Belongs here: memoisation of what has a cutoff. Does not belong here: stages that are brought up to date over a range of
keys (`ranges`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from platform_assets import partitions
from platform_assets.engine.stage import M, Partitions, Run, Stage
from platform_assets.show.values import Metadata, readable
from platform_assets.storage.adoption import is_current
from platform_assets.storage.tables import PartitionRecord

Inputs = Mapping[str, str]


@dataclass(frozen=True)
class Recorded:
    """What is on record of a cutoff.

    Attributes:
        digest: of the content.
        notes: of the record.
        is_memoised: whether it stood before.
    """

    digest: str
    notes: Mapping[str, Any]
    is_memoised: bool = False


class CutoffRun(Run[M]):
    """A run for one cutoff."""

    def __init__(self, stage: Stage[M], context: dg.AssetExecutionContext) -> None:
        """Read nothing yet."""
        super().__init__(stage, context)
        self.cutoff = context.partition_key

    @classmethod
    def partitions(cls, stage: Stage[M]) -> Partitions:
        """Return the product's keys, read as cutoffs, one per run."""
        return partitions.definition(partitions.cutoffs_of(stage.spec)), partitions.one_run_each()

    def inputs(self) -> Inputs:
        """Return digests by name: from what the stage is made."""
        raise NotImplementedError

    def is_current(self, record: PartitionRecord, inputs: Inputs) -> bool:
        """Tell whether what is on record is what would be made now."""
        return is_current(self.tables, record, inputs, self.code)

    def make(self, inputs: Inputs) -> Recorded:
        """Make the stage, and return what is to be recorded."""
        raise NotImplementedError

    def summary(self, content: Recorded) -> str:
        """Return one sentence about what is on record now; it heads the cutoff's page in Dagster."""
        raise NotImplementedError

    def describe(self, content: Recorded) -> Metadata:
        """Return the metadata of what is on record now."""
        raise NotImplementedError

    def checks(self) -> Sequence[dg.AssetCheckResult]:
        """Return results of the stage's checks."""
        return ()

    def work(self) -> Iterable[dg.MaterializeResult]:
        """Make what does not stand, record it, and tell."""
        inputs, stage = self.inputs(), self.stage.name
        known = self.tables.records(stage, [self.cutoff]).get(self.cutoff)
        if known is not None and self.is_current(known, inputs):
            content = Recorded(known.content_digest, known.notes, is_memoised=True)
        else:
            content = self.make(inputs)
            self.tables.record(
                stage, self.cutoff, content_digest=content.digest, inputs=inputs, code=self.code, notes=content.notes
            )
        metadata = readable(self.summary(content), self.describe(content))
        version = dg.DataVersion(content.digest)
        return [dg.MaterializeResult(data_version=version, metadata=metadata, check_results=self.checks())]
