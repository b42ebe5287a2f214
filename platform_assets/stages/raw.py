"""Copy what an upstream system delivered, as it landed.

Every cell of text stays text; `source_offset` is the row's place in the file, `arrived_at_utc` when the file landed.
A reader's values have the schema's types, and one that its type cannot hold exactly stands as text in
`unheld_cells`. The file's bytes are kept under their sha256. A file that is missing, empty, cut short or has other
columns fails the step and changes nothing; labels that have not landed yet are no error. A file that is still missing
after the source's deadline is taken as a delivery of no rows, which the judgement of the key (`drift`) calls a fault.
A file that is not known to be whole (`Source.arrives`) is none yet; where nobody says so, a second look tells. A file
with the mark of the one that was taken in (inode, size and time; on S3 of the bytes) is not read again.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Iterable
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import arrivals, digests, naming
from platform_assets.compute import landed
from platform_assets.engine import fields, ranges
from platform_assets.makers.parts import Made
from platform_assets.makers.raw import Landing
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import Landed, StoreResource

STAGE = "raw"
MISSING = "missing"
"""Stands for the digest of a file that never came."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return one asset a source."""
    return [_raw(spec, source) for source in spec.sources]


def _raw(spec: ProductSpec, source: Source) -> dg.AssetsDefinition:
    stage, maker = naming.stage(STAGE, source.name), Landing.of(spec, source)
    code = digests.of(maker)
    shared = fields.asset_args(
        spec, STAGE, source=source.name, system=naming.DATA, kinds=("deltalake", "polars"), doc=__doc__, code=code
    )

    @dg.asset(**shared, **fields.keyed(spec, source))
    def raw(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        keys, tables = ranges.keys_of(context, source), store.tables(spec.name)
        intake = arrivals.Intake(context, store, spec, source, code)
        intake.look(keys)
        source.columns()  # or a sentence about what the schema lacks

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            records = tables.records(stage, chunk)
            digests = {key: intake.known(key, records.get(key)) for key in chunk}
            known = {key: digest for key, digest in digests.items() if digest is not None}
            files = _landed(context, store, spec, source, intake, [key for key in chunk if key not in known])
            for key, file in files.items():
                _name_hidden_change(context, records.get(key), file)

            def make(stale: tuple[str, ...]) -> dict[str, Made]:
                # Another run may have replaced a record since; then its file is read after all.
                late = _landed(context, store, spec, source, intake, [key for key in stale if key not in files])
                return {stage: _made(store, tables, stage, maker, {key: (files | late)[key] for key in stale})}

            return ranges.Plan(
                inputs={key: {"file": known.get(key) or _digest(files[key])} for key in chunk if key in known | files},
                make=make,
            )

        done = ranges.advance(context, tables, [stage], keys, code, plan)
        return ranges.report(context, done, stage, shared["key"], shows_columns=True)

    return raw


def _landed(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    spec: ProductSpec,
    source: Source,
    intake: arrivals.Intake,
    keys: Iterable[str],
) -> dict[str, Landed | arrivals.Gap]:
    """Return the files of the keys, a gap for one that missed its deadline; without labels that have not landed."""
    files: dict[str, Landed | arrivals.Gap] = {}
    for key in keys:
        try:
            files[key] = intake.take(key)
            continue
        except FileNotFoundError as problem:
            gap, told = arrivals.Gap(), f"{problem}"
        except arrivals.Unfinished as problem:
            gap = arrivals.Gap(f"{problem}")
            place = naming.landing_place(store.settings.root, spec.landing_of(source), key, source.suffix)
            told = f"{place} {problem}."
        if _is_overdue(store, spec, source, key):
            files[key] = gap
        elif not source.is_label:
            raise dg.Failure(
                f"{told} Deliver it, then materialise {naming.stage(STAGE, source.name)} again from {key}.",
                metadata={"missing_key": key},
                allow_retries=False,
            ) from None
        if gap.why:
            context.log.warning(f"{told} {'The key goes on without it.' if key in files else 'It is left for later.'}")
    return files


def _name_hidden_change(
    context: dg.AssetExecutionContext, record: PartitionRecord | None, file: Landed | arrivals.Gap
) -> None:
    """Say when a file's bytes are others than its record's though its mark is the same."""
    if isinstance(file, arrivals.Gap) or record is None or record.notes.get("mark") != file.mark:
        return
    then, now = f"{record.inputs.get('file')}", _digest(file)
    if then != now:
        context.log.warning(
            f"{file.uri} has other bytes than when it was taken in (sha256 {then[:12]} then, {now[:12]} now), though "
            f"its mark {file.mark} is the same: something rewrote it and set its time back. It is taken in anew."
        )


def _digest(file: Landed | arrivals.Gap) -> str:
    return MISSING if isinstance(file, arrivals.Gap) else sha256(file.data)


def _is_overdue(store: StoreResource, spec: ProductSpec, source: Source, key: str) -> bool:
    """Tell whether a key must be closed without this source; labels are late by nature and never overdue."""
    due_at = None if source.is_label or source.is_slow else spec.due_at(source, key)
    if due_at is None:
        return False
    try:
        return store.now(spec.name, is_live=spec.is_live) >= due_at
    except LookupError:
        return False


def _made(
    store: StoreResource, tables: TableStore, stage: str, maker: Landing, files: dict[str, Landed | arrivals.Gap]
) -> Made:
    came = {key: _rows(maker, file) for key, file in files.items() if isinstance(file, Landed)}
    frames, nothing = maker.alike(came, {} if maker.read is None else tables.types(stage))
    return Made(
        frames={key: frames.get(key, nothing) for key in files},
        notes={key: _notes(store, file) for key, file in files.items()},
    )


def _rows(maker: Landing, file: Landed) -> pl.DataFrame:
    try:
        return maker.rows(file.data, file.arrived_at_utc)
    except landed.UnreadableFile as problem:
        raise dg.Failure(
            f"{file.uri} cannot be taken in: {problem}",
            metadata={"uri": file.uri, "bytes": len(file.data)},
            allow_retries=False,
        ) from problem


def _notes(store: StoreResource, file: Landed | arrivals.Gap) -> dict[str, Any]:
    if isinstance(file, arrivals.Gap):
        return {"is_missing": True, **({"why": file.why} if file.why else {})}
    return {
        "uri": file.uri,
        "sha256": store.artifacts.put(file.data, compressed=True),
        "bytes": len(file.data),
        "arrived_at_utc": file.arrived_at_utc.isoformat(),
        "mark": file.mark,
    }
