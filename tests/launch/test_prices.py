"""The expected cost of the next training: as measured, as stated, or the maximum of its attempts."""

from dataclasses import replace
from typing import Any

import pytest

from platform_assets.engine.product_files import load
from platform_assets.launch import prices, profiles
from platform_assets.product.spec import Product, Retraining, Training
from platform_assets.store.records.attempts import Attempt
from tests.doubles import attempts
from tests.doubles import numbered_batches as batches

MEASURED = Attempt(
    cutoff="0020", fingerprint="f", reason="finished", profile="cpu_small", usd_per_hour=0.08, wall_s=45_000.0
)


def spec(profile: str = "cpu_small", hours: float | None = None) -> Product:
    return replace(batches.SPEC, training=Training(profile=profile), retraining=Retraining(expected_hours=hours))


@pytest.mark.parametrize(
    ("profile", "usd", "reason"),
    [
        ("cpu_small", 3.36, "at most, as a first one on cpu_small: 0.08 USD per hour x 6 h x 7 tries"),
        ("gpu", 104.58, "2.49 USD per hour x 6 h x 7 tries"),
        ("gpu_spot", 128.34, "0.99 USD per hour x 6 h x 4 tries and 2.49 USD per hour x 6 h x 7 tries"),
    ],
)
def test_the_first_training_on_a_profile_may_cost_price_times_deadline_times_attempts(
    profile: str, usd: float, reason: str
) -> None:
    result = prices.next_training(spec(profile))
    assert result.usd == pytest.approx(usd)
    assert reason in result.reason
    assert "state Retraining.expected_hours" in result.advice
    assert f"platform_assets/products/{batches.SPEC.name}.py" in result.advice


def test_stated_hours_replace_the_maximum_of_attempts() -> None:
    result = prices.next_training(spec("gpu", 0.5))
    assert result.usd == pytest.approx(1.245)
    assert result.reason == "Retraining.expected_hours is 0.5, at 2.49 USD per hour"


def test_the_measured_cost_counts_with_the_stated_hours_as_its_floor() -> None:
    assert prices.next_training(spec(), attempts.newest_first(MEASURED)) == prices.Expected(usd=1.0)
    assert prices.next_training(spec("cpu_small", 1.0), attempts.newest_first(MEASURED)).usd == 1.0
    larger = prices.next_training(spec("cpu_small", 20.0), attempts.newest_first(MEASURED))
    assert larger.usd == pytest.approx(1.6), "the stated hours show that the next takes longer"
    assert "expected_hours is 20" in larger.reason


@pytest.mark.parametrize("profile", ["gpu", "gpu_spot", "cpu_spot"])
def test_after_a_change_of_profile_the_next_training_counts_as_the_first(profile: str) -> None:
    result = prices.next_training(spec(profile), attempts.newest_first(MEASURED))
    assert result.usd == prices.next_training(spec(profile)).usd
    assert f"at most, as a first one on {profile}: " in result.reason


def test_a_changed_deadline_changes_the_maximum_of_a_first_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(profiles.PROFILES, "gpu", profiles.PROFILES["gpu"].replace(deadline_s=1800.0))
    assert prices.next_training(spec("gpu")).usd == pytest.approx(2.49 * 0.5 * 7)


@pytest.mark.parametrize("hours", [0, -1.0, float("nan"), float("inf"), True, "2"])
def test_hours_are_a_positive_number(hours: Any) -> None:
    with pytest.raises(ValueError, match=r"Retraining.expected_hours is .*; expected a number( above 0,)? or None"):
        Retraining(expected_hours=hours)


def test_hours_beyond_all_attempts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected_hours is 43.0.* on cpu_small takes at most 42 h"):
        prices.check_hours(spec("cpu_small", 43.0))


def test_the_first_training_of_every_shipped_product_fits_its_budget() -> None:
    for item in (load("flight_delays"), load("garment_photos")):  # a product of one's own need not have a budget
        assert item.retraining.monthly_budget_usd is not None
        assert item.retraining.expected_hours is not None
        assert 0 < prices.next_training(item).usd < item.retraining.monthly_budget_usd
        assert prices.over_budget(item) is None
