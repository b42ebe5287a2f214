"""Notes of partition records are read by their types, also those of older and newer code; damaged ones are named."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.problems import UnfitRecord
from platform_assets.base.settings import Settings
from platform_assets.operations import doctor
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.records import notes
from platform_assets.store.tables import TableStore
from tests.doubles import recorded

KINDS = (notes.Raw, notes.Validated, notes.Features, notes.Predictions, notes.Drift, notes.Stored, notes.Service)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = sorted({name for kind in KINDS for name in kind.__struct_fields__})


def record(**noted: Any) -> PartitionRecord:
    of = {"stage": "raw_readings", "key": "2020-01-02", "content_digest": "0", "code_digest": "0"}
    return PartitionRecord(**of, sequence=1, rows=0, inputs={}, notes=noted)


def test_missing_and_additional_members_of_other_versions_are_not_errors() -> None:
    assert notes.Raw.of(record(mark="m", colour="green")) == notes.Raw(mark="m")
    assert notes.Notes.of(record()).cpu_s == 0


@given(noted=st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_notes_are_read_or_refused(noted: dict[str, Any]) -> None:
    for kind in KINDS:
        with suppress(UnfitRecord):
            assert isinstance(kind.of(record(**noted)), kind)


def test_the_doctor_names_torn_notes_and_looks_at_the_others(settings: Settings) -> None:
    tables = TableStore(settings.root, recorded.SPEC.name)
    torn, lost = {"sha256": 7}, {"sha256": "0" * 64, "uri": "landing/x.csv"}
    for key, noted in (("2020-01-02", torn), ("2020-01-03", lost)):
        tables.record("raw_readings", key, content_digest="0", inputs={}, code="0", notes=noted)
    findings = [finding.problem for finding in doctor.examine(settings.root, recorded.SPEC.name).findings]
    assert any("raw_readings 2020-01-02 has notes" in finding and "`int`" in finding for finding in findings)
    assert any("the copy of the file that landed for 2020-01-03" in finding for finding in findings)
