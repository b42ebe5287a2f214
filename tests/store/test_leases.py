from concurrent.futures import ThreadPoolExecutor

import pytest

from platform_assets.store.leases import Lease, LeaseHeld, LeaseLost
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.leases import Result


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def ledgers(root: str) -> Ledgers:
    return Ledgers(root, "tiny")


def test_a_held_lease_is_refused_with_its_holder_and_age(ledgers: Ledgers) -> None:
    clock = Clock()
    Lease(ledgers, "abc", clock).acquire(60, holder="run 7")
    clock.at_s += 12
    with pytest.raises(LeaseHeld, match=r"held by run 7 \(number 1, last heard of 12 s ago\)"):
        Lease(ledgers, "abc", clock).acquire(60)
    assert Lease(ledgers, "other", clock).acquire(60) == 1


def test_a_lease_lasts_with_heartbeats_and_lapses_without(ledgers: Ledgers) -> None:
    clock = Clock()
    first, second = Lease(ledgers, "abc", clock), Lease(ledgers, "abc", clock)
    assert first.acquire(60) == 1
    for _ in range(3):
        clock.at_s += 59
        first.heartbeat()
        with pytest.raises(LeaseHeld):
            second.acquire(60)
    clock.at_s += 60
    assert second.acquire(60) == 2
    with pytest.raises(LeaseLost, match="is at number 2, ours is 1"):
        first.heartbeat()


def test_a_released_lease_is_free_at_once_and_its_number_is_not_reused(ledgers: Ledgers) -> None:
    lease = Lease(ledgers, "abc")
    assert lease.acquire(60) == 1
    lease.release()
    lease.release()
    with pytest.raises(LeaseLost):
        lease.heartbeat()
    assert Lease(ledgers, "abc").acquire(60) == 2


def test_one_of_many_concurrent_workers_gets_the_lease(ledgers: Ledgers) -> None:
    def attempt(_: int) -> int | None:
        try:
            return Lease(ledgers, "abc").acquire(60)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(attempt, range(16)))
    assert [number for number in numbers if number is not None] == [1]


RESULT = Result(ledger="checkpoints", record={"manifest": "m"})


def test_the_result_of_a_lease_that_went_to_somebody_else_is_refused(ledgers: Ledgers) -> None:
    late, other = Lease(ledgers, "abc"), Lease(ledgers, "abc")
    late.acquire(0)
    other.acquire(60)
    with pytest.raises(LeaseLost, match=r"taken by somebody else \(number 2\)"):
        late.conclude(RESULT)
    other.conclude(RESULT)
    other.heartbeat()
    other.release()
    for lease in (late, other):
        with pytest.raises(LeaseLost):
            lease.conclude(RESULT)


def test_a_result_is_left_to_the_next_holders_until_one_releases_the_lease(ledgers: Ledgers) -> None:
    clock = Clock()
    leases = [Lease(ledgers, "abc", clock) for _ in range(4)]
    leases[0].acquire(60)
    leases[0].conclude(RESULT)
    with pytest.raises(LeaseHeld):
        leases[1].acquire(60)
    for lease in leases[1:3]:
        clock.at_s += 60
        lease.acquire(60)
        assert lease.left == RESULT
    leases[2].release()
    assert leases[3].acquire(60) == 5
    assert leases[3].left is None
