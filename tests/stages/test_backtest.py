"""A backtest trains each cutoff once, as the loop would, replays every policy, and says what each is worth."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np
import pytest
from rich.console import Console

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.cli import LOG_COLUMNS
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch.attempt import StepRequest, begin
from platform_assets.operations.experiments import backtest
from platform_assets.operations.experiments.backtest import Backtest
from platform_assets.product.spec import Monitors, Retraining, Training
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from platform_assets.training import libraries
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.requests import OlderRows
from platform_assets.training.stored_models import read_model
from tests.doubles import instances
from tests.doubles import numbered_batches as batches
from tests.doubles.launcher import InProcessLauncher

pytestmark = pytest.mark.slow

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


class Launching(InProcessLauncher):
    """Says what each step is for, as a launcher does."""

    def run_step(self, request: StepRequest) -> Any:
        launch = begin(request.work, request.plan, run_id=request.context.run.run_id, launcher="subprocess")
        return super().run_step(replace(request, extras={**request.extras, "attempt": launch.document()}))


@pytest.fixture
def launcher(settings: Settings, advance_to: Callable[..., TableStore]) -> InProcessLauncher:
    advance_to("0026", inputs_only=True)
    return Launching(SPEC, settings)


@pytest.fixture
def product(settings: Settings) -> ProductStore:
    return ProductStore(SPEC, settings)


@pytest.mark.costly
def test_every_cutoff_is_trained_once_and_every_policy_is_shown(product: ProductStore, launcher: InProcessLauncher):
    replayed = backtest.run(product, launcher)
    assert launcher.ran == ["train"] * len(CUTOFFS)
    document = json.loads(backtest.as_json(replayed))
    assert (document["cutoffs"], document["keys"], document["rows"]) == (CUTOFFS, ["0011", LAST], 14 * batches.SENSORS)
    names = ["never", "every 16 keys", "every 8 keys", "every 4 keys", "performance", "drift", "own policy"]
    retrained = {policy["policy"]: policy["retrained_at"] for policy in document["policies"]}
    assert list(retrained) == [*names, "every 2 keys"]
    assert (retrained["every 2 keys"], retrained["every 8 keys"]) == (CUTOFFS[1:], ["0019"])
    assert document["findings"][0].startswith("The product's policy trains")
    out = io.StringIO()
    Console(file=out, width=LOG_COLUMNS).print(backtest.as_table(replayed))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in retrained), out.getvalue()

    backtest.run(product, launcher)
    narrow = backtest.run(product, launcher, "0015", "0022")
    assert launcher.ran == ["train"] * len(CUTOFFS), "trained before"
    assert (list(narrow.jobs), narrow.past.keys[-1]) == (CUTOFFS[2:6], "0022")
    np.testing.assert_array_equal(narrow.past.answers[0][0], replayed.past.answers[2][0])
    attempts = [record["step"] for _, record in Ledgers(product.settings.root, SPEC.name).records(naming.ATTEMPTS)]
    assert set(attempts) == {"backtest"}
    assert product.history.attempts().is_empty(), "charged to no model and to no month's budget"


@pytest.mark.costly
def test_the_loop_and_a_backtest_share_their_trainings(
    product: ProductStore, launcher: InProcessLauncher, settings: Settings
) -> None:
    backtest.run(product, launcher, "0021", LAST)
    resources = {"store": StoreResource(variables=settings.to_environment()), "launcher": launcher}
    defs, key = build_defs(specs=[SPEC], resources=resources), dg.AssetKey([SPEC.name, "checkpoint"])
    with instances.forgetful() as instance:
        job = defs.resolve_job_def(naming.job("retrain", SPEC.name))
        job.execute_in_process(instance=instance, partition_key="0023", asset_selection=[key])
    cutoffs = [record.cutoff for _, record in product.history.trainings_newest_first()]
    assert cutoffs == ["0023", "0021"], "each once"


@pytest.mark.costly
def test_a_fit_uses_nothing_at_or_after_its_cutoff(product: ProductStore, launcher: InProcessLauncher) -> None:
    replayed = backtest.run(product, launcher, "0021", LAST)
    assert list(replayed.jobs) == ["0021", "0023"]
    manifest = replayed.manifests["0021"]
    assert manifest.training_keys == replayed.jobs["0021"].training_keys == list(batches.GRAIN.span("0001", "0016"))
    assert manifest.holdout_keys == ["0017", "0018"]
    assert (replayed.past.keys, replayed.past.starts) == (("0021", "0022", "0023", "0024"), (0, 2))
    assert min(replayed.past.cpu_s) > 0


@pytest.mark.costly
def test_answers_are_the_models_own_on_the_rows_of_each_key(product: ProductStore, launcher: InProcessLauncher) -> None:
    past, replayed = backtest.run(product, launcher, "0021", LAST).past, backtest.run(product, launcher, "0021", LAST)
    maker, manifest = Learning.for_product(SPEC), replayed.manifests["0023"]
    content = {
        stage: {key: record.content_digest for key, record in product.tables.records(stage, ["0024"]).items()}
        for stage in ("features", "outcomes")
    }
    rows = maker.rows(product.tables, ["0024"], content["features"], content["outcomes"], None).labelled()
    blobs = read_model(product.artifacts, manifest.weights)
    np.testing.assert_allclose(past.answers[1][1], maker.answers(blobs, replayed.learned["0023"], rows), atol=1e-6)
    np.testing.assert_array_equal(past.labels[3], rows.labels)


def test_an_excluded_key_is_neither_trained_on_nor_scored(
    product: ProductStore, launcher: InProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = {"0005", "0023"}
    monkeypatch.setattr(History, "excluded", lambda _, keys: {key: None for key in keys if key in out})
    replayed = opened(product)
    assert "0005" not in replayed.jobs["0021"].training_keys
    assert replayed.keys == ["0021", "0022", "0024"]


def opened(product: ProductStore, versions: dict[str, str] | None = None) -> Backtest:
    return backtest.open_backtest(product, "0021", LAST, versions or libraries.installed())


def test_only_training_inputs_change_a_fingerprint(
    product: ProductStore, launcher: InProcessLauncher, settings: Settings
) -> None:
    before = opened(product).jobs["0021"].fingerprint
    watched = replace(SPEC, monitors=Monitors(drift_window=3), retraining=Retraining(decide_every=3), title="Other")
    assert opened(ProductStore(watched, settings)).jobs["0021"].fingerprint == before
    assert opened(product, {"torch": "2.12"}).jobs["0021"].fingerprint != before
    with pytest.raises(OlderRows, match="features of 18 keys"):
        opened(ProductStore(replace(SPEC, fields=SPEC.fields[:-1]), settings))


def test_a_span_without_a_decision_is_refused(product: ProductStore, launcher: InProcessLauncher) -> None:
    with pytest.raises(ValueError, match="from cutoff 0023 to key 0024 holds no decision"):
        backtest.run(product, launcher, "0023")


def test_a_product_without_labels_says_so(settings: Settings, product: ProductStore) -> None:
    with pytest.raises(ValueError, match="has no labelled key yet"):
        backtest.run(product, InProcessLauncher(SPEC, settings))
