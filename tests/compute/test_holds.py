"""What each kind of fault record means for a key."""

from __future__ import annotations

import pytest

from platform_assets.compute.holds import Hold


@pytest.mark.parametrize(
    ("kind", "is_held", "is_out", "nulled"),
    [
        ("fault", True, True, None),
        ("suspect", True, True, None),
        ("repair", True, True, None),
        ("accept", False, False, None),
        ("repaired", False, False, None),
        ("null", False, False, "feed"),
        ("drop", False, True, None),
    ],
)
def test_kinds(kind: str, is_held: bool, is_out: bool, nulled: str | None) -> None:
    hold = Hold(number=1, record={"kind": kind, "source": "feed"})
    assert (hold.is_held, hold.is_out, hold.nulled_source) == (is_held, is_out, nulled)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'maybe'"):
        Hold(number=1, record={"kind": "maybe"})
