"""Copy the files that an upstream system delivered, as they landed.

Cells of text stay text; `source_offset` is the row's position in the file, `arrived_at_utc` the time the file landed. A
reader's values have the schema's types; a value that does not fit its type exactly is stored as text in
`unheld_cells`. The file's bytes are stored under their sha256. A file that is missing, empty, truncated or has other
columns fails the step and changes nothing; missing labels are not an error. A file that is still missing after the
source's deadline counts as a delivery without rows, which the judgement of the key (`drift`) reports as a fault.
A file not known to be complete (`Source.arrives`) counts as missing; if nothing marks it as complete, a second look
decides. A file whose mark (inode, size and time; on S3 the ETag) is unchanged is not read again.
"""

from __future__ import annotations

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import landed
from platform_assets.digests import reads
from platform_assets.engine.ranges import KeyedRun, Keys, Plan
from platform_assets.engine.stage import Stage
from platform_assets.intake import arrivals
from platform_assets.makers.parts import StageOutput
from platform_assets.makers.raw import Landing
from platform_assets.product.channels import Landed
from platform_assets.records.notes import Raw
from platform_assets.show import data
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.tables import PartitionRecord

STAGE = "raw"
MISSING = "missing"
"""Replaces the digest of a file that never came."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return one asset per source."""
    return [asset for source in spec.sources for asset in _stage(spec, source).assets()]


def _stage(spec: ProductSpec, source: Source) -> Stage[Landing]:
    return Stage(
        spec=spec,
        name=STAGE,
        source=source,
        system=naming.DATA,
        kinds=("deltalake", "polars"),
        doc=__doc__,
        maker=Landing.of(spec, source),
        run=_Run,
    )


class _Run(KeyedRun[Landing]):
    def __init__(self, stage: Stage[Landing], context: dg.AssetExecutionContext) -> None:
        """Look at the files of all keys now; a file that nothing marks as complete is looked at again later."""
        super().__init__(stage, context)
        self._intake = arrivals.Intake(context, self.product, self.source, self.code)
        self._intake.look(self.keys)

    def plan(self, chunk: Keys) -> Plan:
        records = self.tables.records(self.name, chunk)
        digests = {key: self._intake.recorded_digest(key, records.get(key)) for key in chunk}
        unchanged = {key: digest for key, digest in digests.items() if digest is not None}
        files = self._intake.files(key for key in chunk if key not in unchanged)
        for key, file in files.items():
            self._name_hidden_change(records.get(key), file)

        def make(stale: Keys) -> dict[str, StageOutput]:
            with reads.guarded(self.spec.module):
                self.source.columns()  # raises a readable error if the schema lacks a column
            # Another run may have replaced a record since then, so its file must be read after all.
            missing = self._intake.files(key for key in stale if key not in files)
            return {self.name: self._compute({key: (files | missing)[key] for key in stale})}

        return Plan(
            inputs={
                key: {"file": unchanged.get(key) or _digest(files[key])} for key in chunk if key in unchanged | files
            },
            make=make,
        )

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        if record is None:
            return data.NO_LABELS if self.source.is_label else super().summary(table, record)
        return data.raw(record, is_label=self.source.is_label)

    def _name_hidden_change(self, record: PartitionRecord | None, file: arrivals.File) -> None:
        """Warn when a file's bytes differ from its record although its mark is unchanged."""
        if isinstance(file, arrivals.Gap) or record is None or Raw.of(record).mark != file.mark:
            return
        then, now = f"{record.inputs.get('file')}", _digest(file)
        if then != now:
            self.context.log.warning(
                f"{file.uri} has changed since it was taken in (sha256 {then[:12]} then, {now[:12]} now), "
                f"though its mark {file.mark} is the same: something rewrote it and reset its time. It is taken in "
                "again."
            )

    def _compute(self, files: arrivals.Files) -> StageOutput:
        types = {} if self.maker.read is None else self.tables.types(self.name)
        with reads.guarded(self.spec.module):
            rows = {key: _rows(self.maker, file) for key, file in files.items() if isinstance(file, Landed)}
            frames, nothing = self.maker.align(rows, types)
        return StageOutput(
            frames={key: frames.get(key, nothing) for key in files},
            notes={key: self._notes(file) for key, file in files.items()},
        )

    def _notes(self, file: arrivals.File) -> dict[str, str | int]:
        if isinstance(file, arrivals.Gap):
            return {"is_missing": True, **({"why": file.why} if file.why else {})}
        return {
            "uri": file.uri,
            "sha256": self.product.artifacts.put(file.data, compressed=True),
            "bytes": len(file.data),
            "arrived_at_utc": file.arrived_at_utc.isoformat(),
            "mark": file.mark,
        }


def _digest(file: arrivals.File) -> str:
    return MISSING if isinstance(file, arrivals.Gap) else sha256(file.data)


def _rows(maker: Landing, file: Landed) -> pl.DataFrame:
    try:
        return maker.rows(file.data, file.arrived_at_utc)
    except landed.UnreadableFile as problem:
        raise dg.Failure(
            f"{file.uri} cannot be taken in: {problem}",
            metadata={"uri": file.uri, "bytes": len(file.data)},
            allow_retries=False,
        ) from problem
