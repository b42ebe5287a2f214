"""Stores whose last write had not reached the disk when the power failed."""

import os
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem, RecordExists
from platform_assets.store import delta, durable, record_index
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.tables import TableProblem, TableStore
from tests.store.test_handles import STAGE, numbers, write


def files(root: str, below: str, suffix: str) -> list[str]:
    paths = [item["path"] for batch in obstore.list(open_store(root), below) for item in batch]
    return sorted(path for path in paths if path.endswith(suffix))


def logs(store: TableStore) -> list[str]:
    return files(store.root, f"records/tiny/{STAGE}/_delta_log", ".json")


def newest_rows(store: TableStore) -> str:
    (added,) = (
        action.add.path
        for action in delta.actions(naming.records_location(store.root, "tiny", STAGE), len(logs(store)) - 1)
        if action.add
    )
    return f"records/tiny/{STAGE}/{added}"


TORN: dict[str, Callable[[TableStore], tuple[str, Callable[[bytes], bytes]]]] = {
    "the log's last file is empty": lambda store: (logs(store)[-1], lambda _: b""),
    "the log's last file is half": lambda store: (logs(store)[-1], lambda data: data[: len(data) // 2]),
    "the log's last file is zeros": lambda store: (logs(store)[-1], lambda data: bytes(len(data))),
    "the newest records are empty": lambda store: (newest_rows(store), lambda _: b""),
    "the newest records are half": lambda store: (newest_rows(store), lambda data: data[: len(data) // 2]),
}


def change(root: str, path: str, transform: Callable[[bytes], bytes]) -> None:
    store = open_store(root)
    obstore.put(store, path, transform(bytes(obstore.get(store, path).bytes())))


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_torn_newest_record_is_absent_and_its_key_can_be_written(
    store: TableStore, tear: Callable[[TableStore], tuple[str, Callable[[bytes], bytes]]]
) -> None:
    for key, number in (("a", 1), ("b", 2), ("a", 3)):
        write(store, key, number)
    change(store.root, *tear(store))
    assert numbers(store) == {"a": 1, "b": 2}
    assert numbers(store) == {"a": 1, "b": 2}
    write(store, "a", 4)
    write(store, "c", 5)
    assert numbers(store) == {"a": 4, "b": 2, "c": 5}


def test_the_first_commit_may_be_torn_too(store: TableStore) -> None:
    write(store, "a", 1)
    for path in logs(store):
        change(store.root, path, lambda _: b"")
    for path in files(store.root, f"tables/tiny/{STAGE}/_delta_log", ".json"):
        change(store.root, path, lambda _: b"")
    assert numbers(store) == {}
    write(store, "a", 2)
    assert numbers(store) == {"a": 2}


@pytest.mark.parametrize("transform", [lambda _: b"", lambda data: data[:50]], ids=["empty", "half"])
def test_a_torn_checkpoint_is_replaced_by_the_log(store: TableStore, transform: Callable[[bytes], bytes]) -> None:
    for number in range(10):
        write(store, "ab"[number % 2], number)
    for kind in ("records", "tables"):
        (path,) = files(store.root, f"{kind}/tiny/{STAGE}/_delta_log", ".checkpoint.parquet")
        change(store.root, path, transform)
    assert numbers(store) == {"a": 8, "b": 9}
    write(store, "a", 10)
    assert numbers(store) == {"a": 10, "b": 9}


def test_an_empty_older_commit_is_reported_and_not_skipped(store: TableStore) -> None:
    for number in range(4):
        write(store, "a", number)
    change(store.root, logs(store)[2], lambda _: b"")
    record_index._tables.clear()
    for act in (lambda: store.records(STAGE), lambda: write(store, "b", 1)):
        with pytest.raises(TableProblem, match=r"0002\.json is empty though later commits follow.*driftline doctor"):
            act()


def test_an_empty_older_file_of_records_is_reported(store: TableStore) -> None:
    write(store, "a", 1)
    oldest = newest_rows(store)
    write(store, "a", 2)
    change(store.root, oldest, lambda _: b"")
    record_index._tables.clear()
    with pytest.raises(TableProblem, match=r"the records at .* cannot be read: .*driftline doctor"):
        store.records(STAGE)


def test_empty_files_at_the_end_of_a_ledger_are_not_records(root: str) -> None:
    ledgers = Ledgers(root, "tiny")
    for number in (1, 2, 3):
        ledgers.append("releases", {"n": number})
    ledgers.create("decisions", "a", {"n": 1})
    for path in ("releases/00000002.json", "releases/00000003.json", "releases/HEAD", "decisions/a.json"):
        change(root, f"ledgers/tiny/{path}", lambda _: b"")
    assert ledgers.latest("releases") == (1, {"n": 1})
    assert list(ledgers.records("releases")) == [(1, {"n": 1})]
    assert ledgers.newest("releases", 9) == [(1, {"n": 1})]
    assert ledgers.read("decisions", "a") is None
    assert ledgers.append("releases", {"n": 4}) == 2
    ledgers.create_number("releases", 3, {"n": 5})
    with pytest.raises(RecordExists):
        ledgers.create_number("releases", 3, {"n": 6})
    ledgers.create("decisions", "a", {"n": 2})
    assert [record["n"] for _, record in ledgers.records("releases")] == [1, 4, 5]
    assert ledgers.read("decisions", "a") == {"n": 2}


def test_an_empty_record_followed_by_others_is_reported(root: str) -> None:
    ledgers = Ledgers(root, "tiny")
    for number in range(4):
        ledgers.append("releases", {"n": number})
    change(root, "ledgers/tiny/releases/00000002.json", lambda _: b"")
    assert ledgers.latest("releases") == (4, {"n": 3})
    with pytest.raises(LedgerProblem, match=r"00000002\.json is empty though later records follow"):
        list(ledgers.records("releases"))


@pytest.mark.parametrize("root", ["folder"], indirect=True)
def test_a_file_gets_its_name_after_its_bytes_reached_the_disk(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    link, fsync = os.link, os.fsync

    def synced(file: int) -> None:
        paths.append(f"fsync {Path(f'/proc/self/fd/{file}').readlink().name.split('#')[0]}")
        fsync(file)

    def linked(old: Path, new: Path) -> None:
        paths.append(f"link {new.name}")
        link(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    assert durable.create(Path(root, "a", "b"), b"x")
    assert paths[:3] == ["fsync b", "link b", "fsync a"]
    assert paths[3] == f"fsync {Path(root).name}"
    assert not durable.create(Path(root, "a", "b"), b"y")
    assert Path(root, "a", "b").read_bytes() == b"x"
    assert sorted(path.name for path in Path(root, "a").iterdir()) == ["b"]
