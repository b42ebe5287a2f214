"""The asset `cost` adds up all records, reads each record once, and comes at the end of every retrain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets import naming
from platform_assets.factory import build_defs
from platform_assets.history import money
from platform_assets.settings import Settings
from platform_assets.specs.base import Retraining
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.ledgers import Ledgers
from resources.store import StoreResource
from tests.doubles import documents
from tests.doubles import numbered_batches as batches

SPEC = replace(
    batches.SPEC,
    training=replace(batches.SPEC.training, profile="gpu_spot"),
    retraining=Retraining(monthly_budget_usd=10.0),
)
Materialise = Callable[[], dict[str, Any]]
ATTEMPT = {
    "by": "launcher",
    "step": "train",
    "fingerprint": "f1",
    "cutoff": "0010",
    "profile": "gpu_spot",
    "is_spot": True,
    "usd_per_hour": 1.0,
    "on_demand_usd_per_hour": 3.0,
    "started_at_utc": "2024-01-02T00:00:00+00:00",
    "wall_s": 3600.0,
    "waited_s": 40.0,
    "resumed_from_step": 0,
    "steps_done": 100,
    "steps_lost": 25,
    "reason": "finished",
}


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, SPEC.name)


@pytest.fixture
def materialise(settings: Settings, instance: dg.DagsterInstance) -> Materialise:
    """Run job `cost__product` and return the asset's metadata."""
    defs = build_defs(specs=[SPEC], resources={"store": StoreResource(variables=settings.to_environment())})

    def run() -> dict[str, Any]:
        result = defs.resolve_job_def(naming.job("cost", SPEC.name)).execute_in_process(instance=instance)
        (event,) = result.get_asset_materialization_events()
        metadata = event.step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in metadata.items()}

    return run


def release(ledgers: Ledgers, cutoff: str) -> None:
    ledgers.append(naming.RELEASES, documents.release(cutoff, sha256(cutoff.encode())))


def spend(ledgers: Ledgers) -> None:
    """Add a preempted and a finished attempt, each reported by step and launcher, a release, a failure, a backtest."""
    for number, changes in enumerate(({"reason": "preempted"}, {})):
        record = {**ATTEMPT, "id": f"a{number}", **changes}
        ledgers.append(naming.ATTEMPTS, {**record, "by": "step"})
        ledgers.append(naming.ATTEMPTS, record)
    release(ledgers, "0010")
    failed = {"fingerprint": "f2", "cutoff": "0020", "reason": "code", "wall_s": 1800.0, "id": "a9"}
    ledgers.append(naming.ATTEMPTS, {**ATTEMPT, **failed})
    old = {"cutoff": "0005", "wall_s": 360.0, "usd_per_hour": 0.5, "reason": "finished"}
    ledgers.append(naming.BACKTEST_ATTEMPTS, old)


def test_costs_are_shown_in_total_per_model_and_per_attempt(materialise: Materialise, ledgers: Ledgers) -> None:
    spend(ledgers)
    metadata = materialise()
    assert metadata["attempts"] == 4, "each once, including a backtest"
    assert (metadata["total_usd"], metadata["on_demand_usd"]) == (2.55, 7.55)
    assert (metadata["newest_model_usd"], metadata["mean_model_usd"], metadata["open_usd"]) == (2.0, 2.0, 0.5)
    assert (metadata["lost_usd"], metadata["failed_usd"], metadata["backtests_usd"]) == (0.25, 0.5, 0.05)
    assert (metadata["lost_share"], metadata["steps_lost"]) == (0.1, 50)
    assert (metadata["mean_waited_s"], metadata["longest_waited_s"], metadata["next_usd"]) == (40.0, 40.0, 2.0)
    assert metadata["monthly_budget_usd"] == 10.0
    assert "| 1 | 0010 | 1 | 2 | 2 | 6 |" in metadata["accepted_models"]
    assert "| open |  | 0 | 1 | 0.5 |" in metadata["accepted_models"]
    assert "| 0020 | train | code | gpu_spot | True |" in metadata["newest_attempts"]
    assert f"| {SPEC.name} | backtest | 1 |" in metadata["by_step"]
    assert "(release 1, cutoff 0010) cost 2.0000 USD: 2 attempts" in metadata["what_it_shows"]
    assert all("data:image/svg+xml;base64," in metadata[name] for name in ("money", "spot", "waiting"))
    numbers = [value for value in metadata.values() if isinstance(value, int | float)]
    assert len(numbers) <= 20


