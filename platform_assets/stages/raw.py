"""Copy the files that an upstream system delivered, as they landed.

Cells of text stay text; `source_offset` is the row's position in the file, `arrived_at_utc` the time the file landed. A
reader's values have the schema's types; a value that does not fit its type exactly is stored as text in
`unheld_cells`. A record of CSV that is not a row (too few fields, a misplaced quote) keeps its place as a row of nulls,
with its lines and text in `broken_record`. The file's bytes are stored under their sha256. A file that is missing,
empty, truncated or has other columns fails the step and changes nothing; missing labels are not an error. A file that
is still missing after the source's deadline counts as a delivery without rows, which the judgement of the key (`drift`)
reports as a fault. A file not known to be complete (`Source.arrives`) counts as missing; if nothing marks it as
complete, a second look decides. A file whose mark (inode, size and time; on S3 the ETag) is unchanged is not read
again.
"""

from __future__ import annotations

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import landed
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
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
        self._kept: dict[str, str] = {}

    def plan(self, chunk: Keys) -> Plan:
        records = self.tables.records(self.name, chunk)
        digests = {key: self._intake.recorded_digest(key, records.get(key)) for key in chunk}
        unchanged = {key: digest for key, digest in digests.items() if digest is not None}
        files = self._intake.files((key for key in chunk if key not in unchanged), records)
        for key, file in files.items():
            self._name_hidden_change(records.get(key), file)
            files[key] = self._unless_lost(records.get(key), file)
        kept = {key: file.why for key, file in files.items() if isinstance(file, arrivals.Kept)}
        self._kept |= kept
        unchanged |= {key: f"{records[key].inputs.get('file')}" for key in kept}

        def make(stale: Keys) -> dict[str, StageOutput]:
            self.source.columns()  # raises a readable error if the schema lacks a column
            # Another run may have replaced a record since then, so its file must be read after all.
            missing = self._intake.files((key for key in stale if key not in files), records)
            return {self.name: self._compute({key: (files | missing)[key] for key in stale})}

        return Plan(
            inputs={
                key: {"file": unchanged.get(key) or _digest(files[key])} for key in chunk if key in unchanged | files
            },
            make=make,
            kept=kept,
        )

    def describe(self, done: Advance) -> Report:
        """Return the notes of the keys whose earlier delivery is kept, with the reason."""
        records = done.records[self.name]
        return Report(notes={key: {**records[key].notes, "kept": reason} for key, reason in self._kept.items()})

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        if record is None:
            return data.NO_LABELS if self.source.is_label else super().summary(table, record)
        return data.raw(record, is_label=self.source.is_label)

    def _name_hidden_change(self, record: PartitionRecord | None, file: arrivals.File) -> None:
        """Warn when a file's bytes differ from its record although its mark is unchanged."""
        if not isinstance(file, Landed) or record is None or Raw.of(record).mark != file.mark:
            return
        then, now = f"{record.inputs.get('file')}", _digest(file)
        if then != now:
            self.context.log.warning(
                f"{file.uri} has changed since it was taken in (sha256 {then[:12]} then, {now[:12]} now), "
                f"though its mark {file.mark} is the same: something rewrote it and reset its time. It is taken in "
                "again."
            )

    def _unless_lost(self, record: PartitionRecord | None, file: arrivals.File) -> arrivals.File:
        """Return a delivery, or what is kept where the source has lost the rows that an earlier channel delivered."""
        if record is None or not record.rows or not self._intake.is_other_channel(record):
            return file
        if not isinstance(file, Landed) or _rows(self.maker, file).height:
            return file
        return self._intake.keep(record, f"{file.uri} has no row for the key now") or file

    def _compute(self, files: arrivals.Files) -> StageOutput:
        rows = {key: _rows(self.maker, file) for key, file in files.items() if isinstance(file, Landed)}
        types = {} if self.maker.read is None else self.tables.types(self.name)
        frames, nothing = self.maker.align(rows, types)
        return StageOutput(
            frames={key: frames.get(key, nothing) for key in files},
            notes={key: self._notes(file) for key, file in files.items()},
        )

    def _notes(self, file: arrivals.File) -> dict[str, str | int]:
        if not isinstance(file, Landed):
            return {"is_missing": True, **({"why": file.why} if file.why else {})}
        return {
            "uri": file.uri,
            "sha256": self.product.artifacts.put(file.data, compressed=True),
            "bytes": len(file.data),
            "arrived_at_utc": file.arrived_at_utc.isoformat(),
            "mark": file.mark,
            **({} if self._intake.identity is None else {"channel": self._intake.identity}),
        }


def _digest(file: arrivals.File) -> str:
    return sha256(file.data) if isinstance(file, Landed) else MISSING


def _rows(maker: Landing, file: Landed) -> pl.DataFrame:
    try:
        return maker.rows(file.data, file.arrived_at_utc)
    except landed.UnreadableFile as problem:
        raise dg.Failure(
            f"{file.uri} cannot be taken in: {problem}",
            metadata={"uri": file.uri, "bytes": len(file.data)},
            allow_retries=False,
        ) from problem
