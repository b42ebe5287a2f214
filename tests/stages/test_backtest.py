"""The backtest asset trains each cutoff once, replays every policy over them, and shows the value of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import dagster as dg
import pytest

from platform_assets import naming
from platform_assets.factory import build_defs
from platform_assets.handle import Product
from platform_assets.profiles import PROFILES
from platform_assets.settings import Settings
from platform_assets.specs.base import Monitors, Retraining, Training
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from platform_assets.training import fits as backtest_fits
from platform_assets.training.requests import OlderRows
from resources.store import StoreResource
from tests.doubles import numbered_batches as batches
from tests.doubles.launcher import InProcessLauncher

SPEC = replace(
    batches.SPEC,
    training=Training(threads=1, epochs=20, batch_size=16, learning_rate=0.01, settings=batches.SPEC.training.settings),
    holdout=2,
    min_keys=8,
    monitors=Monitors(drift_window=2),
    retraining=Retraining(decide_every=2, max_age=6, cooldown=2, performance_window=6),
)
LAST = "0024"
CUTOFFS = ["0011", "0013", "0015", "0017", "0019", "0021", "0023"]
Backtest = Callable[..., dict[str, Any]]


@pytest.fixture
def launcher(settings: Settings) -> InProcessLauncher:
    return InProcessLauncher(SPEC, settings)


@pytest.fixture
def run(
    instance: dg.DagsterInstance,
    settings: Settings,
    launcher: InProcessLauncher,
    advance_to: Callable[..., TableStore],
) -> Backtest:
    """Land and advance 26 batches, then run the job; return the metadata of the asset."""
    advance_to("0026", inputs_only=True)
    store = StoreResource(variables=settings.to_environment())
    defs = build_defs(specs=[SPEC], resources={"store": store, "launcher": launcher})

    def backtest(**config: str) -> dict[str, Any]:
        result = defs.resolve_job_def(naming.job("backtest", SPEC.name)).execute_in_process(
            instance=instance, run_config={"ops": {f"{SPEC.name}__backtest": {"config": config}}} if config else None
        )
        (event,) = result.get_asset_materialization_events()
        metadata: Mapping[str, Any] = event.step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in metadata.items()}

    return backtest


def test_every_cutoff_is_trained_once_and_every_policy_is_shown(
    run: Backtest, settings: Settings, launcher: InProcessLauncher
) -> None:
    metadata = run()
    assert launcher.ran == ["backtest"] * len(CUTOFFS)
    assert (metadata["fits"], metadata["first_key"], metadata["last_key"]) == (len(CUTOFFS), CUTOFFS[0], LAST)
    assert metadata["rows"] == 14 * batches.SENSORS
    names = ["never", "every 16 keys", "every 8 keys", "every 4 keys", "performance", "drift", "own policy"]
    for name in [*names, "every 2 keys"]:
        assert f"| {name} |" in metadata["policies"], name
        assert f"| {name} |" in metadata["cutoffs"], name
    assert f"| every 2 keys | {', '.join(CUTOFFS[1:])} |" in metadata["cutoffs"]
    assert "| every 8 keys | 0019 |" in metadata["cutoffs"]
    assert "data:image/svg+xml;base64," in metadata["quality_against_cost"]
    assert "The product's policy trains" in metadata["what_it_shows"]

    run()
    assert launcher.ran == ["backtest"] * len(CUTOFFS), "a second run trains nothing"
    narrow = run(first_cutoff="0015", last_key="0022")
    assert (narrow["fits"], narrow["first_key"], narrow["last_key"]) == (4, "0015", "0022")
    fitted = [record["cutoff"] for _, record in Ledgers(settings.root, SPEC.name).records(naming.BACKTEST_ATTEMPTS)]
    assert fitted == CUTOFFS, "fewer keys are scored again, by the same fits"


def test_a_fit_uses_nothing_at_or_after_its_cutoff(run: Backtest, settings: Settings) -> None:
    run(first_cutoff="0021", last_key="0024")
    requests = backtest_fits.requests(Product(SPEC, settings), "0021", "0024")
    assert list(requests) == ["0021", "0023"]
    assert requests["0021"].training_keys == list(batches.GRAIN.span("0001", "0016"))
    assert requests["0021"].holdout_keys == ["0017", "0018"]
    assert list(requests["0023"].scored_features) == ["0023", "0024"]
    ledgers, store = Ledgers(settings.root, SPEC.name), ArtifactStore(settings.root)
    record = ledgers.read(naming.BACKTESTS, requests["0021"].fingerprint)
    assert record is not None
    assert store.get_json(record["manifest"])["training_keys"] == requests["0021"].training_keys


def test_an_excluded_key_is_neither_trained_on_nor_scored(run: Backtest, settings: Settings) -> None:
    requests = backtest_fits.requests(Product(SPEC, settings), "0021", "0024", out={"0005", "0023"})
    assert "0005" not in requests["0021"].training_keys
    assert list(requests["0021"].scored_features) == ["0021", "0022", "0024"]


def another_model(learned: Any, training: Training) -> Any:
    return batches.model(learned, training)


def test_only_training_inputs_change_a_fingerprint(run: Backtest, settings: Settings) -> None:

    def fingerprint(spec: Any, versions: dict[str, str] | None = None) -> str:
        requests = backtest_fits.requests(Product(spec, settings), "0021", "0024", versions=versions)
        return str(requests["0021"].fingerprint)

    before = fingerprint(SPEC)
    watched = replace(SPEC, monitors=Monitors(drift_window=3), retraining=Retraining(decide_every=3), title="Other")
    assert fingerprint(watched) == before
    assert len({before, *(fingerprint(SPEC, {"torch": number}) for number in ("2.12", "2.13"))}) == 3
    assert fingerprint(replace(SPEC, training=replace(SPEC.training, seed=1))) != before
    assert fingerprint(replace(SPEC, model=another_model)) != before
    name = SPEC.training.profile
    with patch.dict(PROFILES, {name: PROFILES[name].replace(accelerators=1)}):
        assert fingerprint(SPEC) != before, "another device gives other sums"
    with patch.dict(PROFILES, {name: PROFILES[name].replace(precision="bfloat16")}):
        assert fingerprint(SPEC) != before, "another precision gives other sums"
    fewer = replace(SPEC, fields=SPEC.fields[:-1])
    with pytest.raises(OlderRows, match="features of 18 keys"):
        fingerprint(fewer)


def test_a_span_without_a_decision_is_refused(run: Backtest) -> None:
    with pytest.raises(ValueError, match="from cutoff 0023 to key 0024 holds no decision"):
        run(first_cutoff="0023")
