"""A process opens a table once for its writes, and never writes with the handle of a table that was replaced."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import deltalake
import obstore
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.store import handles, objects, record_index
from platform_assets.store.tables import TableProblem, TableStore
from tests.doubles.faulty_s3 import Faults

pytestmark = pytest.mark.slow

STAGE = "features"

ON_A_FOLDER = pytest.mark.parametrize("root", ["folder"], indirect=True)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    handles._kept.clear()
    yield
    handles._kept.clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts, real = Counter[str](), deltalake.DeltaTable

    def counting(location: str, *arguments: Any, **options: Any) -> deltalake.DeltaTable:
        table = real(location, *arguments, **options)  # a table that is not there yet is not counted
        counts["records" if "/records/" in location else "rows"] += 1
        return table

    monkeypatch.setattr(deltalake, "DeltaTable", counting)
    return counts


def write(store: TableStore, key: str, number: int) -> None:
    store.replace(STAGE, {key: pl.DataFrame({"number": [number]})}, inputs={key: {"raw": str(number)}}, code="code")


def numbers(store: TableStore) -> dict[str, int]:
    record_index._tables.clear()
    keys = list(store.records(STAGE))
    return dict(store.read(STAGE, keys).select("key", "number").iter_rows()) if keys else {}


@pytest.mark.costly
def test_a_process_opens_a_table_once_for_all_its_writes(store: TableStore, opened: Counter[str]) -> None:
    for number in range(25):  # several checkpoints, and records are folded
        write(store, f"{number % 7:04d}", number)
    assert opened == {"rows": 1, "records": 1}
    assert numbers(store) == {f"{number % 7:04d}": number for number in range(25)}


def test_a_table_that_was_read_is_not_opened_again_to_be_written(store: TableStore, opened: Counter[str]) -> None:
    write(store, "0001", 1)
    handles._kept.clear()
    opened.clear()
    assert numbers(store) == {"0001": 1}
    write(store, "0002", 2)
    assert opened == {"records": 1, "rows": 1}


OTHER = """
import sys
import polars as pl
from platform_assets.store.tables import TableStore

root, key, number = sys.argv[1:]
frame = pl.DataFrame({"number": [int(number)]})
TableStore(root, "tiny").replace("features", {key: frame}, inputs={key: {}}, code="code")
"""


@pytest.mark.costly
def test_commits_of_other_processes_are_read_before_the_next_one(store: TableStore, opened: Counter[str]) -> None:
    for number in range(3):
        write(store, "0001", number)
        subprocess.run([sys.executable, "-c", OTHER, store.root, "0002", str(number)], check=True)
    write(store, "0003", 7)
    assert opened == {"rows": 1, "records": 1}
    assert numbers(store) == {"0001": 2, "0002": 2, "0003": 7}
    assert len({record.sequence for record in store.records(STAGE).values()}) == 3


@pytest.mark.costly
@ON_A_FOLDER
@pytest.mark.parametrize("versions", [1, 3, 7])
def test_a_table_in_the_place_of_another_is_written_as_it_is(store: TableStore, tmp_path: Path, versions: int) -> None:
    """By the old table's handle, its log would have a gap, or a checkpoint would name files of the old table."""
    for number in range(4):
        write(store, "0001", number)
    other = TableStore(str(tmp_path / "other"), "tiny")
    for number in range(versions):
        write(other, "0002", number)
    shutil.rmtree(store.root)
    shutil.copytree(other.root, store.root)
    for number in range(12):
        write(store, "0003", number)
    assert numbers(store) == {"0002": versions - 1, "0003": 11}
    for location in (
        naming.table_location(store.root, "tiny", STAGE),
        naming.records_location(store.root, "tiny", STAGE),
    ):
        log = sorted(int(path.stem) for path in Path(location, "_delta_log").glob("*[0-9].json"))
        assert log == list(range(len(log)))
        files = [Path(uri.removeprefix("file://")) for uri in deltalake.DeltaTable(location).file_uris()]
        assert [file for file in files if not file.exists()] == []


