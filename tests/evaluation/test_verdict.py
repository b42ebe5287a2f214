"""Verdicts: planted challengers get the right verdict, and the record is self-contained."""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from platform_assets.evaluation import verdict
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, MultiClass, Regression
from tests.doubles import rivals
from tests.volume import draws

MEASURES = measures_of(Binary(threshold=0.3))
GATES = {"max_drop": 0.010, "confidence": 0.95}


@dataclass(frozen=True)
class _Holdout:
    """Rows whose days are not independent, and a champion that sees the truth through some noise."""

    rows: pl.DataFrame
    logit: np.ndarray

    @property
    def label(self) -> np.ndarray:
        return self.rows["label"].to_numpy()

    def model(self, noise: float, seed: int = 0) -> np.ndarray:
        """Answer with the true logit and noise: the more noise, the lower the AUC."""
        return _noisy(self.logit, noise, seed)

    @property
    def ignorant(self) -> np.ndarray:
        """Answer like a model trained on shuffled labels: near the base rate, whatever the row."""
        return _noisy(np.full(self.logit.size, -1.15), 0.3, seed=7)

    @property
    def baselines(self) -> dict[str, np.ndarray]:
        rate = np.full(self.logit.size, self.label.mean())
        return {"constant": rate, "logistic": _noisy(0.6 * self.logit - 0.6, 0.6, seed=8)}


