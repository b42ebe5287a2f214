"""Copy what an upstream system delivered, as it landed.

Every cell of text stays text; `source_offset` is the row's place in the file, `arrived_at_utc` when the file landed.
A reader's values have the schema's types, and one that its type cannot hold exactly stands as text in
`unheld_cells`. The file's bytes are kept under their sha256. A file that is missing, empty, cut short or has other
columns fails the step and changes nothing; labels that have not landed yet are no error. A file that is still missing
after the source's deadline is taken as a delivery of no rows, which the judgement of the key (`drift`) calls a fault.
A file that is not known to be whole (`Source.arrives`) is none yet; where nobody says so, a second look tells. A file
with the mark of the one that was taken in (inode, size and time; on S3 of the bytes) is not read again.
"""

from __future__ import annotations

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import landed
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
"""Stands for the digest of a file that never came."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return one asset a source."""
    return [made for source in spec.sources for made in _stage(spec, source).assets()]


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
        """Look at the files of all keys: one that nobody calls whole is looked at again."""
        super().__init__(stage, context)
        self._intake = arrivals.Intake(context, self.product, self.source, self.code)
        self._intake.look(self.keys)
        self.source.columns()  # or a sentence about what the schema lacks

    def plan(self, chunk: Keys) -> Plan:
        records = self.tables.records(self.name, chunk)
        digests = {key: self._intake.recorded_digest(key, records.get(key)) for key in chunk}
        known = {key: digest for key, digest in digests.items() if digest is not None}
        files = self._intake.files(key for key in chunk if key not in known)
        for key, file in files.items():
            self._name_hidden_change(records.get(key), file)

        def make(stale: Keys) -> dict[str, StageOutput]:
            # Another run may have replaced a record since; then its file is read after all.
            late = self._intake.files(key for key in stale if key not in files)
            return {self.name: self._made({key: (files | late)[key] for key in stale})}

        return Plan(
            inputs={key: {"file": known.get(key) or _digest(files[key])} for key in chunk if key in known | files},
            make=make,
        )

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        if record is None:
            return data.NO_LABELS if self.source.is_label else super().summary(table, record)
        return data.raw(record, is_label=self.source.is_label)

    def _name_hidden_change(self, record: PartitionRecord | None, file: arrivals.File) -> None:
        """Say when a file's bytes are others than its record's though its mark is the same."""
        if isinstance(file, arrivals.Gap) or record is None or Raw.of(record).mark != file.mark:
            return
        then, now = f"{record.inputs.get('file')}", _digest(file)
        if then != now:
            self.context.log.warning(
                f"{file.uri} has other bytes than when it was taken in (sha256 {then[:12]} then, {now[:12]} now), "
                f"though its mark {file.mark} is the same: something rewrote it and set its time back. It is taken in "
                "anew."
            )

    def _made(self, files: arrivals.Files) -> StageOutput:
        came = {key: _rows(self.maker, file) for key, file in files.items() if isinstance(file, Landed)}
        held = {} if self.maker.read is None else self.tables.types(self.name)
        frames, nothing = self.maker.align(came, held)
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
