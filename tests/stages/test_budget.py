"""A launch over the month's budget is stopped in advance; a person's reason permits it, and is recorded."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.keys import DailyGrain
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch import costs
from platform_assets.launch.monthly_budget import MonthlyBudget
from platform_assets.product.spec import Retraining, Training
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import ATTEMPTS_SO_FAR, SO_FAR, Attempt
from platform_assets.store.tables import TableStore
from tests.doubles import attempts
from tests.doubles import numbered_batches as batches
from tests.doubles.launcher import InProcessLauncher

pytestmark = pytest.mark.slow

SPEC = replace(
    batches.SPEC,
    training=Training(threads=1, epochs=5, batch_size=16, learning_rate=0.01, settings=batches.SPEC.training.settings),
    holdout=3,
    min_keys=8,
    retraining=Retraining(monthly_budget_usd=1.0),
)
CUTOFF = "0030"
NOW = datetime(2024, 1, 3, tzinfo=UTC)
SPENT = {
    "cutoff": "0020",
    "fingerprint": "f",
    "reason": "finished",
    "usd_per_hour": 1.0,
    "wall_s": 2700.0,
    "started_at_utc": "2024-01-02T00:00:00+00:00",
}
Execute = Callable[..., dict[str, Any]]


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, SPEC.name)


@pytest.fixture
def launcher(settings: Settings) -> InProcessLauncher:
    return InProcessLauncher(SPEC, settings)


@pytest.fixture
def checkpoint(
    settings: Settings,
    instance: dg.DagsterInstance,
    launcher: InProcessLauncher,
    advance_to: Callable[..., TableStore],
) -> Execute:
    """Land and advance the inputs of a training; then run the checkpoint alone and return its metadata."""
    clock.move(settings, SPEC.name, NOW)
    advance_to("0030", inputs_only=True)
    store = StoreResource(variables=settings.to_environment())
    defs = build_defs(specs=[SPEC], resources={"store": store, "launcher": launcher})

    def run(reason: str | None = None) -> dict[str, Any]:
        config = {"ops": {f"{SPEC.name}__checkpoint": {"config": {"over_budget_reason": reason}}}}
        result = defs.resolve_job_def(naming.job("retrain", SPEC.name)).execute_in_process(
            instance=instance,
            partition_key=CUTOFF,
            asset_selection=[dg.AssetKey([SPEC.name, "checkpoint"])],
            run_config=None if reason is None else config,
        )
        (event,) = result.get_asset_materialization_events()
        metadata = event.step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in metadata.items()}

    return run


@pytest.mark.costly
def test_a_launch_over_budget_is_stopped_with_the_amount_unless_a_person_gives_a_reason(
    checkpoint: Execute, launcher: InProcessLauncher, ledgers: Ledgers
) -> None:
    ledgers.append(naming.ATTEMPTS, SPENT)
    with pytest.raises(
        dg.Failure, match=r"in 2024-01 .* cost 0\.75 USD and the next about 0\.75; .* by 0\.50\."
    ) as problem:
        checkpoint()
    assert problem.value.allow_retries is False
    assert problem.value.metadata["over_usd"].value == 0.5
    with pytest.raises(dg.Failure, match="is not launched"):
        checkpoint("  ")
    assert launcher.ran == []
    assert list(ledgers.records(naming.OVERSPENDINGS)) == []

    metadata = checkpoint("the fair opens on Monday")
    assert launcher.ran == ["train"]
    assert (metadata["over_budget_reason"], metadata["over_budget_usd"]) == ("the fair opens on Monday", 0.5)
    ((_, record),) = ledgers.records(naming.OVERSPENDINGS)
    assert (record["why"], record["cutoff"], record["over_usd"]) == ("the fair opens on Monday", CUTOFF, 0.5)
    (_, trained), *_ = reversed(list(ledgers.records(naming.ATTEMPTS)))
    assert record["fingerprint"] == trained["fingerprint"]

    again = checkpoint()
    assert again["is_memoised"], "an existing checkpoint costs nothing and is never stopped"
    assert again["over_budget_reason"] == "the fair opens on Monday"
    assert launcher.ran == ["train"]


@pytest.mark.costly
def test_a_first_training_is_budgeted_by_the_maximum_cost_of_its_attempts(
    checkpoint: Execute, launcher: InProcessLauncher, ledgers: Ledgers
) -> None:
    with pytest.raises(
        dg.Failure, match=r"the next about 3\.36 \(at most, as a first one on cpu_small: .*exceeded by 2\.36\."
    ) as problem:
        checkpoint()
    assert "state Retraining.expected_hours in platform_assets/products/" in str(problem.value.description)
    assert "`over_budget_reason` in the config of checkpoint" in str(problem.value.description)
    assert launcher.ran == []
    metadata = checkpoint("the first one shows what it costs")
    assert launcher.ran == ["train"]
    assert metadata["over_budget_usd"] == 2.36


def test_a_training_on_another_profile_is_a_first_one_again(settings: Settings, ledgers: Ledgers) -> None:
    store = StoreResource(variables=settings.to_environment())
    clock.move(settings, SPEC.name, NOW)
    ledgers.append(naming.ATTEMPTS, {**SPENT, "profile": "cpu_small", "wall_s": 36.0, "id": "a"})
    arguments = {"cutoff": CUTOFF, "fingerprint": "a" * 64, "reason": "", "run_id": "r"}
    assert MonthlyBudget().allow(ProductStore(SPEC, store.settings), **arguments) is None
    larger = replace(SPEC, training=replace(SPEC.training, profile="gpu"))
    with pytest.raises(dg.Failure, match=r"at most, as a first one on gpu: .* exceeded by 103\.59"):
        MonthlyBudget().allow(ProductStore(larger, store.settings), **arguments)
    stated = replace(larger, retraining=replace(SPEC.retraining, expected_hours=0.25))
    assert MonthlyBudget().allow(ProductStore(stated, store.settings), **arguments) is None
    longer = replace(larger, retraining=replace(SPEC.retraining, expected_hours=2.0))
    with pytest.raises(dg.Failure, match=r"expected_hours is 2, at 2\.49 USD per hour.* exceeded by 3\.99"):
        MonthlyBudget().allow(ProductStore(longer, store.settings), **arguments)


@pytest.mark.costly
def test_a_reason_within_the_budget_has_no_effect(checkpoint: Execute, launcher: InProcessLauncher, ledgers: Ledgers):
    ledgers.append(naming.ATTEMPTS, {**SPENT, "started_at_utc": "2023-12-31T00:00:00+00:00"})
    metadata = checkpoint("in case it is too much")
    assert launcher.ran == ["train"]
    assert "over_budget_reason" not in metadata
    assert list(ledgers.records(naming.OVERSPENDINGS)) == []


def test_a_finished_fingerprint_is_reused_whatever_was_spent(settings: Settings, ledgers: Ledgers) -> None:
    store = StoreResource(variables=settings.to_environment())
    clock.move(settings, SPEC.name, NOW)
    ledgers.append(naming.ATTEMPTS, {**SPENT, "wall_s": 360_000.0})
    arguments = {"cutoff": CUTOFF, "reason": "", "run_id": "r"}
    with pytest.raises(dg.Failure, match=r"exceeded by 199\.00"):
        MonthlyBudget().allow(ProductStore(SPEC, store.settings), fingerprint="a" * 64, **arguments)
    ledgers.create(naming.CHECKPOINTS, "a" * 64, {"manifest": "m"})
    assert MonthlyBudget().allow(ProductStore(SPEC, store.settings), fingerprint="a" * 64, **arguments) is None
    free = replace(SPEC, retraining=Retraining())
    assert MonthlyBudget().allow(ProductStore(free, store.settings), fingerprint="b" * 64, **arguments) is None


def test_a_training_is_charged_to_its_cutoffs_month_and_a_batch_to_the_wall_clocks() -> None:
    daily = replace(SPEC, grain=DailyGrain(start="2020-01-01", end="2020-12-31", time_zone="UTC"))
    attempt = Attempt(**{**SPENT, "cutoff": "2020-03-31"})
    both = attempts.newest_first(Attempt(**{**SPENT, "cutoff": "2020-04-01"}), attempt)
    assert costs.with_month(daily.grain, both)["month"].to_list() == ["2020-04", "2020-03"]
    assert costs.with_month(SPEC.grain, attempts.newest_first(Attempt(**SPENT)))["month"].to_list() == ["2024-01"]
    assert costs.spent_usd(daily.grain, both, "2020-04") == 0.75
    assert costs.spent_usd(daily.grain, both.clear(), "2020-04") == 0.0


def test_a_check_caches_the_attempts_before_it_whatever_it_decides(settings: Settings, ledgers: Ledgers) -> None:
    free, store = replace(SPEC, retraining=Retraining()), StoreResource(variables=settings.to_environment())
    ledgers.append(naming.ATTEMPTS, SPENT)
    arguments = {"cutoff": CUTOFF, "fingerprint": "c" * 64, "reason": "", "run_id": "r"}
    assert MonthlyBudget().allow(ProductStore(free, store.settings), **arguments) is None
    cached = ledgers.of(ATTEMPTS_SO_FAR).read(SO_FAR)
    assert cached is not None
    assert cached.attempts == [Attempt(**SPENT)]
