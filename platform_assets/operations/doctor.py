"""Examine everything that a product has stored, and rebuild lost records: `driftline doctor PRODUCT [--repair]`.

Reads records, the rows they name, ledgers, and released bundles. Changes nothing without `repair`; with it, only
records that cannot be read are replaced, and the old ones stay under another name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem, NewerRecord, UnfitRecord
from platform_assets.base.wording import counted
from platform_assets.store import damage, rebuilding, upkeep
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.store.history import snapshots
from platform_assets.store.history.reader import History
from platform_assets.store.problems import TableProblem
from platform_assets.store.records.notes import Stored
from platform_assets.store.tables import PartitionRecord, TableStore

CHECKPOINT = "checkpoint"
MADE_TOGETHER = ("validated", "quarantine")


def run(root: str, product: str, *, is_repairing: bool) -> int:
    """Print what is wrong with a product's store and what was repaired; return 0 when nothing is wrong afterwards.

    Repaired parts are examined again. Records of a stage without rows, such as a checkpoint, can be rebuilt only from
    what is left of them, so repairing one returns 1: something may be missing.
    """
    examined = examine(root, product, lambda part: print(f"  {part}", file=sys.stderr, flush=True))
    problems = counted(len(examined.findings), "problem") if examined.findings else "no problems"
    print(
        f"{product}: {counted(examined.stages, 'stage')} with {counted(examined.records, 'record')}, and "
        f"{counted(examined.ledgers, 'ledger')} were read; {problems}."
    )
    for finding in examined.findings:
        print(f"- {finding.problem} {finding.advice}")
    if not is_repairing or not examined.findings:
        return 1 if examined.findings else 0
    repaired = list(repair(root, product, examined))
    print("\n".join(sentence for sentence, _ in repaired))
    return 0 if all(is_whole for _, is_whole in repaired) and not examine(root, product).findings else 1


def has_stored(root: str, product: str) -> bool:
    """Tell whether anything is stored of a product, whose file may be gone."""
    return bool(_stages(root, product) or damage.ledger_files(root, product))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with the store.

    Attributes:
        problem: one sentence.
        advice: what to do about it.
        stage: whose records can be rebuilt; None where none can.
    """

    problem: str
    advice: str
    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was read, and what is wrong with it."""

    records: int
    stages: int
    ledgers: int
    findings: tuple[Finding, ...]


def examine(root: str, product: str, progress: Callable[[str], None] = lambda _: None) -> Examined:
    """Read everything that a product has stored, and name what is wrong.

    Args:
        progress: takes the name of each part before it is read.
    """
    tables, artifacts, findings, count = TableStore(root, product), ArtifactStore(root), list[Finding](), 0
    stages = _stages(root, product)
    for stage in stages:
        progress(stage)
        try:
            records = tables.records(stage)
        except TableProblem as problem:
            advice = "`--repair` makes them again from what is left and from the log of the rows."
            findings.append(Finding(problem=str(problem), advice=advice, stage=stage))
            continue
        count += len(records)
        findings += _damaged(tables, artifacts, stage, records)
        if stage == snapshots.FEATURES:
            findings += _snapshots(tables, records)
    ledgers = damage.ledger_files(root, product)
    for ledger, names in ledgers.items():
        progress(ledger)
        advice = "Put the file back from a backup; it cannot be made again."
        damaged = damage.damaged_records(root, product, ledger, names)
        findings += [Finding(problem=_without_advice(problem), advice=advice) for problem in damaged]
    progress("releases")
    findings += _releases(root, product)
    return Examined(records=count, stages=len(stages), ledgers=len(ledgers), findings=tuple(findings))


def _stages(root: str, product: str) -> list[str]:
    of_records = upkeep.table_locations(root, naming.records_location("", product, ""))
    of_rows = upkeep.table_locations(root, naming.table_location("", product, ""))
    return sorted({location.rsplit("/", 1)[1] for location in (*of_records, *of_rows)})


def repair(root: str, product: str, examined: Examined) -> Iterator[tuple[str, bool]]:
    """Rebuild the records that cannot be read; yield what was done, and whether nothing can be missing, by stage.

    Raises:
        TableProblem: the rows cannot be opened either.
    """
    aside = datetime.now(UTC).strftime(f"{upkeep.ASIDE}%Y%m%dT%H%M%S")
    with_rows = {
        location.rsplit("/", 1)[1] for location in upkeep.table_locations(root, naming.table_location("", product, ""))
    }
    for stage in (finding.stage for finding in examined.findings if finding.stage is not None):
        records = rebuilding.rebuild(root, product, stage)
        rebuilding.restore(root, product, stage, records, aside)
        bare = sum(record.notes == rebuilding.IS_REBUILT for record in records)
        parts = [f"{stage}: {counted(len(records), 'record')} rebuilt"]
        if bare:
            parts.append(f", {bare} of them from rows alone; those keys are made again when they are materialised")
        if stage not in with_rows:
            parts.append(
                "; it has no rows to make others from, so materialise the stage for the keys that it lacks now"
            )
        parts.append(f". The old table is {naming.records_location(root, product, stage)}{aside}.")
        yield "".join(parts), stage in with_rows


def _damaged(
    tables: TableStore, artifacts: ArtifactStore, stage: str, records: Mapping[str, PartitionRecord]
) -> Iterator[Finding]:
    """Yield what is wrong with the rows, sketches, blobs and files that records name, by key."""
    damaged = tables.damaged(stage, records)
    # Dagster's command line accepts all stages that one step makes together, or none of them.
    name, _, source = stage.partition("_")
    together = [f"{part}_{source}" for part in MADE_TOGETHER] if name in MADE_TOGETHER and source else [stage]
    for key, record in records.items():
        again = f"Materialise {' and '.join(together)} for {key} to rebuild what is damaged."
        if key in damaged:
            yield Finding(problem=f"{stage}: the rows of {key} are not those that its record names.", advice=again)
        try:
            stored = Stored.of(record)
        except UnfitRecord as problem:
            yield Finding(problem=f"{stage}: {problem}", advice=again)
            continue
        if stored.sketch is not None and not artifacts.is_whole(stored.sketch, compressed=True):
            yield Finding(problem=f"{stage}: the sketch of {key} cannot be read.", advice=again)
        if stage == CHECKPOINT and not artifacts.is_whole(record.content_digest, naming.CHECKPOINT_BLOBS):
            yield Finding(problem=f"{stage}: the checkpoint of {key} is incomplete or damaged.", advice=again)
        if stored.sha256 is not None and not artifacts.is_whole(stored.sha256, compressed=True):
            yield Finding(
                problem=f"{stage}: the copy of the file that landed for {key} cannot be read.",
                advice=f"No step reads it; keep the original, {stored.uri}.",
            )


def _snapshots(tables: TableStore, features: Mapping[str, PartitionRecord]) -> Iterator[Finding]:
    """Yield older snapshots of slow tables that the records of features name and that cannot be read."""
    for stage in sorted({stage for record in features.values() for stage in record.inputs}):
        try:
            is_slow = set(tables.records(stage)) == {naming.UNPARTITIONED}
        except TableProblem:
            continue  # the records of that stage have a finding of their own
        recorded = snapshots.by_name(tables, stage) if is_slow else {}
        keys: dict[str, list[str]] = {}
        for key, record in features.items():
            keys.setdefault(record.inputs.get(stage, ""), []).append(key)
        for name in keys.keys() - {"", next(iter(recorded), "")} if recorded else ():
            snapshot = recorded.get(name)
            if snapshot is None or tables.damaged(stage, {snapshot.key: snapshot}):
                problem, advice = snapshots.lost(tables.product, stage, keys[name], "cannot be read")
                yield Finding(problem=problem, advice=advice)


def _releases(root: str, product: str) -> Iterator[Finding]:
    """Yield what is wrong with the releases and their bundles."""
    artifacts, history = ArtifactStore(root), History(root, product)
    try:
        digests = {record.digest for _, record in history.releases()}
    except (NewerRecord, UnfitRecord) as problem:
        yield Finding(problem=str(problem), advice="Upgrade Driftline, or put the file back from a backup.")
        return
    except LedgerProblem:
        return  # named above
    for digest in sorted(digests):
        advice = "Put the blob back from a backup, or retrain: the release of this model cannot be served."
        try:
            bundle = artifacts.bundle(digest)
            for name in bundle.names:
                bundle.read(name)
        except (LedgerProblem, ArtifactProblem, ValueError) as problem:
            yield Finding(problem=_without_advice(str(problem)), advice=advice)


def _without_advice(problem: str) -> str:
    return problem.removesuffix(" Put the file back from a backup.")
