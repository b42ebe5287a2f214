"""Records keep their bytes, and a record that this code cannot read is refused by name.

`tests/doubles/records.txt` has one of each shape: its kind, then its bytes.
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.problems import LedgerProblem, NewerRecord, UnfitRecord
from platform_assets.store.artifacts import canonical, parse
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.alerts import ALERT_QUEUE, ALERTS, DELIVERIES, ENDS, FAILURES
from platform_assets.store.records.attempts import ANNOUNCED, ATTEMPTS, OVERSPENDINGS, PROGRESS
from platform_assets.store.records.base import Record, RecordKind
from platform_assets.store.records.decisions import DECISIONS
from platform_assets.store.records.faults import FAULTS
from platform_assets.store.records.leases import LEASES, SIGNS
from platform_assets.store.records.prediction_log import ATTENDANCE, CLAIMS, INGESTED, KEY_ENDS
from platform_assets.store.records.releases import REFUSALS, RELEASES
from platform_assets.store.records.requests import ANSWERED, INTERVENTIONS, REQUESTS
from platform_assets.store.records.trainings import CHECKPOINTS, TRAININGS
from platform_assets.store.records.verdicts import VERDICTS
from platform_assets.store.records.versions import REBUILD_SNAPSHOTS, REBUILDS

KINDS: dict[str, RecordKind[Record]] = {
    "alerts": ALERTS,
    "alert_ends": ENDS,
    "alert_queue": ALERT_QUEUE,
    "announced": ANNOUNCED,
    "answered": ANSWERED,
    "attempts": ATTEMPTS,
    "attendance": ATTENDANCE,
    "checkpoints": CHECKPOINTS,
    "claims": CLAIMS,
    "decisions": DECISIONS,
    "deliveries": DELIVERIES,
    "failures": FAILURES,
    "faults": FAULTS,
    "ingested": INGESTED,
    "interventions": INTERVENTIONS,
    "key_ends": KEY_ENDS,
    "leases": LEASES,
    "overspendings": OVERSPENDINGS,
    "progress": PROGRESS,
    "rebuilds": REBUILDS,
    "rebuild_snapshots": REBUILD_SNAPSHOTS,
    "refusals": REFUSALS,
    "releases": RELEASES,
    "requests": REQUESTS,
    "signs": SIGNS,
    "trainings": TRAININGS,
    "verdicts": VERDICTS,
}

LINES = Path(__file__).with_name("doubles").joinpath("records.txt").read_bytes().splitlines()
WRITTEN = [(KINDS[ledger.decode()], data) for ledger, data in (line.split(b" ", 1) for line in LINES)]


@pytest.mark.parametrize(("kind", "data"), WRITTEN)
def test_a_record_keeps_its_bytes(kind: RecordKind[Record], data: bytes) -> None:
    assert canonical(kind.read(parse(data), "a place").document()) == data


@pytest.mark.parametrize(("kind", "data"), WRITTEN)
def test_a_newer_format_is_refused_by_name(kind: RecordKind[Record], data: bytes, tmp_path: Path) -> None:
    ledgers, newer = Ledgers(str(tmp_path), "p"), kind.newest + 1
    ledgers.append(kind.ledger, {**parse(data), "format": newer, "later": True})
    message = rf"{kind.ledger}/00000001.json has format {newer}; this code reads formats up to {kind.newest}. Upgrade"
    with pytest.raises(NewerRecord, match=message):
        ledgers.of(kind).latest()


def test_a_number_appears_from_format_2_on() -> None:
    class Second(Record, frozen=True, kw_only=True):
        name: str

    assert Second(name="x").document() == {"name": "x"}
    assert Second(name="x", format=2).document() == {"name": "x", "format": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"later": 1}, "unknown field `later`"),
        ({"first": 7}, r"Expected `str`, got `int` - at `\$.first`"),
        ({"kind": "other"}, "Invalid value 'other'"),
        ({"format": 0}, r"Expected `int` >= 1 - at `\$.format`"),
        ({"format": "two"}, r"Expected `int`, got `str` - at `\$.format`"),
        ({"format": True}, r"Expected `int`, got `bool` - at `\$.format`"),
    ],
)
def test_an_invalid_record_is_refused_with_file_and_member(change: dict[str, object], message: str, tmp_path: Path):
    ledgers = Ledgers(str(tmp_path), "p")
    ledgers.append("requests", {**parse(WRITTEN[0][1]), **change})
    with pytest.raises(UnfitRecord, match=rf"requests/00000001.json is not a record of requests.*{message}") as refused:
        ledgers.of(REQUESTS).at(1)
    assert isinstance(refused.value, LedgerProblem)


NUMBERS = st.integers(0, 10**9) | st.floats(allow_nan=False, allow_infinity=False)
OF_A_STEP = st.fixed_dictionaries(
    {"reason": st.text(), "usd_per_hour": NUMBERS, "wall_s": st.none() | NUMBERS},
    optional={
        "by": st.just("step"),
        "id": st.text(),
        "cutoff": st.text(),
        "is_spot": st.booleans(),
        "steps_done": st.integers(0, 10**6),
        "cpu_s": NUMBERS,
        "format": st.just(1),
    },
)


@given(OF_A_STEP)
def test_numbers_and_absent_members_stay_as_written(document: dict[str, Any]) -> None:
    again = ATTEMPTS.read(document, "a place").document()
    assert canonical(again) == canonical({name: value for name, value in document.items() if name != "format"})


@given(st.dictionaries(st.text(), st.recursive(st.none() | NUMBERS | st.text(), st.lists, max_leaves=5)))
def test_an_alerts_details_stay_as_written(details: dict[str, Any]) -> None:
    document = {"id": "a", "product": "p", "kind": "fault", "text": "t", "at_utc": "2013", "details": details}
    assert canonical(ALERTS.read(document, "a place").document()) == canonical(document)
