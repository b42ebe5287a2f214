"""Copy the files that an upstream system delivered, as they landed.

Cells of text stay text; `source_offset` is the row's position in the file, `arrived_at_utc` the time the file landed. A
reader's values have the schema's types; a value that does not fit its type exactly is stored as text in
`unheld_cells`. A record of CSV that is not a row (too few fields, a misplaced quote) keeps its place as a row of nulls,
with its lines and text in `broken_record`. The file's bytes are stored under their sha256. Columns that the source does
not declare are left out, and noted. A file that cannot be read (empty, truncated, without a declared column, or refused
by the source's reader) is a delivery without rows, and so is one that is still missing after the source's deadline: the
judgement of the key (`drift`) reports it as a fault, and other keys go on. A file that is missing before its deadline
fails the step and changes nothing; missing labels are not an error. A file not known to be complete (`Source.arrives`)
counts as missing; if nothing marks it as complete, a second look decides. A file whose mark (inode, size and time; on
S3 the ETag) is unchanged is not read again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.data import arrivals, landing_reports, owners
from platform_assets.data.columns import in_short
from platform_assets.data.landed import UnreadableFile
from platform_assets.data.landing_reports import landing_key
from platform_assets.data.materialisations import SourceAsset
from platform_assets.data.raw_maker import Landing
from platform_assets.engine import partitions
from platform_assets.engine.digests import reads
from platform_assets.engine.key_checks import KeyCheck
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
from platform_assets.engine.stage import Stage
from platform_assets.product.channel_sites import ChannelProblem
from platform_assets.product.channels import Landed
from platform_assets.product.spec import Product, Source
from platform_assets.store.artifacts import sha256
from platform_assets.store.records.notes import Raw
from platform_assets.store.tables import PartitionRecord

STAGE = "raw"
MISSING = "missing"
"""Replaces the digest of a file that never came."""
CHECK = "is_readable"


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield one stage per source."""
    for source in spec.sources:
        yield Stage(
            spec=spec,
            name=STAGE,
            source=source,
            system=naming.DATA,
            kinds=("deltalake", "polars"),
            doc=__doc__,
            maker=Landing.for_source(spec, source),
            run=_RawRun,
            deps=_deps(spec, source),
            outside=outside,
            checks={CHECK: "The delivery of the key could be read. Blocks nothing: a key that cannot is held."},
        )


def landings(spec: Product) -> list[dg.AssetSpec]:
    """Return the folders that files land in; the sensor `landings` reports what does."""
    keys = partitions.definition(partitions.keys_of(spec))
    return [
        dg.AssetSpec(
            landing_key(spec, source),
            group_name=spec.group(naming.DATA),
            owners=[spec.owner],
            tags={naming.TAG_STAGE: "landing", naming.TAG_PRODUCT: spec.name},
            kinds={"file"},
            description=f"Watch landing/{spec.landing_of(source)}, into which the upstream system delivers. "
            f"[Its page](/assets/{landing_key(spec, source).to_user_string()})\n\n"
            f"{inspect.cleandoc(source.description)}",
            partitions_def=None if source.is_slow else keys,
        )
        for source in spec.sources
        if source.is_landed
    ]


def _deps(spec: Product, source: Source) -> list[dg.AssetDep]:
    """Return what a source takes its rows from; of an asset all partitions: the run finds those that it needs."""
    if source.asset is None:
        return [dg.AssetDep(landing_key(spec, source))] if source.is_landed else []
    return [dg.AssetDep(dg.AssetKey(source.asset.path), partition_mapping=dg.AllPartitionMapping())]


