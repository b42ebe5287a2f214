import os
from pathlib import Path

import obstore
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.store import record_index, upkeep
from platform_assets.store.objects import open_store
from platform_assets.store.tables import TableStore

STAGE = "features"


def write(store: TableStore, first: int, count: int) -> None:
    for number in range(first, first + count):
        key = f"{number % 7:04d}"
        store.replace(STAGE, {key: pl.DataFrame({"n": [number]})}, inputs={key: {}}, code="code")


def sizes(root: str) -> dict[str, int]:
    return {item["path"]: item["size"] for batch in obstore.list(open_store(root)) for item in batch}


@pytest.mark.costly
def test_overwritten_files_are_deleted_and_all_content_stays_readable(root: str) -> None:
    store = TableStore(root, "tiny")
    write(store, 0, 23)
    before, content = sizes(root), store.read(STAGE, store.records(STAGE))
    counts = upkeep.tidy(root, "tiny", dry_run=True, retention_hours=0)
    assert sizes(root) == before
    assert counts["log"].files > 40
    assert counts["folded records"].files >= 16
    deleted = upkeep.tidy(root, "tiny", dry_run=False, retention_hours=0)
    after = sizes(root)
    missing = {path: size for path, size in before.items() if path not in after}
    assert sum(missing.values()) == sum(removed.bytes for removed in deleted.values())
    assert deleted == counts
    assert not [path for path in missing if path.startswith(f"tables/tiny/{STAGE}/key=")]
    assert sum(path.endswith(".json") for path in after) <= 2
    record_index._tables.clear()
    assert store.read(STAGE, store.records(STAGE)).equals(content)
    again = upkeep.tidy(root, "tiny", dry_run=False, retention_hours=0)
    assert {removed.files for removed in again.values()} == {0}
    write(store, 23, 12)
    record_index._tables.clear()
    assert store.read(STAGE, ["0006"])["n"].to_list() == [34]


def test_young_files_are_kept(root: str) -> None:
    write(TableStore(root, "tiny"), 0, 12)
    before = sizes(root)
    assert {removed.files for removed in upkeep.tidy(root, "tiny", dry_run=False).values()} == {0}
    assert {removed.files for removed in upkeep.tidy(root, "nothing", dry_run=False).values()} == {0}
    assert sizes(root) == before


def test_old_files_of_killed_writers_are_deleted(tmp_path: Path) -> None:
    root = tmp_path / "store"
    write(TableStore(str(root), "tiny"), 0, 1)
    old, young, other, named = (
        root / naming.blob_path("ab" * 32).replace("ab" * 32, "x#12"),
        root / "tables" / "tiny" / STAGE / "y#3",
        root / "tables" / "other" / "z#3",
        root / "ledgers" / "tiny" / "releases#a",
    )
    for file in (old, young, other, named):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    for file in (old, other, named):
        os.utime(file, (0, 0))
    assert upkeep.tidy(str(root), "tiny", dry_run=False)["unfinished files"] == upkeep.Removed(1, 4)
    assert [file.exists() for file in (old, young, other, named)] == [False, True, True, True]
