"""A backtest's fit has the same bytes as the training step's; its scores are the network's, made once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from platform_assets import naming
from platform_assets.compute.learn import Learned, codes
from platform_assets.compute.train import tensors
from platform_assets.makers import rows
from platform_assets.settings import Settings
from platform_assets.steps import backtest, process, scores, train
from platform_assets.steps.jobs import BacktestJob
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore

SCORED = ("0009", "0010")


@pytest.fixture
def extras(tiny: ModuleType, settings: Settings) -> dict[str, Any]:
    """The extras of a fit of the tiny product: train before batch 9, score it and the next."""
    extras = tiny.store(settings, [*tiny.KEYS, *SCORED])
    for stage in ("features", "outcomes"):
        extras[f"scored_{stage}"] = {key: extras[stage][key] for key in SCORED}
        extras[stage] = {key: extras[stage][key] for key in tiny.KEYS}
    return extras


def run(tiny: ModuleType, settings: Settings, extras: dict[str, Any], **changes: Any) -> dict[str, Any]:
    job = BacktestJob.from_extras({**extras, **changes})
    return backtest.Backtesting(tiny.SPEC, job, settings, log=lambda line: None).run()


def test_the_fit_equals_the_training_steps_and_the_scores_its_networks(
    tiny: ModuleType, settings: Settings, extras: dict[str, Any]
) -> None:
    result = run(tiny, settings, extras)
    store = ArtifactStore(settings.root)
    trained = train.Training(tiny.SPEC, train.Job.from_extras(extras), settings, log=lambda line: None).run()
    fit, checkpoint = store.get_json(result["fit"]), store.get_json(trained["checkpoint"])
    for name in ("weights", "learned", "training_keys", "holdout_keys", "history", "cutoff"):
        assert fit[name] == checkpoint[name], name
    assert result["cpu_s"] > 0

    read = scores.read(store, result["scores"])
    assert list(read) == list(SCORED)
    learned = Learned.from_json(store.get_json(fit["learned"]))
    network = tiny.SPEC.model(learned, tiny.SPEC.training)
    network.load_state_dict(load(store.get(fit["weights"])))
    tables = TableStore(settings.root, tiny.SPEC.name)
    for key, (answers, labels) in read.items():
        labelled = rows.read(
            tiny.SPEC.fields,
            tiny.SPEC.task,
            tables,
            keys=[key],
            features=extras["scored_features"],
            outcomes=extras["scored_outcomes"],
            known_before=None,
        ).labelled()
        assert labelled.labels.tolist() == labels.tolist()
        assert len(answers) == tiny.ROWS_A_KEY - 1, "the last row of a key never gets a label"
        with torch.no_grad():
            inputs = tensors(labelled.inputs, codes(learned, labelled.inputs.categorical))
            expected = torch.sigmoid(network.eval()(*inputs)).squeeze(1).numpy()
        np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_a_fit_is_made_once_and_scored_once_for_each_set_of_rows(
    tiny: ModuleType, settings: Settings, extras: dict[str, Any]
) -> None:
    first = run(tiny, settings, extras)
    again = run(tiny, settings, extras)
    assert [first["is_fit_reused"], first["is_score_reused"]] == [False, False]
    assert [again["is_fit_reused"], again["is_score_reused"]] == [True, True]
    assert {name: again[name] for name in ("fit", "scores", "cpu_s")} == {
        name: first[name] for name in ("fit", "scores", "cpu_s")
    }
    fewer = {name: {"0009": extras[name]["0009"]} for name in ("scored_features", "scored_outcomes")}
    narrow = run(tiny, settings, extras, **fewer)
    assert [narrow["is_fit_reused"], narrow["is_score_reused"]] == [True, False]
    assert narrow["fit"] == first["fit"]
    store = ArtifactStore(settings.root)
    all_rows, part = scores.read(store, first["scores"]), scores.read(store, narrow["scores"])
    np.testing.assert_array_equal(all_rows["0009"][0], part["0009"][0])
    ledgers = Ledgers(settings.root, tiny.SPEC.name)
    assert len(list(ledgers.records(naming.BACKTEST_ATTEMPTS))) == 1
    assert list(ledgers.records(naming.ATTEMPTS)) == [], "a backtest is not charged to any month's budget"


@pytest.mark.parametrize("blob", ["weights", "learned", "answers", "labels"])
def test_a_damaged_fit_or_score_is_made_again(
    tiny: ModuleType, settings: Settings, extras: dict[str, Any], blob: str
) -> None:
    first = run(tiny, settings, extras)
    store = ArtifactStore(settings.root)
    named = store.get_json(first["fit"]) | store.get_json(first["scores"])
    Path(settings.root, naming.blob_path(named[blob])).write_bytes(b"")
    again = run(tiny, settings, extras)
    is_fit = blob in ("weights", "learned")
    assert (again["is_fit_reused"], again["is_score_reused"]) == (not is_fit, is_fit)
    assert (again["fit"], again["scores"]) == (first["fit"], first["scores"])
    assert list(scores.read(store, again["scores"])) == list(SCORED)
    assert store.get(named[blob])


def test_a_stopped_fit_continues_and_counts_all_its_seconds(
    tiny: ModuleType, settings: Settings, extras: dict[str, Any]
) -> None:
    stop, job = process.StopRequest(), BacktestJob.from_extras(extras)

    def log(line: str) -> None:
        stop.is_set = line.startswith("epoch 2") or stop.is_set

    with pytest.raises(process.Preempted):
        backtest.Backtesting(tiny.SPEC, job, settings, log=log, stop=stop).run()
    result = run(tiny, settings, extras)
    first, second = [record for _, record in Ledgers(settings.root, "tiny").records(naming.BACKTEST_ATTEMPTS)]
    assert (first["reason"], second["reason"]) == ("preempted", "finished")
    assert second["resumed_from_step"] == first["steps_done"] > 0
    spent_s = sum(record["cpu_s"] - record["cpu_s_before"] for record in (first, second))
    assert result["cpu_s"] == pytest.approx(spent_s, abs=0.2)


def test_extras_without_keys_to_score_are_named(extras: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without scored_features, scored_outcomes"):
        BacktestJob.from_extras({**extras, "scored_features": {}, "scored_outcomes": {}})
