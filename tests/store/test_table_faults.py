"""Tables under races, kills and full disks; `child.py` is the other process."""

import signal
from collections import Counter
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from platform_assets.base import naming
from platform_assets.store import delta, upkeep
from platform_assets.store.tables import PartitionRecord, TableProblem, TableStore
from tests.doubles.faulty_s3 import Faults

pytestmark = pytest.mark.slow

KEYS = ("0001", "0002")


def write(store: TableStore, writer: str, keys: tuple[str, ...] = KEYS, size: int = 50) -> dict[str, PartitionRecord]:
    frame = pl.DataFrame({"writer": [writer] * size, "turn": [0] * size, "place": list(range(size))})
    inputs = {key: {"writer": f"{writer}-0"} for key in keys}
    return store.replace("features", dict.fromkeys(keys, frame), inputs=inputs, code="code")


def check_consistent(store: TableStore, keys: tuple[str, ...] = KEYS) -> None:
    """Check that each key holds one writer's turn, complete, with that writer's record, and nothing twice."""
    records = store.records("features", keys)
    for key in keys:
        content = store.read("features", [key])
        writers = set(content.select("writer", "turn").iter_rows())
        assert {f"{writer}-{turn}" for writer, turn in writers} == {records[key].inputs["writer"]}
        assert content["place"].to_list() == list(range(50))


def start_together(children: list[Any]) -> None:
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()


@pytest.mark.costly
def test_processes_replacing_the_same_keys_leave_one_consistent_content(store: TableStore, spawn: Any) -> None:
    children = [spawn(do="replace", writer=writer, keys=KEYS, turns=5) for writer in ("a", "b", "c")]
    start_together(children)
    calls = 0
    while any(child.poll() is None for child in children):
        if len(store.records("features", KEYS)) == len(KEYS):
            assert store.read("features", KEYS).height == 100
            calls += 1
    assert [child.returncode for child in children] == [0, 0, 0]
    assert calls
    check_consistent(store)
    table = delta.open_table(naming.table_location(store.root, "tiny", "features"))
    assert table is not None
    newest = pl.concat([pl.read_parquet(file, hive_partitioning=True) for file in table.file_uris()])
    assert newest.height == 100
    assert {record.sequence for record in store.records("features").values()} == {table.version()}


@pytest.mark.costly
def test_processes_replacing_different_keys_do_not_disturb_each_other(store: TableStore, spawn: Any) -> None:
    children = [spawn(do="replace", writer=writer, keys=[key], turns=4) for writer, key in zip("ab", KEYS, strict=True)]
    start_together(children)
    assert [child.wait() for child in children] == [0, 0]
    check_consistent(store)
    assert {key: record.inputs["writer"] for key, record in store.records("features").items()} == {
        "0001": "a-3",
        "0002": "b-3",
    }


def test_a_writer_that_always_loses_gives_up_with_a_clear_error(store: TableStore, monkeypatch: pytest.MonkeyPatch):
    old = write(store, "old")
    counts = Counter[str]()

    def conflict(*_: Any, **__: Any) -> None:
        from deltalake.exceptions import CommitFailedError

        counts["writes"] += 1
        raise CommitFailedError("a concurrent transaction added new data")

    monkeypatch.setattr("deltalake.write_deltalake", conflict)
    monkeypatch.setattr(delta, "LONGEST_WAIT_S", 0.0)
    with pytest.raises(TableProblem, match="could not be written in 20 attempts, others kept writing the same keys"):
        write(store, "new")
    assert counts["writes"] == delta.COMMIT_ATTEMPTS
    assert store.records("features") == old


BOUNDARIES = [(1, "before"), (1, "after"), (2, "before"), (2, "after")]


@pytest.mark.costly
@pytest.mark.parametrize(("number", "when"), BOUNDARIES)
def test_a_process_killed_at_a_write_boundary_leaves_the_old_or_the_new_content(
    store: TableStore, spawn: Any, number: int, when: str
) -> None:
    """The calls are: 1 the rows' commit, 2 the records'."""
    write(store, "old")
    before = store.read("features", KEYS)
    kill = {"call": "write_deltalake", "when": when, "number": number}
    child = spawn(do="replace", writer="new", keys=KEYS, kill=kill)
    child.communicate("go\n")
    assert child.returncode == -signal.SIGKILL
    is_done = (number, when) == (2, "after")
    check_consistent(store)
    if not is_done:
        assert_frame_equal(store.read("features", KEYS), before)
        upkeep.tidy(store.root, "tiny", dry_run=False, retention_hours=0)
        assert_frame_equal(store.read("features", KEYS), before)
    write(store, "next")
    check_consistent(store)
    assert set(store.read("features", KEYS)["writer"]) == {"next"}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_process_killed_on_its_first_write_leaves_nothing_and_the_next_recovers(
    store: TableStore, spawn: Any, number: int
) -> None:
    """The calls are: 1 the table's creation, 2 the rows' commit, 3 the records' table's creation."""
    kill = {"call": "write_deltalake", "when": "after", "number": number}
    child = spawn(do="replace", writer="new", keys=KEYS, kill=kill)
    child.communicate("go\n")
    assert child.returncode == -signal.SIGKILL
    assert store.records("features") == {}
    write(store, "next")
    check_consistent(store)