@ON_A_FOLDER
def test_a_removed_table_is_created_again(store: TableStore) -> None:
    write(store, "0001", 1)
    shutil.rmtree(store.root)
    write(store, "0002", 2)
    assert numbers(store) == {"0002": 2}


@pytest.mark.parametrize("torn", [b"", b'{"commitInfo":{"ope', bytes(200)])
@pytest.mark.parametrize("locate", [naming.table_location, naming.records_location])
def test_a_commit_that_was_torn_meanwhile_is_undone(
    store: TableStore, locate: Callable[[str, str, str], str], torn: bytes
) -> None:
    write(store, "0001", 1)
    location = locate(store.root, "tiny", STAGE)
    newest = deltalake.DeltaTable(location).version()
    obstore.put(objects.open_store(location), handles.log_file(newest + 1), torn)
    write(store, "0002", 2)
    assert numbers(store) == {"0001": 1, "0002": 2}


def test_a_write_that_failed_keeps_no_handle(store: TableStore, opened: Counter[str]) -> None:
    write(store, "0001", 1)
    write(store, "0002", 2)
    text = pl.DataFrame({"number": ["one"]})
    with pytest.raises(TableProblem, match="column types changed"):
        store.replace(STAGE, {"0001": text}, inputs={"0001": {}}, code="code")
    opened.clear()
    write(store, "0001", 3)
    assert opened == {"rows": 1}
    assert numbers(store) == {"0001": 3, "0002": 2}


def test_threads_that_write_at_once_lose_nothing(store: TableStore) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: write(store, f"{number:04d}", number), range(12)))
    assert numbers(store) == {f"{number:04d}": number for number in range(12)}


def test_other_credentials_get_a_handle_and_a_client_of_their_own(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, opened: Counter[str]
) -> None:
    store = TableStore(s3_root, "tiny")
    write(store, "0001", 1)
    assert objects.open_store(s3_root) is objects.open_store(s3_root)
    mine = objects.open_store(s3_root)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert objects.open_store(s3_root) is not mine
    with pytest.raises(TableProblem, match="refuses our key"):
        write(store, "0002", 2)
    monkeypatch.undo()


def test_a_store_that_refuses_is_named_and_asked_no_further(broken_root: str, faults: Faults) -> None:
    store = TableStore(broken_root, "tiny")
    write(store, "0001", 1)
    faults.clear()
    faults.add("HEAD", "_delta_log/", answer=403, times=99)
    with pytest.raises(TableProblem, match=r"tiny/features cannot be opened: .* refuses our key"):
        write(store, "0002", 2)
    assert {method for method, _ in faults.requests} == {"HEAD"}
    faults.clear()
    write(store, "0002", 2)
    assert numbers(store) == {"0001": 1, "0002": 2}


@pytest.mark.parametrize(("most_tables", "most_files", "expected"), [(2, 100, 2), (64, 3, 1), (64, 0, 0)])
@ON_A_FOLDER
def test_few_handles_of_few_files_are_kept(
    store: TableStore, monkeypatch: pytest.MonkeyPatch, most_tables: int, most_files: int, expected: int
) -> None:
    monkeypatch.setattr(handles, "MOST_TABLES", most_tables)
    monkeypatch.setattr(handles, "MOST_FILES", most_files)
    for stage in ("raw", "features", "outcomes"):
        for key in ("0001", "0002"):
            store.replace(stage, {key: pl.DataFrame({"number": [1]})}, inputs={key: {}}, code="code")
    assert len(handles._kept) == expected


def test_a_forked_process_keeps_no_table_handle(tmp_path: Path) -> None:
    code = """
import os, sys
import polars as pl
from platform_assets.store import handles
from platform_assets.store.tables import TableStore

TableStore(sys.argv[1], "tiny").replace("raw", {"0001": pl.DataFrame({"n": [1]})}, inputs={"0001": {}}, code="code")
assert len(handles._kept) == 2
child = os.fork()
if not child:
    os._exit(len(handles._kept))
assert os.waitpid(child, 0)[1] == 0
assert len(handles._kept) == 2
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=True)
