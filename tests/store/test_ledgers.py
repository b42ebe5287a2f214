from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base.problems import LedgerProblem, RecordExists
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from tests.store.test_table_faults import start_together

RELEASES = Path("ledgers", "tiny", "releases")


@pytest.fixture
def ledgers(root: str) -> Ledgers:
    return Ledgers(root, "tiny")


def test_a_keyed_record_is_written_once(ledgers: Ledgers) -> None:
    ledgers.create("decisions", "0009", {"decided": "wait"})
    with pytest.raises(RecordExists, match=r"decisions/0009\.json exists"):
        ledgers.create("decisions", "0009", {"decided": "retrain"})
    assert ledgers.read("decisions", "0009") == {"decided": "wait"}
    assert ledgers.read("decisions", "0010") is None


def test_numbered_records_count_from_one_and_the_latest_wins(ledgers: Ledgers) -> None:
    assert ledgers.latest("releases") is None
    assert ledgers.newest("releases", 3) == []
    assert [ledgers.append("releases", {"n": n}) for n in range(12)] == list(range(1, 13))
    assert ledgers.latest("releases") == (12, {"n": 11})
    assert ledgers.newest("releases", 3) == [(12, {"n": 11}), (11, {"n": 10}), (10, {"n": 9})]
    assert len(ledgers.newest("releases", 99)) == 12
    assert ledgers.at("releases", 1) == {"n": 0}
    assert ledgers.at("releases", 13) is None
    assert [number for number, _ in ledgers.records("releases", 11)] == [11, 12]


def test_ledgers_of_parts_and_products_do_not_mix(root: str, ledgers: Ledgers) -> None:
    assert ledgers.append("faults/0009", {"kind": "fault"}) == 1
    assert ledgers.append("faults/0010", {"kind": "fault"}) == 1
    assert Ledgers(root, "other").append("faults/0009", {"kind": "fault"}) == 1


@settings(max_examples=20)
@given(count=st.integers(0, 40), hint=st.none() | st.integers(0, 60).map(str) | st.sampled_from(["", "-1", "x", "١"]))
def test_a_lost_or_wrong_hint_costs_only_reads(count: int, hint: str | None) -> None:
    with TemporaryDirectory() as root:
        ledgers = Ledgers(root, "tiny")
        for n in range(count):
            ledgers.create_number("releases", n + 1, {"n": n})
        head = Path(root, RELEASES, "HEAD")
        if hint is not None:
            head.parent.mkdir(parents=True, exist_ok=True)
            head.write_text(hint, encoding="utf-8")
        elif count:
            head.unlink()
        assert ledgers.newest_number("releases") == count
        assert ledgers.append("releases", {}) == count + 1


def test_equal_records_are_two_records(ledgers: Ledgers) -> None:
    assert [ledgers.append("releases", {"n": 1}), ledgers.append("releases", {"n": 1})] == [1, 2]
    with pytest.raises(RecordExists):
        ledgers.create_number("releases", 2, {"n": 1})


@pytest.mark.costly
def test_concurrent_processes_get_different_numbers(ledgers: Ledgers, spawn: Any) -> None:
    writers = "abcdefgh"
    children = [spawn(do="append", writer=writer, turns=6) for writer in writers]
    start_together(children)
    numbers_by_writer = {
        writer: child.communicate()[0].split() for writer, child in zip(writers, children, strict=True)
    }
    assert [child.returncode for child in children] == [0] * 8
    records = dict(ledgers.records("releases"))
    assert list(records) == list(range(1, 49))
    for writer in writers:
        assert [records[int(number)] for number in numbers_by_writer[writer]] == [
            {"writer": writer, "turn": n} for n in range(6)
        ]
    assert sorted(int(number) for numbers in numbers_by_writer.values() for number in numbers) == list(records)
    assert ledgers.newest_number("releases") == 48


def test_values_that_are_not_json_are_refused_before_any_write(root: str, ledgers: Ledgers) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        ledgers.append("releases", {"auc": float("nan")})
    assert not open_store(root).list("ledgers").collect()


def test_a_changed_record_is_named(root: str, ledgers: Ledgers) -> None:
    ledgers.append("releases", {"n": 1})
    open_store(root).put("ledgers/tiny/releases/00000001.json", b"{")
    with pytest.raises(LedgerProblem, match=r"00000001\.json is not a JSON object \(1 bytes\)"):
        ledgers.latest("releases")


@pytest.mark.parametrize(
    ("ledger", "key"), [("releases", "../x"), ("a//b", "x"), ("..", "x"), ("releases", ""), ("", "x")]
)
def test_names_that_leave_the_ledger_are_refused(ledgers: Ledgers, ledger: str, key: str) -> None:
    with pytest.raises(ValueError, match="is not a valid path"):
        ledgers.create(ledger, key, {})


def test_a_full_disk_is_reported_and_the_next_record_succeeds(small_disk: Any) -> None:
    root, leave = small_disk
    ledgers = Ledgers(root, "tiny")
    ledgers.append("releases", {"n": 1})
    with leave(0), pytest.raises(LedgerProblem, match=r"00000002\.json could not be written"):
        ledgers.append("releases", {"n": 2})
    assert ledgers.latest("releases") == (1, {"n": 1})
    assert ledgers.append("releases", {"n": 2}) == 2