def test_a_full_disk_is_reported_at_every_write_and_the_old_content_stays(small_disk: Any) -> None:
    root, leave = small_disk
    store = TableStore(root, "tiny")
    write(store, "old")
    outcomes = Counter[str]()
    for room in (*range(0, 4096, 1024), *range(4096, 60_000, 8192)):
        old = store.records("features")
        before = store.read("features", KEYS)
        message = None
        try:
            with leave(room):
                write(store, f"new{room}")
        except TableProblem as problem:
            message = str(problem)
        if message is not None:
            assert "could not be written and stays as it was" in message
            assert store.records("features") == old
            assert_frame_equal(store.read("features", KEYS), before)
        else:
            assert set(store.read("features", KEYS)["writer"]) == {f"new{room}"}
        outcomes["written" if message is None else "told"] += 1
        check_consistent(store)
    assert outcomes["told"] > 1
    assert outcomes["written"] > 1
    write(store, "next")
    assert set(store.read("features", KEYS)["writer"]) == {"next"}


BROKEN = [
    pytest.param({"answer": 0, "is_done": True}, id="done and dropped"),
    pytest.param({"answer": 500, "is_done": True}, id="done and 500"),
    pytest.param({"answer": 0}, id="dropped"),
    pytest.param({"answer": 503}, id="slow down"),
]


@pytest.mark.costly
@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("version", [0, 1], ids=["creation", "rows"])
@pytest.mark.parametrize("table", ["tables", "records"])
def test_a_commit_whose_response_is_lost_is_written_once(
    broken_root: str, faults: Faults, table: str, version: int, fault: dict[str, int]
) -> None:
    store = TableStore(broken_root, "tiny")
    faults.add("PUT", f"/{table}/tiny/features/_delta_log/{version:020d}.json", **fault)
    write(store, "first")
    assert len(faults.met) == 1
    check_consistent(store)
    check_nothing_twice(store)


@pytest.mark.costly
@pytest.mark.parametrize("fault", [*BROKEN, pytest.param({"answer": 409}, id="conflict")])
@pytest.mark.parametrize("table", ["tables", "records"])
def test_a_replacement_whose_response_is_lost_leaves_no_old_rows(
    broken_root: str, faults: Faults, table: str, fault: dict[str, int]
) -> None:
    store = TableStore(broken_root, "tiny")
    write(store, "old")
    faults.add("PUT", f"/{table}/tiny/features/_delta_log/", **fault)
    write(store, "new")
    assert len(faults.met) == 1
    assert {record.inputs["writer"] for record in store.records("features").values()} == {"new-0"}
    check_consistent(store)
    check_nothing_twice(store)
    write(store, "next", KEYS[:1])
    assert store.read("features", KEYS)["writer"].unique(maintain_order=True).to_list() == ["next", "new"]
    check_nothing_twice(store)


@pytest.mark.parametrize("fault", BROKEN)
def test_rows_whose_upload_breaks_are_uploaded_again(broken_root: str, faults: Faults, fault: dict[str, int]) -> None:
    store = TableStore(broken_root, "tiny")
    write(store, "old")
    faults.add("PUT", "/tables/tiny/features/key=0002/", **fault)
    write(store, "new")
    check_consistent(store)
    check_nothing_twice(store)


def test_reading_survives_a_flaky_server(broken_root: str, faults: Faults) -> None:
    store = TableStore(broken_root, "tiny")
    write(store, "old")
    faults.add("GET", "/tables/", answer=503)
    faults.add("GET", "/records/", answer=500)
    faults.add("HEAD", "/tables/", answer=503)
    check_consistent(store)
    assert len(faults.met) >= 2


def check_nothing_twice(store: TableStore) -> None:
    table = delta.open_table(naming.table_location(store.root, "tiny", "features"))
    assert table is not None
    stored_rows = pl.concat([pl.read_parquet(file, hive_partitioning=True) for file in table.file_uris()])
    assert stored_rows.height == stored_rows.unique(["key", "place"]).height == 100
    records = delta.open_table(naming.records_location(store.root, "tiny", "features"))
    assert records is not None
    stored_records = pl.read_parquet(records.file_uris(), columns=["key", "sequence"])
    assert stored_records.height == stored_records.unique().height
