"""Ledgers are folded once into a cache; without it, or with one of another version, every number is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_assets import naming
from platform_assets.history import money
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from tests.doubles import histories

ATTEMPT = {"cutoff": "0010", "fingerprint": "f", "reason": "finished", "usd_per_hour": 1.0, "wall_s": 3600.0}


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, "tiny")


def add(ledgers: Ledgers, *names: str, by: str = "step", ledger: str = naming.ATTEMPTS) -> None:
    for name in names:
        ledgers.append(ledger, {**ATTEMPT, "id": name, "by": by, "host": "not kept"})


def write_cache(ledgers: Ledgers) -> None:
    history = histories.of(ledgers)
    document = {money.FORMAT: money.cache_format(), money.RECORDS: history.updated_cache(history.cached())}
    ledgers.overwrite(naming.COST, money.CACHE_NAME, document)


def names(ledgers: Ledgers) -> list[str]:
    return [str(attempt_id) for attempt_id in histories.of(ledgers).attempts()["id"]]


def test_attempts_are_the_same_with_and_without_the_cache(ledgers: Ledgers, settings: Settings) -> None:
    assert names(ledgers) == []
    add(ledgers, "a", "b")
    assert names(ledgers) == ["b", "a"]
    write_cache(ledgers)
    assert names(ledgers) == ["b", "a"]
    add(ledgers, "c")
    add(ledgers, "a", by="launcher")
    assert names(ledgers) == ["a", "c", "b"], "the launcher's later record of a counts"
    path = Path(settings.root) / naming.ledger_path("tiny", naming.COST) / f"{money.CACHE_NAME}.json"
    path.write_text("{ torn", encoding="utf-8")
    assert names(ledgers) == ["a", "c", "b"]
    assert money.newest_number(histories.of(ledgers).cached(), naming.ATTEMPTS) == 0


def test_a_cache_of_another_format_is_ignored(ledgers: Ledgers) -> None:
    add(ledgers, "a")
    records = {naming.ATTEMPTS: [[7, {"id": "z"}]]}
    ledgers.overwrite(naming.COST, money.CACHE_NAME, {money.FORMAT: "older", money.RECORDS: records})
    assert names(ledgers) == ["a"]


def test_reading_without_the_cache_is_bounded(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money, "ATTEMPTS_READ", 2)
    add(ledgers, "a", "b", "c")
    assert names(ledgers) == ["c", "b"]


def test_an_attempt_reported_by_step_and_launcher_counts_once(ledgers: Ledgers) -> None:
    add(ledgers, "a")
    add(ledgers, "a", by="launcher")
    add(ledgers, "a")
    assert histories.of(ledgers).attempts()["number"].to_list() == [2]


def test_backtests_keep_their_step_and_only_needed_members_are_cached(ledgers: Ledgers) -> None:
    add(ledgers, "a", ledger=naming.BACKTEST_ATTEMPTS)
    cache = histories.of(ledgers).updated_cache(histories.of(ledgers).cached())
    assert money.backtests(cache)["step"].to_list() == ["backtest"]
    ((_, record),) = cache[naming.BACKTEST_ATTEMPTS]
    assert "host" not in record
    assert money.attempts(cache).is_empty()
