"""The drift index by hand, and on streams where it must not alarm."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.monitoring import drift_index
from platform_assets.training.reference import MIX, Counts, Reference, reference_of

COUNTS = st.lists(st.integers(0, 1_000), min_size=2, max_size=12).filter(any)


def reference(*keys: list[int]) -> Reference:
    return reference_of({f"{index:04d}": {"x": counts} for index, counts in enumerate(keys)})


def test_psi_by_hand() -> None:
    """Two bins, 3 to 1 against 1 to 3: shares 3.5/5 and 1.5/5, so 2 * 0.4 * ln(7/3)."""
    assert drift_index.psi(np.array([3, 1]), np.array([1, 3])) == pytest.approx(0.8 * math.log(7 / 3))


def test_an_empty_bin_is_unlikely_and_not_infinite() -> None:
    assert 0 < drift_index.psi(np.array([10, 0]), np.array([5, 5])) < 2


@given(COUNTS, st.data())
def test_psi_is_never_negative_symmetric_and_zero_for_the_same_shares(counts: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(0, 1_000), min_size=len(counts), max_size=len(counts)).filter(any))
    first, second = np.array(counts), np.array(other)
    assert drift_index.psi(first, second) >= 0
    assert drift_index.psi(first, second) == pytest.approx(drift_index.psi(second, first))
    assert drift_index.psi(first, first) == 0


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="has no rows"):
        drift_index.psi(np.array([0, 0]), np.array([1, 2]))


def test_each_window_is_measured_against_the_keys_outside_of_it() -> None:
    ref = reference([4, 0], [3, 1], [0, 4], [2, 2])
    result = drift_index.window_psi(ref, 2)
    expected = [
        drift_index.psi(np.array(inside), np.array(outside))
        for inside, outside in (([7, 1], [2, 6]), ([3, 5], [6, 2]), ([2, 6], [7, 1]))
    ]
    assert result == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected more than a window of 4"):
        drift_index.window_psi(ref, 4)


def test_the_index_is_the_mean_over_fields_against_all_keys_except_its_own() -> None:
    of = [{"x": [index, 9 - index], "y": [5, index]} for index in (1, 2, 3, 4, 5)]
    ref = reference_of({f"{index}": counts for index, counts in enumerate(of)})
    result = drift_index.index({"4": of[4], "5": {"x": [9, 0], "y": [0, 9]}}, ref, limit=0.99, margin=1.25)
    x = float(drift_index.psi(np.array([14, 4]), np.array([10, 26])))
    y = float(drift_index.psi(np.array([5, 14]), np.array([20, 10])))
    assert result.fields == pytest.approx({"x": x, "y": y})
    assert result.mean_psi == pytest.approx((x + y) / 2)
    assert (result.windows, result.percentile, result.is_drift, result.keys) == (3, 1.0, True, ("4", "5"))
    windows = drift_index.window_psi(ref.without(["4"]), 2)
    assert result.limit == pytest.approx(1.25 * np.quantile(windows, 0.99))


def test_other_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="'x' has 3 bins; the reference has 2"):
        drift_index.index({"9": {"x": [1, 1, 1]}}, reference([1, 2], [2, 1], [1, 1]), limit=0.99, margin=1.25)


def test_a_reference_is_plain_json_and_gives_back_each_key() -> None:
    ref = reference([4, 0], [3, 1])
    again = Reference.from_json(json.loads(json.dumps(ref.to_json())))
    assert again.keys == ref.keys and again.histograms_of("0001") == {"x": [3, 1]}
    assert again.without(["0000"]).keys == ("0001",)
    with pytest.raises(ValueError, match="has format 9"):
        Reference.from_json({"format": 9})


def alarms(histograms: list[Counts], trained: int, *, width: int = 7) -> tuple[int, int]:
    """Return in how many weeks after the training keys the index alarms, and how many weeks there are."""
    keys = [f"{index:04d}" for index in range(len(histograms))]
    of = dict(zip(keys, histograms, strict=True))
    ref = reference_of({key: of[key] for key in keys[:trained]})
    weeks = [keys[index : index + width] for index in range(trained, len(keys) - width + 1, width)]
    result = [drift_index.index({key: of[key] for key in week}, ref, limit=0.99, margin=1.25) for week in weeks]
    return sum(item.is_drift for item in result), len(weeks)


def stream(generator: np.random.Generator, keys: int, fields: int = 12) -> list[Counts]:
    """Return histograms of keys that differ as days do: the rows of a day are not independent."""
    days = generator.gamma(2.0, size=(keys, fields, 10))
    return [
        {f"f{field}": generator.multinomial(300, share / share.sum()).tolist() for field, share in enumerate(day)}
        for day in days
    ]


@pytest.mark.slow
@pytest.mark.parametrize("trained", [45, 120])
def test_at_most_two_percent_of_weeks_alarm_with_keys_in_any_order(trained: int) -> None:
    generator = np.random.default_rng(trained)
    counted = [alarms(stream(generator, 365), trained) for _ in range(3)]
    assert sum(result for result, _ in counted) <= 0.02 * sum(weeks for _, weeks in counted)


def test_a_lasting_change_alarms() -> None:
    generator = np.random.default_rng(5)
    changed = [{name: counts[5:] + counts[:5] for name, counts in day.items()} for day in stream(generator, 21)]
    sloped = np.linspace(2.0, 0.2, 10)
    usual = [
        {name: np.round(np.array(counts) * sloped).astype(int).tolist() for name, counts in day.items()}
        for day in stream(generator, 60)
    ]
    steep = [
        {name: np.round(np.array(counts) * sloped[::-1]).astype(int).tolist() for name, counts in day.items()}
        for day in changed
    ]
    assert alarms([*usual, *steep], 60) == (3, 3)


@pytest.mark.parametrize(("bins", "rows"), [(10, 4), (10, 100), (10, 500), (2, 20)])
def test_few_answers_from_the_same_distribution_are_not_drift(bins: int, rows: int) -> None:
    """Without the floor every draw of four answers per key would alarm: so small a sample is far from anything."""
    stream = np.random.default_rng(0)
    training = stream.multinomial(500, np.full(bins, 1 / bins), size=30)
    sealed = Reference(keys=tuple(f"{index:02d}" for index in range(30)), fields={MIX: training})
    alarms = 0
    for _ in range(200):
        delivered = stream.multinomial(rows, np.full(bins, 1 / bins), size=5)
        window = {f"w{index}": {MIX: counts.tolist()} for index, counts in enumerate(delivered)}
        alarms += drift_index.index(window, sealed, limit=0.99, margin=1.25, is_floored=True).is_drift
    assert alarms <= 4
    moved = {f"w{index}": {MIX: [500, *[0] * (bins - 1)]} for index in range(5)}
    assert drift_index.index(moved, sealed, limit=0.99, margin=1.25, is_floored=True).is_drift


def test_psi_by_chance_is_a_chi_squared_quantile() -> None:
    """The 99 % quantile is 6.635 with one degree of freedom and 21.666 with nine; the cube approximates both."""
    for freedom, exact in ((1, 6.635), (9, 21.666)):
        counts = np.full(freedom + 1, 1_000 / (freedom + 1))
        assert drift_index.by_chance(counts, counts, 0.99) == pytest.approx(exact * 2 / 1_000, rel=0.01)
