"""The meaning of each kind of fault record for a key."""

import pytest

from platform_assets.store.records.faults import FAULTS, Hold
from tests.doubles import documents


@pytest.mark.parametrize(
    ("kind", "is_held", "is_out", "nulled"),
    [
        ("fault", True, True, None),
        ("repair", True, True, None),
        ("accept", False, False, None),
        ("repaired", False, False, None),
        ("null", False, False, "feed"),
        ("drop", False, True, None),
    ],
)
def test_each_kind_of_record_has_its_meaning(kind: str, is_held: bool, is_out: bool, nulled: str | None) -> None:
    hold = Hold(number=1, record=FAULTS.read(documents.fault(kind, "0001", "feed"), "a place"))
    assert (hold.kind, hold.is_held, hold.is_excluded, hold.nulled_source) == (kind, is_held, is_out, nulled)
