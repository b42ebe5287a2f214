"""Attempts that are cached are not read again; without the cache every number is the same."""

from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS_SO_FAR, SO_FAR, AttemptsSoFar
from tests.doubles import histories

ATTEMPT = {"cutoff": "0010", "fingerprint": "f", "reason": "finished", "usd_per_hour": 1.0, "wall_s": 3600.0}


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, "tiny")


def add(ledgers: Ledgers, *names: str, by: str = "step", step: str = "train") -> None:
    for name in names:
        ledgers.append(naming.ATTEMPTS, {**ATTEMPT, "id": name, "by": by, "step": step})


def write_cache(ledgers: Ledgers) -> None:
    records = [record for _, record in histories.of(ledgers).attempts_so_far()]
    ledgers.of(ATTEMPTS_SO_FAR).overwrite(SO_FAR, AttemptsSoFar(attempts=records))


def names(ledgers: Ledgers) -> list[str]:
    return [str(attempt_id) for attempt_id in histories.of(ledgers).attempts()["id"]]


@pytest.mark.parametrize("damage", ["{ torn", '{"attempts": [{"later": 1}]}', "[]"])
def test_attempts_are_the_same_with_and_without_the_cache(ledgers: Ledgers, settings: Settings, damage: str) -> None:
    assert names(ledgers) == []
    add(ledgers, "a", "b")
    assert names(ledgers) == ["b", "a"]
    write_cache(ledgers)
    assert names(ledgers) == ["b", "a"]
    add(ledgers, "c")
    add(ledgers, "a", by="launcher")
    assert names(ledgers) == ["a", "c", "b"], "the launcher's later record of a counts"
    path = Path(settings.root) / naming.ledger_path("tiny", naming.COST) / f"{SO_FAR}.json"
    path.write_text(damage, encoding="utf-8")
    assert names(ledgers) == ["a", "c", "b"]


def test_cached_records_are_not_read_again(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    add(ledgers, "a", "b")
    write_cache(ledgers)
    add(ledgers, "c")
    read: list[int] = []
    at = Ledgers.at

    def noted(self: Ledgers, ledger: str, number: int) -> Any:
        read.append(number)
        return at(self, ledger, number)

    monkeypatch.setattr(Ledgers, "at", noted)
    assert names(ledgers) == ["c", "b", "a"]
    assert read == [3, 4], "the new one, and the end of the ledger"


def test_an_attempt_reported_by_step_and_launcher_counts_once(ledgers: Ledgers) -> None:
    add(ledgers, "a")
    add(ledgers, "a", by="launcher")
    add(ledgers, "a")
    assert histories.of(ledgers).attempts()["number"].to_list() == [2]


def test_backtests_are_left_out(ledgers: Ledgers) -> None:
    add(ledgers, "a", step="backtest")
    assert histories.of(ledgers).attempts().is_empty()