def test_later_runs_read_only_new_records(
    materialise: Materialise, settings: Settings, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(ledgers)
    assert materialise()["attempts"] == 4
    read: list[int] = []
    records = Ledgers.records

    def counted(self: Ledgers, ledger: str, first: int = 1) -> Any:
        for number, record in records(self, ledger, first):
            read.append(number)
            yield number, record

    monkeypatch.setattr(Ledgers, "records", counted)
    written: list[str] = []
    monkeypatch.setattr(Ledgers, "overwrite", lambda self, ledger, name, record: written.append(ledger))
    again = materialise()
    assert (again["attempts"], read, written) == (4, [], []), "nothing new: nothing read, nothing written"
    ledgers.append(naming.ATTEMPTS, {**ATTEMPT, "id": "a9", "by": "step", "wall_s": 1.0})
    ledgers.append(naming.ATTEMPTS, {**ATTEMPT, "id": "a10"})
    later = materialise()
    assert (later["attempts"], read) == (5, [6, 7])
    assert later["total_usd"] == 3.55, "the launcher's record of a9, read long ago, still counts"


def test_a_damaged_or_older_cache_is_ignored(materialise: Materialise, settings: Settings, ledgers: Ledgers) -> None:
    spend(ledgers)
    metadata = materialise()
    path = Path(settings.root) / naming.ledger_path(SPEC.name, naming.COST) / f"{money.CACHE_NAME}.json"
    for damaged in ("{ torn", '{"format": "older", "records": {}}'):
        path.write_text(damaged, encoding="utf-8")
        assert materialise() == metadata


def test_without_attempts_there_are_no_numbers(materialise: Materialise) -> None:
    metadata = materialise()
    assert metadata == {"attempts": 0, "result": "Nothing has been tried yet, so nothing was spent."}


def test_old_records_without_new_fields_count(materialise: Materialise, ledgers: Ledgers) -> None:
    old = {"cutoff": "0010", "wall_s": 3600.0, "usd_per_hour": 0.08, "started_at_utc": "2024-01-02", "fingerprint": "f"}
    ledgers.append(naming.ATTEMPTS, {**old, "reason": "vanished", "steps_done": 9, "resumed_from_step": 0})
    ledgers.append(naming.ATTEMPTS, {**old, "reason": "finished"})
    metadata = materialise()
    assert (metadata["total_usd"], metadata["on_demand_usd"], metadata["lost_usd"], metadata["open_usd"]) == (
        0.16,
        0.16,
        0.08,
        0.16,
    )
    assert "spot" not in metadata
    assert "waiting" not in metadata
    assert not {"newest_model_usd", "mean_waited_s"} & set(metadata)
    assert "No model has been accepted yet" in metadata["what_it_shows"]


def test_cost_ends_every_retrain_and_no_other_job() -> None:
    defs = build_defs(specs=[SPEC])
    key = dg.AssetKey([SPEC.name, "cost"])
    selected = {
        verb: key in defs.resolve_job_def(naming.job(verb, SPEC.name)).asset_layer.executable_asset_keys
        for verb in ("advance", "retrain", "cost", "release", "backtest")
    }
    assert selected == {"advance": False, "retrain": True, "cost": True, "release": False, "backtest": False}
    above = defs.resolve_asset_graph().get(key).parent_keys
    assert dg.AssetKey([SPEC.name, "release"]) in above, "so it is made after the release"
