"""Run a stage for one cutoff: one record, recomputed when its inputs or its code changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from platform_assets.engine import partitions
from platform_assets.engine.stage import M, Partitions, Run, Stage
from platform_assets.store.tables import PartitionRecord

Inputs = Mapping[str, str]


@dataclass(frozen=True)
class Recorded:
    """The record of a cutoff.

    Attributes:
        digest: of the content.
        notes: of the record.
        is_memoised: whether it was up to date before the run.
    """

    digest: str
    notes: Mapping[str, Any]
    is_memoised: bool = False


class CutoffRun(Run[M]):
    """A run for one cutoff."""

    def __init__(self, stage: Stage[M], context: dg.AssetExecutionContext) -> None:
        """Prepare the run without reading anything."""
        super().__init__(stage, context)
        self.cutoff = context.partition_key

    @classmethod
    def partitions(cls, stage: Stage[M]) -> Partitions:
        """Return one partition per cutoff, one per run."""
        return partitions.definition(partitions.cutoffs_of(stage.spec)), partitions.one_run_each()

    def inputs(self) -> Inputs:
        """Return the digests of the stage's inputs, by name."""
        raise NotImplementedError

    def is_current(self, record: PartitionRecord, inputs: Inputs) -> bool:
        """Tell whether the record is up to date."""
        return record.matches(inputs, self.code)

    def make(self, inputs: Inputs) -> Recorded:
        """Compute the stage; return what to record."""
        raise NotImplementedError

    def facts(self, content: Recorded) -> object:
        """Return what the stage's view shows of what is on record now."""
        return content

    def checks(self) -> Sequence[dg.AssetCheckResult]:
        """Return the results of the stage's checks."""
        return ()

    def work(self) -> Iterable[dg.MaterializeResult]:
        """Compute and record the stage unless it is up to date; return the materialisation."""
        inputs, stage = self.inputs(), self.stage.name
        record = self.tables.records(stage, [self.cutoff]).get(self.cutoff)
        if record is not None and self.is_current(record, inputs):
            content = Recorded(record.content_digest, record.notes, is_memoised=True)
        else:
            content = self.make(inputs)
            self.tables.record(
                stage, self.cutoff, content_digest=content.digest, inputs=inputs, code=self.code, notes=content.notes
            )
        shown, version = self.page(self.facts(content)), dg.DataVersion(content.digest)
        # No output for an IO manager: a training's pod has none, and Dagster's default one pickles.
        return [dg.MaterializeResult(data_version=version, metadata=shown, check_results=self.checks())]