class _RawRun(KeyedRun[Landing]):
    def __init__(self, stage: Stage[Landing], context: dg.AssetExecutionContext) -> None:
        """Prepare the run without reading anything."""
        super().__init__(stage, context)
        self._intake = arrivals.Intake(context, self.product, self.source, self.code)
        self._kept: dict[str, str] = {}
        self._new: dict[str, str] = {}

    def work(self) -> Iterator[Any]:
        """Look at the files of all keys first; one that nothing marks as complete is looked at again later."""
        try:
            owners.claim(self.product)
            if self.source.asset is not None:
                graph = self.context.job_def.asset_layer.asset_graph
                asset = SourceAsset(
                    instance=self.context.instance, product=self.product, source=self.source, graph=graph
                )
                for clause in asset.note_newest(self.keys):
                    self.context.log.info(f"noted {clause}")
            self._intake.look(self.keys)
            yield from super().work()
            if self.source.is_landed:
                channel = self.product.channels[self.source.name]
                landing_reports.report(self.context.instance, self.spec, self.source, channel, self._new)
        except (ChannelProblem, owners.NameTaken) as problem:
            raise dg.Failure(f"{problem}", allow_retries=False) from problem

    def plan(self, chunk: Keys) -> Plan:
        records = self.tables.records(self.name, chunk)
        digests = {key: self._intake.recorded_digest(key, records.get(key)) for key in chunk}
        unchanged = {key: digest for key, digest in digests.items() if digest is not None}
        files = self._intake.files((key for key in chunk if key not in unchanged), records)
        for key, file in files.items():
            record = records.get(key)
            if record is not None and isinstance(file, Landed) and Raw.of(record).mark == file.mark:
                then, now = f"{record.inputs.get('file')}", _digest(file)
                if then != now:
                    self.context.log.warning(
                        f"{file.uri} has changed since it was taken in (sha256 {then[:12]} then, {now[:12]} now), "
                        f"though its mark {file.mark} is the same: something rewrote it and reset its time. It is "
                        "taken in again."
                    )
            files[key] = self._unless_lost(record, self._unless_unreadable(record, file))
        kept = {key: file.why for key, file in files.items() if isinstance(file, arrivals.Kept)}
        self._kept |= kept
        unchanged |= {key: f"{records[key].inputs.get('file')}" for key in kept}

        def make(stale: Keys) -> dict[str, StageOutput]:
            with reads.guarded(self.spec.module, self.maker):
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
        """Return whether each key's delivery could be read; the notes of keys whose earlier one is kept say so."""
        records = done.records[self.name]
        kept = {key: {**records[key].notes, "kept": reason} for key, reason in self._kept.items()}
        notes = {key: Raw.of(record) for key, record in records.items()}
        self._new = {key: note.mark for key, note in notes.items() if note.mark and key not in done.memoised}
        unreadable = {key: note.unreadable for key, note in notes.items() if note.unreadable}
        unreadable |= self._kept if self.source.is_slow else {}
        checks = {
            key: KeyCheck(
                passed=key not in unreadable,
                description=f"{self.source.name} of {key} cannot be read: {unreadable[key]} A new file is taken in by "
                "itself."
                if key in unreadable
                else f"{self.source.name} of {key} could be read.",
            )
            for key in notes
        }
        return Report(notes=kept, checks={CHECK: checks})

    def _unless_lost(self, record: PartitionRecord | None, file: arrivals.File) -> arrivals.File:
        """Return a delivery, or what is kept where the source has lost the rows that an earlier channel delivered."""
        if record is None or not record.rows or not self._intake.is_other_channel(record):
            return file
        if not isinstance(file, Landed):
            return file
        try:
            with reads.guarded(self.spec.module, self.maker):
                rows, _ = self.maker.rows(file.data, file.arrived_at_utc, record.key)
        except UnreadableFile:
            return file
        return file if rows.height else self._intake.keep(record, f"{file.uri} has no row for the key now") or file

    def _unless_unreadable(self, record: PartitionRecord | None, file: arrivals.File) -> arrivals.File:
        """Return a slow table's delivery, or what is kept of the one before, because every key needs the table."""
        if not self.source.is_slow or record is None or not isinstance(file, Landed):
            return file
        try:
            with reads.guarded(self.spec.module, self.maker):
                self.maker.rows(file.data, file.arrived_at_utc, record.key)
        except UnreadableFile as problem:
            return self._intake.keep(record, f"{file.uri} cannot be taken in: {f'{problem}'.rstrip('.')}") or file
        return file

    def _compute(self, files: arrivals.Files) -> StageOutput:
        types = {} if self.maker.read is None else self.tables.types(self.name)
        landed = {key: file if isinstance(file, Landed) else None for key, file in files.items()}
        with reads.guarded(self.spec.module, self.maker):
            frames, taken = self.maker.make(landed, types)
        notes = {key: self._notes(file) for key, file in files.items()}
        for key, file in files.items():
            if isinstance(file, Landed) and (problem := taken[key].unreadable):
                if self.source.is_slow:  # every key needs it, and there is none before it
                    raise dg.Failure(
                        f"{file.uri} cannot be taken in: {problem}",
                        metadata={"uri": file.uri, "bytes": len(file.data)},
                        allow_retries=False,
                    ) from problem
                self.context.log.warning(
                    f"{file.uri} cannot be taken in: {problem} The key goes on without its rows, and will be held."
                )
                notes[key] = replace(notes[key], unreadable=f"{problem}")
            elif taken[key].undeclared:
                notes[key] = replace(notes[key], undeclared=tuple(taken[key].undeclared))
        # A column is named where it comes first: the keys after that have it too, and would repeat the warning.
        keys = [key for key in notes if notes[key].undeclared]
        before: Sequence[str] = self._undeclared_before(keys[0]) if keys else ()
        for key in keys:
            names = [name for name in notes[key].undeclared if name not in self.spec.declared_by_twins(self.source)]
            if names and names != [*before]:
                self.context.log.warning(
                    f"{self.source.name} of {key} has columns that its schema does not declare: {in_short(names)}. "
                    "They are left out, from this key on without another warning. Declare them to use them."
                )
            before = names
        return StageOutput(frames=frames, notes={key: note.document() for key, note in notes.items()})

    def _undeclared_before(self, key: str) -> Sequence[str]:
        """Return the undeclared columns of the delivery before a key's; of a slow table, of the one taken in before."""
        if key != naming.UNPARTITIONED:
            place = self.spec.grain.index(key)
            if not place:
                return ()
            key = self.spec.grain.key_at(place - 1)
        record = self.tables.records(self.name, [key]).get(key)
        return () if record is None else Raw.of(record).undeclared

    def _notes(self, file: arrivals.File) -> Raw:
        if not isinstance(file, Landed):
            return Raw(is_missing=True, why=file.why or None)
        return Raw(
            uri=file.uri,
            sha256=self.product.artifacts.put(file.data, compressed=True),
            bytes=len(file.data),
            arrived_at_utc=file.arrived_at_utc.isoformat(),
            mark=file.mark,
            channel=self._intake.identity,
        )


def _digest(file: arrivals.File) -> str:
    return sha256(file.data) if isinstance(file, Landed) else MISSING
