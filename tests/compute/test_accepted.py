"""An accepted model cost all that was tried since the one before it; nothing is counted twice or forgotten."""

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


def spent(tried: pl.DataFrame, releases: list[accepted.Numbered]) -> list[dict[str, Any]]:
    return accepted.models(accepted.bought(tried, releases), releases).rows(named=True)


def parts(model: dict[str, Any]) -> tuple[float, ...]:
    return tuple(model[part] for part in accepted.PARTS)


def test_failures_and_losers_belong_to_the_model_after_them() -> None:
    tried = oldest_first(
        attempt("01", "preempted", steps_done=100, steps_lost=25),
        attempt("01"),
        attempt("02", "failed: ValueError: no"),
        attempt("03"),
        attempt("04"),
        attempt("05"),
    )
    first, second, since = spent(tried, [release(1, "01"), release(2, "04")])
    assert (first["release"], first["cutoff"], first["usd"], first["trainings"]) == (1, "01", 2.0, 1)
    assert parts(first) == (1.75, 0.0, 0.25, 0.0)
    assert (second["release"], second["usd"], second["trainings"]) == (2, 3.0, 2)
    assert parts(second) == (1.0, 1.0, 0.0, 1.0)
    assert (since["release"], since["usd"], parts(since)) == (None, 1.0, (0.0, 1.0, 0.0, 0.0))


def test_an_export_belongs_to_its_training_by_digest_or_by_following_it() -> None:
    export = attempt("01", step="export", fingerprint="e1")
    tried = oldest_first(attempt("01"), export, attempt("02"))
    assert [each["usd"] for each in spent(tried, [release(1, "01")])] == [2.0, 1.0]
    named = oldest_first(
        attempt("01"), attempt("01", fingerprint="again"), replace(export, digest="d01"), attempt("02")
    )
    assert [each["usd"] for each in spent(named, [release(1, "01")])] == [3.0, 1.0]


def test_two_models_of_one_cutoff_have_a_training_each() -> None:
    tried = oldest_first(attempt("01"), attempt("01", fingerprint="mended"))
    made = spent(tried, [release(1, "01", "one"), release(2, "01", "other")])
    assert [each["usd"] for each in made] == [1.0, 1.0, 0.0]


def test_a_model_is_accepted_once_however_often_it_came_back() -> None:
    tried = oldest_first(attempt("01"), attempt("02"))
    history = [
        release(1, "01"),
        release(2, "02"),
        release(3, "01", outcome="rolled_back"),
        release(4, "02"),
    ]
    assert [each["release"] for each in spent(tried, history)] == [1, 2, None]


def test_a_model_whose_attempts_are_not_on_record_cost_nothing_that_is_known() -> None:
    made = spent(oldest_first(attempt("02")), [release(1, "01"), release(2, "02")])
    assert [(each["release"], each["usd"]) for each in made] == [(1, 0.0), (2, 1.0), (None, 0.0)]
    assert parts(spent(newest_first(), [])[0]) == (0.0, 0.0, 0.0, 0.0)


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
def test_accepted_models_and_what_is_open_add_up_to_all(
    tried: list[Attempt], history: list[tuple[str, str, str]]
) -> None:
    found = newest_first(*tried)
    releases = [release(number, *each) for number, each in enumerate(history, start=1)]
    made, bought = spent(found, releases), accepted.bought(found, releases)
    assert sum(each["usd"] for each in made) == pytest.approx(costs.total_usd(found))
    assert sum(sum(parts(each)) for each in made) == pytest.approx(costs.total_usd(found))
    assert bought["number"].to_list() == sorted(found["number"]), "each is in exactly one, the oldest first"
    assert made[-1]["release"] is None
    for each in bought.iter_rows(named=True):
        assert sum(parts(each)) == pytest.approx(each["usd"])
        assert min(parts(each)) >= 0
        assert not (each[accepted.USEFUL] and each[accepted.REJECTED])
