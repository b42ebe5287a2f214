"""Every stage of the shipped products and of an odd one stores the same content as when the golden was recorded."""

import copy
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets.base.settings import Settings
from platform_assets.data import outcomes_maker
from platform_assets.launch import profiles
from platform_assets.launch.local import SubprocessLauncher
from platform_assets.products import garment_photos
from tests.doubles.products import hourly_temperature
from tests.goldens import stages, versions, watched
from tests.goldens.comparing import ANSWER_TOLERANCE, differences, path_of, with_answers_recorded_before
from tests.goldens.content import gathered
from tests.goldens.products import WALKS
from tests.goldens.walk import walk
from tests.goldens.watching import MAKERS, export_once, watching

pytestmark = pytest.mark.slow

MOST_SHOWN = 40
NO_PHOTOS = pytest.mark.skipif(
    not garment_photos.DATASET.exists(), reason="needs the photos: apt-get install dataset-fashion-mnist"
)
PRODUCTS = [pytest.param(name, marks=[NO_PHOTOS] if name == "garment_photos" else []) for name in WALKS]


def golden_of(product: str) -> dict[str, Any]:
    return json.loads(path_of(product).read_text(encoding="utf-8"))


@pytest.mark.costly
@pytest.mark.thorough  # `.ci/run` runs these three all the same
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_stage_stores_the_same_as_its_golden(
    settings: Settings, product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = WALKS[product]()
    in_processes = product == "hourly_temperature"  # one product's steps run as a launcher starts them
    reports = watched.arranged(monkeypatch, product, tmp_path / "reports")
    export_once()
    with watching() as watch:
        served = walk(scenario, settings, SubprocessLauncher(settings) if in_processes else None)
    steps = {report.step: report for report in reports()}
    assert all(report.maker == watched.MAKERS[step] and report.ran > 100 for step, report in steps.items())
    assert set(steps) == (set(watched.MAKERS) if in_processes else set()), "a step was not watched"
    in_steps = {stage for stage, maker in MAKERS.items() if in_processes and maker in watched.MAKERS.values()}
    assert {*watch.makers, *in_steps} == set(MAKERS), "a stage was not watched"
    outside = watch.missing() | {step: report.missing for step, report in steps.items() if report.missing}
    assert outside == {}, "this code ran in a maker or in a step's process and is outside of its digest"
    result = json.loads(json.dumps(gathered(scenario, settings, served)))
    changes = differences(golden_of(product), result)
    recorded = stages.recorded()[product]
    unchanged = [stage for stage, digest in stages.now()[product].items() if recorded.get(stage) == digest]
    too_narrow = sorted(stage for stage in unchanged if any(f".{stage}." in line for line in changes))
    assert not too_narrow, (
        f"the content of these stages changed and their digests did not: {too_narrow}, {changes[:MOST_SHOWN]}"
    )
    advice = (
        f"If intended, record it again (python -m tests.goldens.record {product}) and give the reason in the commit."
    )
    assert not changes, "\n".join(
        [f"{len(changes)} values of {path_of(product).name} changed. {advice}", *changes[:MOST_SHOWN]]
    )


def test_stage_digests_equal_the_recorded_ones() -> None:
    now, recorded = stages.now(), stages.recorded()
    changed = [
        f"{product}.{stage}"
        for product in now
        for stage, digest in now[product].items()
        if recorded[product].get(stage) != digest
    ]
    assert not changed, (
        f"these stages would be made again: {', '.join(changed)}. If that is intended, record their digests (python -m "
        "tests.goldens.record digests) and name the stages in the commit."
    )


def test_a_golden_moves_only_with_the_version_of_its_rows() -> None:
    recorded = versions.recorded()
    assert versions.moved(recorded) == [], "raise the NUMBER of the maker, in the commit that moves the golden"
    absent = [
        f"{product}.{stage}"
        for product, present in versions.now().items()
        for stage, (version, _) in present.items()
        if version not in recorded.get(product, {}).get(stage, {})
    ]
    assert absent == [], "record the present versions: python -m tests.goldens.record versions"


def test_a_moved_golden_is_found_by_the_version_that_did_not_move() -> None:
    recorded = versions.recorded()
    version, _ = versions.now()["hourly_temperature"]["features"]
    changed = {
        **recorded,
        "hourly_temperature": {**recorded["hourly_temperature"], "features": {version: "other content"}},
    }
    assert versions.moved(changed) == ["hourly_temperature.features"]


def test_a_watch_detects_code_that_a_digest_does_not_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    def priced(frame: pl.DataFrame, keys: Any, made_by: str) -> dict[str, pl.DataFrame]:
        profiles.profile("cpu_small")
        return {}

    monkeypatch.setattr(outcomes_maker, "by_key", priced)
    moment = pl.Datetime("us", "UTC")
    types = {"key": pl.String, "station": pl.String, "observed_at_utc": moment, "temperature_f": pl.Float64}
    with watching() as watch:
        outcomes_maker.Labelling.for_product(hourly_temperature.SPEC).make(
            (), pl.DataFrame(schema={**types, "known_at_utc": moment})
        )
    profile, double = watch.missing()["outcomes"]
    assert profile.startswith("platform_assets/launch/profiles.py:")
    assert double.startswith("tests/goldens/test_goldens.py:")


@pytest.mark.parametrize("product", WALKS)
def test_a_golden_has_a_model_answers_a_window_and_a_settled_fault(product: str) -> None:
    learned = golden_of(product)["learned"]
    assert len(learned["evaluation"]) == 2
    assert (
        learned["evaluation"][max(learned["onnx"])]["champion_digest"]
        == learned["onnx"][min(learned["onnx"])]["digest"]
    )
    assert all(
        answer["answered"] for key, answer in learned["service"]["answers"].items() if key not in learned["faults"]
    )
    windows = [record["notes"]["window"] for record in learned["performance"].values()]
    assert any(window is not None and window["model"]["p_value"] is not None for window in windows)
    assert [[record["kind"] for record in records] for records in learned["faults"].values()] == [["fault", "repaired"]]
    assert {record["action"] for record in learned["decision"].values()} >= {"wait", "retrain", "alert_fault"}


def changed_paths(change: Any, *, elsewhere: bool) -> list[str]:
    golden = golden_of("hourly_temperature")
    result = copy.deepcopy(golden)
    change(result)
    if elsewhere:
        result["machine"]["torch_cpu_capability"] = "another"
    return differences(golden, result)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_digest_of_data_is_compared_on_every_machine(elsewhere: bool) -> None:
    def change(document: dict[str, Any]) -> None:
        next(iter(document["data"]["features"].values()))["digest"] = "0" * 64

    (line,) = changed_paths(change, elsewhere=elsewhere)
    assert line.startswith("data.features.2013-01-01T06.digest: ")


@pytest.mark.parametrize(("off", "elsewhere", "count"), [(0.9, False, 1), (0.9, True, 0), (1.1, True, 1)])
def test_an_answer_is_compared_exactly_here_and_within_its_tolerance_elsewhere(off: float, elsewhere: bool, count: int):
    def change(document: dict[str, Any]) -> None:
        answer = document["learned"]["service"]["answers"]["2013-01-02T18"]["first"][0]
        answer["value"] *= 1 + off * ANSWER_TOLERANCE

    assert len(changed_paths(change, elsewhere=elsewhere)) == count


def test_answers_recorded_earlier_on_another_machine_are_accepted_too() -> None:
    before = golden_of("hourly_temperature")
    before.pop("answers_elsewhere", None)
    here = copy.deepcopy(before) | {"machine": {"torch_cpu_capability": "another"}}
    here["learned"]["service"]["answers"]["2013-01-02T18"]["first"][0]["value"] *= 2
    golden = with_answers_recorded_before(here, before)
    third = copy.deepcopy(before) | {"machine": {"torch_cpu_capability": "a third"}}
    assert differences(golden, third) == []
    assert len(differences(here, third)) == 1
    assert len(differences(golden, third | {"machine": here["machine"]})) >= 1, "compared exactly where it was recorded"
    again = with_answers_recorded_before(copy.deepcopy(before), golden)
    assert [item["machine"] for item in again["answers_elsewhere"]] == [here["machine"]]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_numbers_computed_from_answers_are_compared_only_on_the_same_machine(elsewhere: bool) -> None:
    def change(document: dict[str, Any]) -> None:
        verdict = document["learned"]["evaluation"]["2013-01-02T18"]
        verdict["models"]["challenger"]["log_loss"] += 0.5
        verdict["decided"]["challenger"]["bins"][0]["rows"] += 1
        models = document["learned"]["predictions"]["2013-01-02T18"]["notes"]["models"]
        models["0" * 64] = models.pop(next(iter(models)))

    assert len(changed_paths(change, elsewhere=elsewhere)) == (0 if elsewhere else 4)


@pytest.mark.parametrize(("value", "count"), [(None, 1), (float("inf"), 1), (3, 1), (0.5, 0)])
def test_a_number_on_another_machine_must_be_finite(value: Any, count: int) -> None:
    def change(document: dict[str, Any]) -> None:
        document["learned"]["evaluation"]["2013-01-02T18"]["models"]["challenger"]["log_loss"] = value

    assert len(changed_paths(change, elsewhere=True)) == count


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_count_of_rows_is_compared_on_every_machine(elsewhere: bool) -> None:
    def change(document: dict[str, Any]) -> None:
        document["learned"]["predictions"]["2013-01-02T18"]["notes"]["models"]["0" * 64] = 1
        document["learned"]["performance"]["2013-01-02T18"]["rows"] += 1

    assert len(changed_paths(change, elsewhere=elsewhere)) == (2 if not elsewhere else 3)


def test_a_sentence_on_another_machine_may_differ_only_in_numbers() -> None:
    def say(text: str) -> Any:
        return lambda document: document["learned"]["evaluation"]["2013-01-02T18"].update(reasons=[text] * 2)

    reasons = golden_of("hourly_temperature")["learned"]["evaluation"]["2013-01-02T18"]["reasons"]
    golden, document = (
        {"machine": at, "data": {}, "learned": {"said": text}} for at, text in ((1, reasons[0]), (2, ""))
    )
    document["learned"]["said"] = reasons[0].replace("0.", "1.")
    assert differences(golden, document) == []
    document["learned"]["said"] = reasons[0].replace("Beats", "Equals")
    assert len(differences(golden, document)) == 1


def test_added_and_removed_entries_are_listed() -> None:
    def change(document: dict[str, Any]) -> None:
        document["learned"]["drift"]["2013-01-01T00"] = document["learned"]["drift"].pop("2013-01-01T06")

    assert changed_paths(change, elsewhere=True) == [
        "learned.drift.2013-01-01T00: is new",
        "learned.drift.2013-01-01T06: is gone",
    ]


def test_every_golden_has_its_walk() -> None:
    assert {path.stem for path in Path(path_of("any")).parent.glob("*.json")} == {*WALKS, "digests", "versions"}
