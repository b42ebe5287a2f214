"""A step that takes ten times the median, and 30 seconds at least, hangs; the first one and saves have longer."""

from typing import NoReturn

import pytest

from platform_assets.training.watchdog import PATIENCE_S, SAVING, WAITING, Watchdog


class Clock:
    """Seconds that pass only when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    return Watchdog(3, _unexpected, clock)


def _unexpected(sentence: str) -> NoReturn:
    raise AssertionError(sentence)


def take_steps(watchdog: Watchdog, clock: Clock, *took_s: float) -> None:
    for done, step_s in enumerate(took_s, start=1):
        clock.now_s += step_s
        watchdog.step_ended(done)


@pytest.mark.parametrize(("took_s", "limit_s"), [((0.2, 0.2, 9.0), 30.0), ((4.0, 5.0, 60.0), 50.0), ((), PATIENCE_S)])
def test_ten_medians_or_thirty_seconds_without_a_step_are_a_hang(
    watchdog: Watchdog, clock: Clock, took_s: tuple[float, ...], limit_s: float
) -> None:
    take_steps(watchdog, clock, *took_s)
    clock.now_s += limit_s
    assert watchdog.verdict() == ""
    clock.now_s += 1.0
    median_s = sorted(took_s)[1] if took_s else 0
    assert watchdog.verdict().startswith(
        f"no step has ended for {limit_s + 1:.0f} s (median {median_s:.3g} s): rank 3 was computing in step "
        f"{len(took_s) + 1}, in "
    )


def test_a_save_has_longer_and_so_has_who_waits_for_it(watchdog: Watchdog, clock: Clock) -> None:
    take_steps(watchdog, clock, 1.0, 1.0)
    with watchdog.phase(SAVING):
        clock.now_s += PATIENCE_S
        assert watchdog.verdict() == ""
        clock.now_s += 1.0
        assert "rank 3 was saving in step 3" in watchdog.verdict()
    watchdog.first_saves()
    with watchdog.phase(WAITING):
        clock.now_s += PATIENCE_S
        assert watchdog.verdict() == ""
    assert "was computing in step 3" in watchdog.verdict()
    watchdog.step_ended(3)
    with watchdog.phase(WAITING):
        clock.now_s += 31.0
        assert "rank 3 was waiting for its peers in step 4" in watchdog.verdict()


@pytest.mark.costly
def test_a_batch_of_an_evaluation_counts_and_is_no_step(watchdog: Watchdog, clock: Clock) -> None:
    take_steps(watchdog, clock, 1.0, 1.0)
    for _ in range(3):
        clock.now_s += 25.0
        watchdog.went_on()
        assert watchdog.verdict() == ""
    clock.now_s += 31.0
    assert "for 31 s (median 1 s)" in watchdog.verdict()
