"""Training spend is attributed to accepted models; nothing is counted twice or lost."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from platform_assets.compute import accepted, costs
from platform_assets.records.attempts import Attempt
from platform_assets.records.releases import RELEASES, Channel, Channels
from tests.compute.test_costs import ATTEMPTS
from tests.doubles import documents
from tests.doubles.attempts import newest_first, oldest_first

HOUR = Attempt(reason="finished", wall_s=3600.0, usd_per_hour=1.0, step="train")


def attempt(cutoff: str, reason: str = "finished", **more: Any) -> Attempt:
    return replace(HOUR, **{"cutoff": cutoff, "fingerprint": f"f{cutoff}", "reason": reason, **more})


def release(number: int, cutoff: str, digest: str = "", outcome: str = "released") -> accepted.Numbered:
    document = documents.release(cutoff, outcome=outcome)
    channels = Channels(live=Channel(digest=digest or f"d{cutoff}", share=1.0))
    return number, replace(RELEASES.read(document, ""), channels=channels)


def accepted_models(attempts: pl.DataFrame, releases: list[accepted.Numbered]) -> list[dict[str, Any]]:
    return accepted.models(accepted.bought(attempts, releases), releases).rows(named=True)


def parts(model: dict[str, Any]) -> tuple[float, ...]:
    return tuple(model[part] for part in accepted.PARTS)


def test_failed_and_rejected_attempts_count_towards_the_next_accepted_model() -> None:
    attempts = oldest_first(
        attempt("01", "preempted", steps_done=100, steps_lost=25),
        attempt("01"),
        attempt("02", "failed: ValueError: no"),
        attempt("03"),
        attempt("04"),
        attempt("05"),
    )
    first, second, since = accepted_models(attempts, [release(1, "01"), release(2, "04")])
    assert (first["release"], first["cutoff"], first["usd"], first["trainings"]) == (1, "01", 2.0, 1)
    assert parts(first) == (1.75, 0.0, 0.25, 0.0)
    assert (second["release"], second["usd"], second["trainings"]) == (2, 3.0, 2)
    assert parts(second) == (1.0, 1.0, 0.0, 1.0)
    assert (since["release"], since["usd"], parts(since)) == (None, 1.0, (0.0, 1.0, 0.0, 0.0))


def test_an_export_belongs_to_its_training_by_digest_or_by_order() -> None:
    export = attempt("01", step="export", fingerprint="e1")
    attempts = oldest_first(attempt("01"), export, attempt("02"))
    assert [item["usd"] for item in accepted_models(attempts, [release(1, "01")])] == [2.0, 1.0]
    named = oldest_first(
        attempt("01"), attempt("01", fingerprint="again"), replace(export, digest="d01"), attempt("02")
    )
    assert [item["usd"] for item in accepted_models(named, [release(1, "01")])] == [3.0, 1.0]


def test_two_models_of_one_cutoff_each_have_their_own_training() -> None:
    attempts = oldest_first(attempt("01"), attempt("01", fingerprint="mended"))
    models = accepted_models(attempts, [release(1, "01", "one"), release(2, "01", "other")])
    assert [item["usd"] for item in models] == [1.0, 1.0, 0.0]


def test_a_model_that_is_released_again_is_accepted_once() -> None:
    attempts = oldest_first(attempt("01"), attempt("02"))
    history = [
        release(1, "01"),
        release(2, "02"),
        release(3, "01", outcome="rolled_back"),
        release(4, "02"),
    ]
    assert [item["release"] for item in accepted_models(attempts, history)] == [1, 2, None]


def test_a_model_without_recorded_attempts_costs_nothing() -> None:
    models = accepted_models(oldest_first(attempt("02")), [release(1, "01"), release(2, "02")])
    assert [(item["release"], item["usd"]) for item in models] == [(1, 0.0), (2, 1.0), (None, 0.0)]
    assert parts(accepted_models(newest_first(), [])[0]) == (0.0, 0.0, 0.0, 0.0)


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
    models, purchases = accepted_models(result, releases), accepted.bought(result, releases)
    assert sum(item["usd"] for item in models) == pytest.approx(costs.total_usd(result))
    assert sum(sum(parts(item)) for item in models) == pytest.approx(costs.total_usd(result))
    assert purchases["number"].to_list() == sorted(result["number"]), "each is in exactly one, the oldest first"
    assert models[-1]["release"] is None
    for item in purchases.iter_rows(named=True):
        assert sum(parts(item)) == pytest.approx(item["usd"])
        assert min(parts(item)) >= 0
        assert not (item[accepted.USEFUL] and item[accepted.REJECTED])
