"""Write to a store step by step, and record each acknowledged step: `python -m proof.chaos.r1_work ROOT`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl

from platform_assets.store import partition_records
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore

PRODUCT = "tiny"
STAGES = ("raw", "features")
ROUNDS, FOLD_AT = 11, 5
"""Enough that the records of a stage are folded and checkpoints of the log are written."""
DONE = "done"
"""File below the root with one line per acknowledged step."""


def rows(number: int) -> pl.DataFrame:
    """Return the rows of one round: 40, different from those of any other."""
    return pl.DataFrame({"round": [number] * 40, "place": range(40), "text": [f"row {number}"] * 40})


def key_of(number: int) -> str:
    """Return the key that a round writes: every third round rewrites an earlier one."""
    return f"{number // 3 if number % 3 == 2 else number:04d}"


def steps(root: str) -> list[tuple[str, Callable[[], object]]]:
    """Return the work by name, in order; any step may be repeated."""
    tables, ledgers, artifacts = TableStore(root, PRODUCT), Ledgers(root, PRODUCT), ArtifactStore(root)
    todo: list[tuple[str, Callable[[], object]]] = []
    for number in range(ROUNDS):
        key = key_of(number)
        todo += [(f"table {stage} {number}", _replacing(tables, stage, key, number)) for stage in STAGES]
        facts, blobs = {"number": number}, {"model": f"model {number}".encode() * 100}
        todo.append((f"bundle {number}", _bundling(artifacts, tables, key, facts, blobs)))
        todo.append((f"keyed {number}", _creating(ledgers, number)))
        todo.append((f"numbered {number}", _appending(ledgers, number)))
    return todo


def _replacing(tables: TableStore, stage: str, key: str, number: int) -> Callable[[], object]:
    inputs = {key: {"round": str(number)}}
    return lambda: tables.replace(stage, {key: rows(number)}, inputs=inputs, code="code")


def _bundling(
    artifacts: ArtifactStore, tables: TableStore, key: str, facts: dict[str, int], blobs: dict[str, bytes]
) -> Callable[[], object]:
    def bundle() -> None:
        digest = artifacts.write_bundle(blobs, facts)
        if (existing := tables.records("onnx", [key]).get(key)) is None or existing.content_digest != digest:
            tables.record("onnx", key, content_digest=digest, inputs={}, code="code")

    return bundle


def _creating(ledgers: Ledgers, number: int) -> Callable[[], object]:
    def create() -> None:
        if ledgers.read("decisions", f"{number:04d}") is None:
            ledgers.create("decisions", f"{number:04d}", {"number": number})

    return create


def _appending(ledgers: Ledgers, number: int) -> Callable[[], object]:
    def append() -> None:
        if number + 1 > ledgers.newest_number("releases"):
            ledgers.append("releases", {"number": number})

    return append


def main() -> None:
    root = sys.argv[1]
    partition_records.FOLD_AT = FOLD_AT
    done = os.open(Path(root, DONE), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for name, do in steps(root):
        do()
        os.write(done, f"{name}\n".encode())


if __name__ == "__main__":
    main()
