"""Records cached in memory equal those of a fresh read of the table."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base import naming
from platform_assets.store import delta, record_index, upkeep
from platform_assets.store.partition_records import PartitionRecord, Records
from platform_assets.store.problems import TableProblem

pytestmark = pytest.mark.slow

STAGE = "features"


def record(key: str, sequence: int, digest: str = "x") -> PartitionRecord:
    return PartitionRecord(
        stage=STAGE,
        key=key,
        sequence=sequence,
        rows=1,
        content_digest=digest,
        inputs={},
        code_digest="c",
        notes={"n": []},
    )


def records_at(root: str) -> Records:
    return Records(root, "tiny", STAGE)


COMMIT = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from("xy")), min_size=1, max_size=3)
STEP = st.one_of(COMMIT, st.sampled_from(["fold", "remove"]))


@pytest.mark.costly
@settings(max_examples=25)
@given(st.lists(STEP, max_size=8), st.sampled_from([2, 4_096]))
def test_any_history_reads_the_same_with_and_without_the_cache(steps: list[Any], most: int) -> None:
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "MOST_ROWS", most)
        records = records_at(root)
        for step in steps:
            if step == "fold":
                if (table := delta.open_table(naming.records_location(root, "tiny", STAGE))) is not None:
                    table.optimize.compact()
                upkeep.tidy(root, "tiny", dry_run=False, retention_hours=0)
            elif step == "remove":
                shutil.rmtree(naming.records_location(root, "tiny", STAGE), ignore_errors=True)
            else:
                records.append(record(*arguments) for arguments in step)
            expected = records.newest(), {digest: records.exact(dict.fromkeys("abc", digest)) for digest in "xy"}
            record_index._tables.clear()
            fresh = records.newest(), {digest: records.exact(dict.fromkeys("abc", digest)) for digest in "xy"}
            assert expected == fresh
            assert records.newest(["b"]) == {
                key: newest_record for key, newest_record in fresh[0].items() if key == "b"
            }


def test_an_unchanged_table_is_not_opened_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_at(root)
    records.append([record("a", 1)])
    assert records.newest() == {"a": record("a", 1)}
    with monkeypatch.context() as patch:
        patch.setattr(delta, "open_table", lambda location: pytest.fail(f"{location} was opened"))
        assert records_at(root).newest(["a", "b"]) == {"a": record("a", 1)}
    records.append([record("a", 2)])
    assert records.newest() == {"a": record("a", 2)}


def test_writes_of_another_process_are_seen_at_once(root: str) -> None:
    records = records_at(root)
    records.append([record("a", 1)])
    assert records.newest() == {"a": record("a", 1)}
    write = "import sys; from tests.store.test_record_index import *; records_at(sys.argv[1]).append([record('a', 2)])"
    subprocess.run([sys.executable, "-c", write, root], check=True, cwd=Path(__file__).parents[2])
    assert records.newest() == {"a": record("a", 2)}


def test_a_replaced_table_with_as_many_versions_is_noticed(tmp_path: Path) -> None:
    root = str(tmp_path)
    records = records_at(root)
    for name in ("old", "new"):
        shutil.rmtree(naming.records_location(root, "tiny", STAGE), ignore_errors=True)
        assert records.newest() == {}
        records.append([record(name, 1)])
        records.append([record(name, 2)])
        assert list(records.newest()) == [name]


def test_a_caller_cannot_change_the_cached_records(tmp_path: Path) -> None:
    records = records_at(str(tmp_path))
    records.append([record("a", 1)])
    records.newest()["a"].notes["n"].append("mine")
    assert records.newest() == {"a": record("a", 1)}


def test_an_unreadable_log_is_reported_and_the_next_read_is_fresh(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_at(root)
    records.append([record("a", 1)])
    records.newest()
    with monkeypatch.context() as patch:
        patch.setattr("obstore.head", _refuse)
        with pytest.raises(TableProblem, match=r"cannot be opened: no more requests\."):
            records.newest()
    assert records.newest() == {"a": record("a", 1)}


def _refuse(*_: Any) -> None:
    raise OSError("no more requests")


@pytest.mark.costly
def test_concurrent_threads_read_everything_written_before(tmp_path: Path) -> None:
    records = records_at(str(tmp_path))

    def write_and_read(number: int) -> bool:
        records.append([record(f"{number}", 1)])
        return f"{number}" in records.newest()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(40)))
    assert len(records.newest()) == 40


def test_the_number_of_cached_tables_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "MOST_TABLES", 2)
    for number in range(4):
        Records(str(tmp_path), f"p{number}", STAGE).newest()
    assert len(record_index._tables) == 2