def _probability(logit: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def _noisy(logit: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return _probability(logit + np.random.default_rng([seed, 17]).normal(0, noise, logit.size))


def _blend(model: np.ndarray, noise: float) -> np.ndarray:
    """Answer like another model, a little worse."""
    return _noisy(np.log(model / (1 - model)), noise, seed=9)


def _holdout(keys: int = 14, rows_per_key: int = 850, seed: int = 0) -> _Holdout:
    random = np.random.default_rng(seed)
    count = keys * rows_per_key
    logit = -1.3 + np.repeat(random.normal(0, 0.5, keys), rows_per_key) + random.normal(0, 1.15, count)
    rows = pl.DataFrame(
        {
            "key": np.repeat([f"{number:03d}" for number in range(keys)], rows_per_key),
            "label": pl.Series(random.random(count) < 1 / (1 + np.exp(-logit))).cast(pl.Int8),
            "origin": random.choice(["EWR", "JFK", "LGA"], count),
            "distance_mi": random.integers(80, 2500, count),
        }
    )
    return _Holdout(rows, logit)


def _judge(holdout: _Holdout, challenger: np.ndarray, champion: np.ndarray | None, **gates: float) -> dict:
    return verdict.judge(
        holdout.rows,
        challenger,
        holdout.baselines,
        champion,
        MEASURES,
        slice_columns=["origin", "distance_mi"],
        **(GATES | gates),
    )


def _against(record: dict, name: str) -> dict:
    return next(item for item in record["comparisons"] if item["against"] == name)


@pytest.fixture(scope="module")
def holdout() -> _Holdout:
    return _holdout()


@pytest.fixture(scope="module")
def champion(holdout: _Holdout) -> np.ndarray:
    return holdout.model(0.3)


def test_the_champions_twin_passes_as_indistinguishable(holdout, champion):
    record = _judge(holdout, champion.copy(), champion)
    assert record["passed"] is True
    comparison = _against(record, "champion")
    same = {"difference": 0.0, "standard_error": 0.0, "low": 0.0, "high": 0.0, "p_worse": 1.0}
    assert [comparison[name] for name in ("auc", "log_loss", "ece")] == [same] * 3
    assert comparison["power"] is None
    assert record["reasons"][0].startswith("Cannot be told apart from the champion: AUC 0.7")
    assert any("power cannot be stated" in note for note in record["notes"])


def test_a_challenger_trained_on_shuffled_labels_fails(holdout, champion):
    record = _judge(holdout, holdout.ignorant, champion)
    assert record["passed"] is False
    assert abs(record["models"]["challenger"]["auc"] - 0.5) < 0.02
    assert {item["against"]: item["passed"] for item in record["comparisons"]} == {
        "champion": False,
        "baseline constant": False,
        "baseline logistic": False,
    }
    assert record["reasons"][1].startswith("Worse than baseline constant: log loss 0.")


def test_a_challenger_two_hundredths_worse_fails():
    holdout = _holdout(keys=28, seed=1)
    champion, worse = holdout.model(0.3), holdout.model(0.6, seed=1)
    record = _judge(holdout, worse, champion)
    comparison = _against(record, "champion")
    assert -0.024 < comparison["auc"]["difference"] < -0.016
    assert comparison["power"] > 0.9
    assert record["passed"] is False
    assert record["reasons"][0] == comparison["reason"]
    assert comparison["reason"].startswith("Worse than the champion: AUC is worse beyond chance (p = 0.0")
    assert all(item["passed"] for item in record["comparisons"] if item["against"] != "champion")


@pytest.mark.costly
def test_a_drop_within_the_margin_that_is_certain_fails():
    holdout = _holdout(keys=60, seed=2)
    champion = holdout.model(0.3)
    record = _judge(holdout, _blend(champion, 0.33), champion)
    comparison = _against(record, "champion")
    assert -0.010 < comparison["auc"]["difference"] < 0
    assert comparison["auc"]["high"] < 0
    assert record["passed"] is False
    assert "AUC is worse beyond chance" in comparison["reason"]


def test_a_drop_within_the_margin_with_a_wide_interval_passes_and_states_its_power():
    holdout = _holdout(keys=5, rows_per_key=300, seed=1)
    champion = holdout.model(0.3)
    record = _judge(holdout, holdout.model(0.38, seed=1), champion)
    comparison = _against(record, "champion")
    assert -0.010 < comparison["auc"]["difference"] < 0
    assert comparison["auc"]["low"] < -0.010
    assert comparison["auc"]["high"] > 0
    assert comparison["power"] < 0.5
    assert record["passed"] is True
    assert f"with probability {comparison['power']:.2f}; one of" in record["notes"][0]
    assert any(note.startswith("The interval is wide") for note in record["notes"])


def test_a_better_challenger_is_called_better(holdout, champion):
    record = _judge(holdout, _probability(holdout.logit), champion)
    assert record["passed"] is True
    assert record["reasons"][0].startswith("Better than the champion in AUC and log loss: AUC 0.")


def test_without_a_champion_the_baselines_decide_and_the_record_says_so(holdout, champion):
    record = _judge(holdout, champion, None)
    assert record["passed"] is True
    assert record["notes"][0] == "There is no champion yet; judged against the baselines only."
    assert record["notes"][1].startswith("Power: a true drop of 0.0100 in AUC against the baseline logistic")
    assert set(record["models"]) == {"challenger", "baseline constant", "baseline logistic"}
    assert set(record["slices"]) == {"challenger"}


def test_one_unbeaten_baseline_is_enough_to_fail(holdout, champion):
    record = verdict.judge(
        holdout.rows, champion, holdout.baselines | {"oracle": holdout.model(0)}, None, MEASURES, **GATES
    )
    assert record["passed"] is False
    assert record["reasons"][0].startswith("Worse than baseline oracle")


def test_beyond_the_margin_weaker_evidence_is_enough(holdout, champion):
    result = next(
        (challenger, item)
        for noise in np.arange(0.2, 0.6, 0.01)
        for challenger in [_blend(champion, noise)]
        for item in [_against(_judge(holdout, challenger, champion), "champion")]
        if 0.0125 < item["auc"]["p_worse"] <= 0.025
    )
    challenger, drop = result[0], -result[1]["auc"]["difference"]
    at_margin = _against(_judge(holdout, challenger, champion, max_drop=drop), "champion")
    inside = _against(_judge(holdout, challenger, champion, max_drop=drop - 1e-6), "champion")
    assert "than the margin" not in at_margin["reason"]
    assert f"AUC is lower by more than the margin of {drop:.4f} (p = 0.0" in inside["reason"]
    assert not inside["passed"]


def test_a_champion_whose_answers_are_shifted_is_refused(holdout):
    """From the requirements: ranking alone cannot detect it."""
    for seed in range(3):
        world = _holdout(seed=seed)
        champion = _probability(world.logit - np.repeat(np.random.default_rng(seed).normal(0, 0.2, 14), 850))
        record = _judge(world, _probability(np.log(champion / (1 - champion)) + 0.35), champion)
        comparison = _against(record, "champion")
        assert comparison["auc"]["difference"] == pytest.approx(0, abs=1e-4)
        assert record["passed"] is False
        assert "log loss is worse beyond chance" in comparison["reason"]
    confident = _probability(1.6 * np.log(champion / (1 - champion)))
    assert not _against(_judge(world, confident, champion), "champion")["passed"], "a slope is calibration too"


def test_beats_is_used_only_if_the_interval_supports_it(holdout, champion):
    near = {"twin": _blend(champion, 0.05), "constant": holdout.baselines["constant"]}
    for challenger, baselines in ((champion, near), (near["twin"], near | {"twin": champion})):
        record = verdict.judge(holdout.rows, challenger, baselines, None, MEASURES, **GATES)
        twin, constant = _against(record, "baseline twin"), _against(record, "baseline constant")
        assert twin["log_loss"]["low"] < 0 < twin["log_loss"]["high"]
        assert twin["reason"].startswith("Cannot be told apart from baseline twin: log loss 0.")
        is_lower = record["models"]["challenger"]["log_loss"] < record["models"]["baseline twin"]["log_loss"]
        assert twin["passed"] is is_lower
        assert ("it passes because" if is_lower else "it fails because") in twin["reason"]
        assert constant["reason"].startswith("Beats baseline constant: ")
        assert constant["log_loss"]["high"] < 0


def test_the_record_is_plain_json_and_independent_of_row_order(holdout, champion):
    challenger = holdout.model(0.3, seed=1)
    record = _judge(holdout, challenger, champion)
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    assert json.loads(text) == record
    order = np.random.default_rng(3).permutation(holdout.rows.height)
    turned = verdict.judge(
        holdout.rows[order],
        challenger[order],
        {name: values[order] for name, values in holdout.baselines.items()},
        champion[order],
        MEASURES,
        slice_columns=["origin", "distance_mi"],
        **GATES,
    )
    assert json.dumps(turned, sort_keys=True, allow_nan=False) == text


def test_the_record_has_every_part(holdout, champion):
    record = _judge(holdout, holdout.model(0.3, seed=1), champion)
    assert record["gates"] == {"headline": "auc", **GATES}
    assert record["rows"]["labelled"] == record["rows"]["keys"] * 850 == holdout.rows.height
    assert (record["rows"]["first_key"], record["rows"]["last_key"]) == ("000", "013")
    assert [item["against"] for item in record["comparisons"]] == ["champion", "baseline constant", "baseline logistic"]
    assert {row["slice"] for row in record["slices"]["champion"]} == {"origin", "distance_mi"}
    assert len(record["calibration"]["challenger"]) == 15
    assert record["decided"]["challenger"]["threshold"] == 0.3


def test_rows_without_a_label_are_left_out_and_counted(holdout, champion):
    challenger = holdout.model(0.3, seed=1)
    has_label = np.arange(holdout.rows.height) % 7 != 0
    holed = holdout.rows.with_columns(label=pl.when(pl.Series(has_label)).then("label"))
    record = verdict.judge(holed, challenger, holdout.baselines, champion, MEASURES, slice_columns=["origin"], **GATES)
    expected = verdict.judge(
        holdout.rows.filter(has_label),
        challenger[has_label],
        {name: values[has_label] for name, values in holdout.baselines.items()},
        champion[has_label],
        MEASURES,
        slice_columns=["origin"],
        **GATES,
    )
    dropped = int((~has_label).sum())
    assert record["rows"].pop("without_label") == dropped
    assert expected["rows"].pop("without_label") == 0
    assert record["notes"].pop() == f"{dropped} rows have no label and are left out."
    assert record == expected


def test_input_that_cannot_be_judged_is_an_error_and_not_a_verdict(holdout, champion):
    rows, baselines = holdout.rows, holdout.baselines
    nan = np.where(np.arange(champion.size) == 5, np.nan, champion)
    one_key = rows["key"] == "000"

    def judge(rows=rows, challenger=champion, baselines=baselines, champion=None, slices=(), **gates):
        return verdict.judge(rows, challenger, baselines, champion, MEASURES, slice_columns=slices, **(GATES | gates))

    with pytest.raises(ValueError, match="there are no baselines"):
        judge(baselines={})
    with pytest.raises(ValueError, match=r"rows lack \['carrier'\]"):
        judge(slices=["carrier"])
    with pytest.raises(ValueError, match=r"champion gave answers of shape \(5,\)"):
        judge(champion=champion[:5])
    with pytest.raises(ValueError, match="the first is nan in row 5"):
        judge(challenger=nan)
    with pytest.raises(ValueError, match="none of 11900 rows has a label"):
        judge(rows=rows.with_columns(label=pl.lit(None, dtype=pl.Int8)))
    with pytest.raises(ValueError, match=r"AUC is not defined on the 11900 labelled rows.*'positives': 0"):
        judge(rows=rows.with_columns(label=pl.lit(0, dtype=pl.Int8)))
    with pytest.raises(ValueError, match=r"max_drop is -0\.01"):
        judge(max_drop=-0.01)
    with pytest.raises(ValueError, match=r"Raise Product\.holdout"):
        judge(rows.filter(one_key), champion[one_key], {"constant": np.full(850, 0.24)})
    with pytest.raises(ValueError, match="none of 0 rows has a label"):
        judge(rows.clear(), champion[:0], {"constant": champion[:0]})


def test_other_kinds_are_judged_by_their_own_headline() -> None:
    random = np.random.default_rng(0)
    key = np.repeat([f"{number:03d}" for number in range(10)], 100)
    labels = random.integers(0, 3, key.size)
    sharp, dull = (np.eye(3)[labels] * weight + (1 - weight) / 3 for weight in (0.9, 0.5))
    shifted = np.roll(sharp, 1, axis=1)
    task = MultiClass(classes=("a", "b", "c"))
    rows = pl.DataFrame({"key": key, "label": [task.classes[index] for index in labels]})
    even = {"constant": np.full((key.size, 3), 1 / 3)}
    result = verdict.judge(rows, sharp, even, dull, measures_of(task), **GATES)
    assert result["passed"]
    assert result["models"]["challenger"]["accuracy"] == 1
    assert result["comparisons"][0]["accuracy"]["difference"] == 0
    assert result["reasons"][0].startswith(
        "Better than the champion in log loss and ECE: accuracy 1.0000 against 1.0000"
    )
    worse_verdict = verdict.judge(rows, shifted, even, dull, measures_of(task), **GATES)
    assert not worse_verdict["passed"]
    assert "accuracy 0.0000 against 1.0000" in worse_verdict["reasons"][0]

    truth = random.normal(20, 5, key.size)
    rows = pl.DataFrame({"key": key, "label": truth})
    near, far = (np.stack([truth + random.normal(0, error, key.size), np.full(key.size, error)], 1) for error in (1, 4))
    flat = {"constant": np.tile([truth.mean(), truth.std()], (key.size, 1))}
    result = verdict.judge(rows, near, flat, far, measures_of(Regression(unit="m")), **GATES)
    assert result["passed"]
    assert result["models"]["challenger"]["rmse"] == pytest.approx(1, abs=0.05)
    assert result["comparisons"][0]["r2"]["low"] > 0
    assert not verdict.judge(rows, far, flat, near, measures_of(Regression(unit="m")), **GATES)["passed"]
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "keys", "rows"),
    [
        ("binary", 8, 30),
        ("multi_class", 6, 30),
        ("regression", 6, 30),
    ],
)
def test_an_equal_challenger_is_seldom_refused(kind: str, keys: int, rows: int) -> None:
    """The required bound over all comparisons, margins included; holdouts of this size have wide errors."""
    assert rivals.refused(rivals.Contest(kind=kind, keys=keys, rows=rows), draws=draws(1_000), seed=1913) <= 0.05


@pytest.mark.costly
def test_a_worse_challenger_is_refused() -> None:
    assert rivals.refused(rivals.Contest(rows=400, extra=0.5), draws=20, seed=5) >= 0.9
    # With mean p(1 - p) = .16 a shift s costs .08 s^2, and the keys' shocks of sd .5 move that by .08 s / sqrt(14):
    # t = 3.7 s, so only a shift of 1 exceeds 2.5. Row Q5 prints the power at smaller ones.
    assert rivals.refused(rivals.Contest(rows=850, noise=0.1, shift=1.0), draws=20, seed=6) >= 0.8
    assert rivals.refused(rivals.Contest(kind="multi_class", rows=400, shift=1.0), draws=20, seed=7) >= 0.9
    assert rivals.refused(rivals.Contest(kind="regression", rows=400, extra=0.4), draws=20, seed=8) >= 0.9
