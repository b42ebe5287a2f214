"""The content of a release record, and the model a rollback restores."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from platform_assets.evaluation import releases
from platform_assets.store.records.releases import Override, Release

NOON = datetime(2013, 3, 1, 12, tzinfo=UTC)


def _release(digest: str, previous: int | None = None) -> Release:
    return releases.next_release(
        product="flights",
        digest=digest,
        contract_sha256=f"contract of {digest}",
        cutoff=f"cutoff of {digest}",
        reason="passed",
        author="test",
        at=NOON,
        previous=previous,
    )


class _Ledger:
    """Numbered records, as `store.ledgers` keeps them."""

    def __init__(self, *digests: str) -> None:
        self.records = [_release(digest) for digest in digests]

    def newest_first(self):
        return reversed(list(enumerate(self.records, start=1)))

    def roll_back(self) -> str:
        self.records.append(releases.rollback(self.newest_first(), author="test", at=NOON))
        return self.records[-1].digest


def test_release_carries_the_whole_state_of_the_channels():
    record = _release("a" * 64, previous=4)
    assert record.document()["channels"] == {"live": {"digest": "a" * 64, "share": 1.0}}
    assert (record.outcome, record.previous, record.at_utc) == ("released", 4, "2013-03-01T12:00:00+00:00")


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5))])
def test_moment_is_stored_in_utc(zone: timezone):
    record = releases.rollback(_Ledger("a", "b").newest_first(), author="test", at=NOON.astimezone(zone))
    assert record.at_utc == "2013-03-01T12:00:00+00:00"


def test_naive_moment_is_refused():
    with pytest.raises(ValueError, match="without a time zone"):
        releases.rollback(_Ledger("a", "b").newest_first(), author="test", at=NOON.replace(tzinfo=None))


def test_rollback_restores_model_contract_and_cutoff_of_the_previous_release():
    record = releases.rollback(_Ledger("old", "new").newest_first(), author="ada", at=NOON + timedelta(hours=1))
    assert record.document() == {
        "format": 3,
        "product": "flights",
        "channels": {"live": {"digest": "old", "share": 1.0}},
        "contract_sha256": "contract of old",
        "cutoff": "cutoff of old",
        "outcome": "rolled_back",
        "why": "rolled back from release 2 to the model of release 1",
        "by": "ada",
        "at_utc": "2013-03-01T13:00:00+00:00",
        "previous": 2,
        "restores": 1,
        "override": None,
        "previous_sha256": None,
        "verdict_sha256": None,
    }


def test_rollback_to_a_model_without_a_verdict_carries_an_override():
    ledger = _Ledger("a", "b")
    ledger.records[0] = replace(ledger.records[0], override=Override(by="bob", reason="the holdout was broken"))
    record = releases.rollback(ledger.newest_first(), author="ada", at=NOON)
    assert record.override == Override(by="ada", reason="as release 1 by bob: the holdout was broken")


def test_a_persons_reason_is_stored():
    record = releases.rollback(_Ledger("a", "b").newest_first(), author="ada", at=NOON, reason="pages at night")
    assert record.why == "pages at night"


def test_second_rollback_goes_further_back_instead_of_returning():
    ledger = _Ledger("a", "b", "c")
    assert [ledger.roll_back(), ledger.roll_back()] == ["b", "a"]
    with pytest.raises(releases.NoEarlierRelease, match="no other model before release 1"):
        ledger.roll_back()


def test_release_after_a_rollback_rolls_back_to_a_released_model():
    ledger = _Ledger("a", "b")
    ledger.roll_back()
    ledger.records.append(_release("c"))
    assert ledger.roll_back() == "b"


@pytest.mark.parametrize("digests", [(), ("a",), ("a", "a")])
def test_rollback_without_another_model_is_an_error(digests: tuple[str, ...]):
    with pytest.raises(releases.NoEarlierRelease, match=r"nothing has been released|no other model"):
        _Ledger(*digests).roll_back()


@given(digests=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_rollbacks_end_and_never_repeat_a_model_in_a_row(digests: list[str]):
    ledger = _Ledger(*digests)
    for _ in range(len(digests) + 1):
        before = ledger.records[-1].digest
        try:
            after = ledger.roll_back()
        except releases.NoEarlierRelease:
            return
        assert after != before
    raise AssertionError("more rollbacks than releases")
