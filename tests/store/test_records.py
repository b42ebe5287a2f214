from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base import naming
from platform_assets.store import delta, handles, upkeep
from platform_assets.store.partition_records import FOLD_AT, PartitionRecord, Records


def record(key: str, sequence: int, digest: str = "") -> PartitionRecord:
    return PartitionRecord(
        stage="features",
        key=key,
        sequence=sequence,
        rows=sequence,
        content_digest=digest or f"{key}-{sequence}",
        inputs={"raw": f"{sequence}"},
        code_digest="code",
        notes={"uri": "file", "counts": [1, 2]},
        columns={"z": "Int64", "a": "List Float32"},
        files=(f"key={key}/{sequence}.parquet",),
    )


def test_a_record_is_read_back_as_it_was_written(root: str) -> None:
    records = Records(root, "tiny", "features")
    assert records.newest() == {}
    records.append([record("0002", 7), record("0001", 7)])
    newest_records = records.newest()
    assert newest_records == {"0001": record("0001", 7), "0002": record("0002", 7)}
    assert list(newest_records) == ["0001", "0002"]
    assert list(newest_records["0001"].columns) == ["z", "a"]
    assert records.newest(["0002", "0003"]) == {"0002": record("0002", 7)}


@settings(max_examples=8)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=4), max_size=4))
def test_the_newest_sequence_wins_in_any_order_of_arrival(commits: list[list[tuple[str, int]]]) -> None:
    with TemporaryDirectory() as root:
        records = Records(root, "tiny", "features")
        for commit in commits:
            records.append(record(key, sequence) for key, sequence in commit)
        pairs = [pair for commit in commits for pair in commit]
        newest = {key: max(s for k, s in pairs if k == key) for key, _ in pairs}
        assert {key: item.sequence for key, item in records.newest().items()} == newest
        for key, sequence in pairs:
            assert records.exact({key: f"{key}-{sequence}"}) == {key: record(key, sequence)}


def test_records_are_added_when_another_process_created_the_table_too(root: str, monkeypatch: pytest.MonkeyPatch):
    records = Records(root, "tiny", "features")
    records.append([record("0001", 1)])
    location = naming.records_location(root, "tiny", "features")
    stale, other = delta.open_table(location), delta.open_table(location)
    assert stale is not None
    assert other is not None
    other.alter.set_table_properties({"delta.checkpointInterval": "11"})
    monkeypatch.setattr(handles, "take", lambda _: stale)
    records.append([record("0002", 2)])
    assert set(records.newest()) == {"0001", "0002"}


def test_restored_content_is_found_at_its_newest_location(root: str) -> None:
    records = Records(root, "tiny", "features")
    for sequence, digest in enumerate(["x", "y", "x"]):
        records.append([record("0001", sequence, digest)])
    assert records.exact({"0001": "x"})["0001"].sequence == 2
    assert records.exact({"0001": "y"})["0001"].sequence == 1
    assert records.exact({"0001": "z", "0002": "x"}) == {}
    assert [(one.content_digest, one.sequence) for one in records.versions("0001")] == [("x", 2), ("y", 1)]


@pytest.mark.costly
def test_many_small_commits_leave_only_a_few_files(root: str) -> None:
    records = Records(root, "tiny", "features")
    for number in range(2 * FOLD_AT + 3):
        records.append([record(f"{number:04d}", number)])
        table = delta.open_table(naming.records_location(root, "tiny", "features"))
        assert table is not None
        assert len(table.file_uris()) < FOLD_AT
    assert len(records.newest()) == 2 * FOLD_AT + 3
    upkeep.tidy(root, "tiny", dry_run=False, retention_hours=0)
    assert len(records.newest()) == 2 * FOLD_AT + 3


def test_memoisation_requires_the_same_inputs_and_code() -> None:
    first = record("0001", 1)
    assert first.matches({"raw": "1"}, "code")
    assert not first.matches({"raw": "2"}, "code")
    assert not first.matches({"raw": "1", "weather": "2"}, "code")
    assert not first.matches({"raw": "1"}, "other")
