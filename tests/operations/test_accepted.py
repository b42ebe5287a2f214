"""Training spend is attributed to accepted models; nothing is counted twice or lost."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from platform_assets.launch import costs
from platform_assets.operations import accepted
from platform_assets.store.records.attempts import Attempt
from platform_assets.store.records.releases import RELEASES, Channel, Channels
from tests.doubles import documents
from tests.doubles.attempts import newest_first, oldest_first
from tests.launch.test_costs import ATTEMPTS

HOUR = Attempt(reason="finished", wall_s=3600.0, usd_per_hour=1.0, step="train")


def attempt(cutoff: str, reason: str = "finished", **more: Any) -> Attempt:
    return replace(HOUR, **{"cutoff": cutoff, "fingerprint": f"f{cutoff}", "reason": reason, **more})


def release(number: int, cutoff: str, digest: str = "", outcome: str = "released") -> accepted.Numbered:
    document = documents.release(cutoff, outcome=outcome)
    channels = Channels(live=Channel(digest=digest or f"d{cutoff}", share=1.0))
    return number, replace(RELEASES.read(document, ""), channels=channels)


def attributed(attempts: pl.DataFrame, releases: list[accepted.Numbered]) -> pl.DataFrame:
    return accepted.attributed(attempts, releases).with_columns(month=pl.lit("2024-") + pl.col("cutoff"))


def models(attempts: pl.DataFrame, releases: list[accepted.Numbered]) -> list[tuple[Any, ...]]:
    return accepted.models(attributed(attempts, releases)).rows()


def test_failed_and_rejected_attempts_count_towards_the_next_accepted_model() -> None:
    attempts = oldest_first(
        attempt("01", "preempted", steps_done=100, steps_lost=25),
        attempt("01"),
        attempt("02", "failed: ValueError: no"),
        attempt("03"),
        attempt("04"),
        attempt("05"),
    )
    releases = [release(1, "01"), release(2, "04")]
    assert models(attempts, releases) == [
        ("2024-01", 1, "01", 2.0),
        ("2024-04", 2, "04", 3.0),
        ("2024-05", None, None, 1.0),
    ]
    assert attributed(attempts, releases)["wasted_usd"].to_list() == [0.25, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_months_count_attempts_trainings_cost_and_waste() -> None:
    attempts = oldest_first(
        attempt("01", "preempted"), attempt("01"), attempt("01", step="export"), attempt("02", "code"), attempt("02")
    )
    spent = accepted.attributed(attempts, []).with_columns(month=pl.lit("2024-") + pl.col("cutoff"))
    assert accepted.months(spent).rows() == [("2024-02", 2, 1, 2.0, 1.0), ("2024-01", 3, 1, 3.0, 1.0)]
    failed = accepted.attributed(oldest_first(attempt("02", "code")), []).with_columns(month=pl.lit("2024-02"))
    assert accepted.months(failed).rows() == [("2024-02", 1, 0, 1.0, 1.0)]


def test_trials_count_in_their_month_and_towards_no_model() -> None:
    trials = [attempt("01", reason, step="trial", fingerprint="t1") for reason in ("killed", "finished")]
    attempts = oldest_first(attempt("01"), trials[0], attempt("02"), trials[1], attempt("03"))
    releases = [release(1, "01"), release(2, "02")]
    assert [(number, usd) for _, number, _, usd in models(attempts, releases)] == [(1, 1.0), (2, 1.0), (None, 1.0)]
    spent = attributed(attempts, releases)
    assert spent["wasted_usd"].to_list() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert accepted.months(spent).filter(month="2024-01").rows() == [("2024-01", 3, 1, 3.0, 1.0)]
    assert costs.next_usd(newest_first(*trials), "cpu_small") is None, "a trial is not a training's price"


def test_an_export_belongs_to_its_training_by_digest_or_by_order() -> None:
    export = attempt("01", step="export", fingerprint="e1")
    attempts = oldest_first(attempt("01"), export, attempt("02"))
    assert [usd for *_, usd in models(attempts, [release(1, "01")])] == [2.0, 1.0]
    named = oldest_first(
        attempt("01"), attempt("01", fingerprint="again"), replace(export, digest="d01"), attempt("02")
    )
    assert [usd for *_, usd in models(named, [release(1, "01")])] == [3.0, 1.0]


def test_two_models_of_one_cutoff_each_have_their_own_training() -> None:
    attempts = oldest_first(attempt("01"), attempt("01", fingerprint="mended"))
    releases = [release(1, "01", "one"), release(2, "01", "other")]
    assert [(number, usd) for _, number, _, usd in models(attempts, releases)] == [(1, 1.0), (2, 1.0)]


def test_a_model_that_is_released_again_is_accepted_once() -> None:
    attempts = oldest_first(attempt("01"), attempt("02"))
    history = [
        release(1, "01"),
        release(2, "02"),
        release(3, "01", outcome="rolled_back"),
        release(4, "02"),
    ]
    assert [number for _, number, *_ in models(attempts, history)] == [1, 2]


def test_a_model_without_recorded_attempts_is_not_charged() -> None:
    assert models(oldest_first(attempt("02")), [release(1, "01"), release(2, "02")]) == [("2024-02", 2, "02", 1.0)]
    assert models(newest_first(), []) == []


@given(
    st.lists(ATTEMPTS, max_size=10),
    st.lists(
        st.tuples(
            st.sampled_from(["0010", "0011", "0012", "0013"]),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["released", "rolled_back"]),
        ),
        max_size=6,
    ),
)
def test_accepted_and_open_spend_add_up_to_the_total(
    attempts: list[Attempt], history: list[tuple[str, str, str]]
) -> None:
    result = newest_first(*attempts)
    releases = [release(number, *item) for number, item in enumerate(history, start=1)]
    spent = attributed(result, releases)
    assert sum(usd for *_, usd in models(result, releases)) == pytest.approx(costs.total_usd(result))
    assert accepted.months(spent)["usd"].sum() == pytest.approx(costs.total_usd(result))
    assert spent["number"].to_list() == sorted(result["number"]), "each is in exactly one, the oldest first"
    for usd, wasted_usd in spent.select("usd", "wasted_usd").rows():
        assert 0 <= wasted_usd <= usd
