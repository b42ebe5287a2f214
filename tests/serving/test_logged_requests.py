"""A bundle answers logged requests in a process of its own before it is released."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.follow.background import Overdue
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.logged_requests import Logged
from platform_assets.training.sealed import ModelProblem
from tests.doubles import models
from tests.serving.conftest import sealed

SECONDS = 60
GIGABYTE = 2**30


def logged(count: int = 20, lists: list[list[int]] | None = None, limit_ms: float = 100.0, **row: Any) -> Logged:
    """Return requests with different numbers of seats, the last of them with these features."""
    rows = [models.row(f"flight-{place}", {"seats": place}) for place in range(count)]
    rows[-1] = models.row("flight-last", row) if row else rows[-1]
    return Logged(rows=[json.dumps(one).encode() for one in rows], lists=lists or [], limit_ms=limit_ms)


def test_a_good_model_answers_them_all(tmp_path: Path) -> None:
    answered = Trial(SECONDS).ask(sealed(tmp_path), logged(200, [[0, 1, 2], list(range(100, 116))]))
    assert (answered.rows, answered.unfit) == (200, 0)
    assert 0 <= answered.slow_ms < 100  # CPU time, which some machines count in ticks
    assert 20 * 2**20 < answered.peak_bytes < GIGABYTE
    assert "200 logged rows answered, 99 % of them within" in str(answered)


def test_a_model_of_images_answers_its_own(tmp_path: Path) -> None:
    photos = models.image_contract()
    rows = [json.dumps(models.image_row(entity=f"item-{place}")).encode() for place in range(5)]
    answered = Trial(SECONDS).ask(
        sealed(tmp_path, document=photos, golden=models.golden_of(photos, 0.0)),
        Logged(rows=rows, lists=[[0, 1, 2, 3, 4]], limit_ms=100.0),
    )
    assert answered.rows == 5


def test_rows_that_the_contract_refuses_are_counted(tmp_path: Path) -> None:
    answered = Trial(SECONDS).ask(sealed(tmp_path), logged(20, [[18, 19]], seats=901))
    assert (answered.rows, answered.unfit) == (19, 1)
    assert "(1 more do not fit its contract)" in str(answered)


def test_requests_of_a_live_product_are_not_refused_for_their_age(tmp_path: Path) -> None:
    assert Trial(SECONDS).ask(sealed(tmp_path, document=models.contract(clock_within_s=60.0)), logged()).rows == 20


@pytest.mark.parametrize(
    ("graph", "row", "message"),
    [
        (models.not_a_number, {"temp": 41.5}, r"gave no valid binary answer for 'flight-last'.*\"temp\":41.5"),
        (
            models.divides_by_minus_one_for,
            {"seats": 181},
            r"was ended by SIGFPE while answering the logged row.*\"seats\":181",
        ),
    ],
)
def test_a_value_that_a_model_cannot_answer_is_named_with_its_row(
    tmp_path: Path, graph: Callable[[dict[str, Any]], bytes], row: dict[str, Any], message: str
) -> None:
    bundle = sealed(tmp_path, graph(models.contract()))
    Trial(SECONDS)(bundle)
    with pytest.raises(ModelProblem, match=f"{bundle.digest}.*{message}"):
        Trial(SECONDS).ask(bundle, logged(**row))


@pytest.mark.costly
@pytest.mark.parametrize("lists", [[], [list(range(10))]], ids=["rows of one turn", "a list"])
def test_memory_for_several_rows_is_named_with_their_number(tmp_path: Path, lists: list[list[int]]) -> None:
    """A turn of a service's event loop has rows of several callers, so lists are not needed for it."""
    bundle = sealed(tmp_path, models.takes_2_gb_for_ten(models.contract()))
    Trial(SECONDS)(bundle)
    with pytest.raises(ModelProblem, match=r"Failed to allocate memory.*answering (8|9|10) logged rows, the first"):
        Trial(SECONDS, GIGABYTE).ask(bundle, logged(lists=lists))


@pytest.mark.costly
def test_slow_rows_are_refused_by_their_cpu_time(tmp_path: Path) -> None:
    bundle = sealed(tmp_path, models.slow(models.contract(), 300_000))
    Trial(SECONDS)(bundle)
    message = r"more than latency_ms=20 of CPU for 1 of 20 logged rows, \d+ ms for one.*\"seats\":181"
    for _ in range(2):
        with pytest.raises(ModelProblem, match=message):
            Trial(SECONDS).ask(bundle, logged(limit_ms=20.0, seats=181))


def test_one_slow_row_of_a_hundred_is_not_too_many(tmp_path: Path) -> None:
    bundle = sealed(tmp_path, models.slow(models.contract(), 300_000))
    answered = Trial(SECONDS).ask(bundle, logged(100, limit_ms=20.0, seats=181))
    assert answered.slow_ms < 20


@pytest.mark.thorough
def test_a_row_that_does_not_end_is_killed_and_named(tmp_path: Path) -> None:
    """After ten seconds without a turn a service is restarted; such a row ends a replica, however seldom it comes."""
    bundle = sealed(tmp_path, models.slow(models.contract(), 2**62))
    with pytest.raises(Overdue, match=r"was still answering the logged row .*\"seats\":181.* after 10 s of CPU"):
        Trial(SECONDS).ask(bundle, logged(200, seats=181))


def test_long_values_are_shortened_in_messages() -> None:
    text = logged(carrier="x" * 200).describe([19])
    assert '"carrier":"' + "x" * 60 + "…" in text
    assert "x" * 61 not in text
    features = {f"f{place}": place for place in range(5_000)}
    wide = Logged(rows=[json.dumps({"features": features}).encode()], lists=[], limit_ms=1.0)
    assert len(wide.describe([0])) < 2_100
