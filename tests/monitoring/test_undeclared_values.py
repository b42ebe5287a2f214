"""A key whose features had too many rows set aside fails."""

import polars as pl
import pytest

from platform_assets.data import declared
from platform_assets.monitoring import undeclared_values
from platform_assets.product.fields import Field


@pytest.mark.parametrize(("aside", "is_failing"), [(0, False), (1, False), (2, True)])
def test_a_key_fails_above_the_share_that_a_source_may_have_in_quarantine(aside: int, is_failing: bool) -> None:
    rows = pl.DataFrame({"speed": [1.0] + [None] * aside}, schema={"speed": pl.Float64})
    _, reasons = declared.split(rows, (Field(name="speed", dtype="float", description=""),))
    check = undeclared_values.check(100 - aside, declared.notes(reasons), 0.01)
    assert (check is not None) is is_failing
    if check is not None:
        assert (check.source, check.check, check.is_failing) == ("the features", "undeclared_values", True)
        assert check.came == "2 of 100 rows set aside (2.0%), 2 of them because speed is null and not nullable"
        assert check.expected == "at most 1.0%"
