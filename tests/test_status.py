"""A product's state, read from its records: what is not recorded is unknown."""

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from msgspec import structs, to_builtins

from platform_assets.automation.resources import defaults
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.data import answer_rows, unlabelled
from platform_assets.data.key_changes import LATE_KEYS
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.instance import home
from platform_assets.jobs import intervention
from platform_assets.monitoring import recent_latency
from platform_assets.operations import status
from platform_assets.operations.intervals import inside
from platform_assets.operations.report import pages
from platform_assets.operations.status import facts
from platform_assets.operations.status.state import Refused, State
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.performance import Interval
from platform_assets.store.tables import TableStore
from tests.doubles import documents, recorded, watched

pytestmark = pytest.mark.slow

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")
ANSWER = replace(SPEC.fields[0], name="probability")
SLICED = replace(SPEC, fields=(*SPEC.fields, ANSWER), slices=("probability",))
"""The product, sliced by a column of the stored rows."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    folder = tmp_path_factory.mktemp("kept")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    watched.write(settings, SPEC, KEYS)
    return status.of_product(ProductStore(SPEC, settings))


def test_age_is_counted_in_keys_up_to_the_one_after_the_newest_closed(state: State):
    assert state.newest_closed_key == KEYS[-1]
    assert state.release.age_keys == len(KEYS)
    assert f"{len(KEYS)} days old" in status.as_text(state)


def test_quality_is_that_of_the_newest_labelled_window(state: State):
    quality = state.quality
    assert (quality.first, quality.last, quality.keys) == (KEYS[0], KEYS[-2], len(KEYS) - 1)
    auc = quality.quality["auc"]
    assert auc.low < auc.value < auc.high
    assert f"AUC {auc.value:.4f} ({auc.low:.4f} to {auc.high:.4f})" in status.as_text(state)


def test_drift_and_decision_are_the_newest_with_reasons(state: State):
    assert (state.drift.key, state.drift.verdict, state.drift.percentile) == (KEYS[-1], "fine", 0.5)
    assert state.decision.reasons == ("no reason to train.",)
    assert f"{KEYS[-1]}: wait. no reason to train." in status.as_text(state)


@pytest.mark.costly
def test_nulled_key_is_no_longer_held_and_a_fault_is(settings: Settings, state: State):
    assert state.held == []
    watched.write(settings, SPEC, KEYS)
    fault = documents.fault("fault", KEYS[2], "plans")
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", fault)
    state = status.of_product(ProductStore(SPEC, settings))
    (episode,) = state.held
    assert (episode.key, episode.is_held, episode.check) == (KEYS[2], True, "volume")
    assert f"{KEYS[2]} held (plans: volume)" in status.as_text(state)
    auc = TableStore(settings.root, SPEC.name).records("performance")[KEYS[2]].notes["quality"]["auc"]
    assert state.quality.held == {KEYS[2]: auc}
    assert f"without held days, where callers got AUC {auc:.4f} on {KEYS[2]}" in status.as_text(state)
    assert f"held days left out: AUC {auc:.4f} on {KEYS[2]}" in pages.html(settings, SPEC)


def fail(settings: Settings, job: str, **tags: str) -> str:
    @dg.op
    def broken() -> None:
        raise FileNotFoundError("no file of today\nand more")

    @dg.job(name=job, tags=tags)
    def launched() -> None:
        broken()

    home.prepare(settings)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        return launched.execute_in_process(instance=instance, raise_on_error=False).run_id


def shown_failure(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status", "garment_photos"]) == 0
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  failure"))


@pytest.mark.costly
def test_failure_of_a_run_by_hand_is_shown_before_any_sensor_has_recorded_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
):
    assert shown_failure(capsys) == "  failure    none on record"
    run = fail(settings, "retrain__garment_photos", **{"dagster/partition": "0021"})
    fail(settings, "retrain__flight_delays")
    fail(settings, "verify__garment_photos")
    line = shown_failure(capsys)
    assert "retrain__garment_photos of 0021 to 0021: FileNotFoundError: no file of today" in line
    assert f"(run {run}, step broken)" in line
    assert main(["status", "garment_photos", "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)["products"]
    assert (state["failure"]["run_id"], state["failure"]["number"]) == (run, None)

    recorded = documents.failure(run_id=run, error="as recorded", at_utc=state["failure"]["at_utc"])
    Ledgers(settings.root, "garment_photos").append(naming.FAILURES, recorded)
    assert "as recorded" in shown_failure(capsys)
    later = fail(settings, "__ASSET_JOB", **{naming.TAG_PRODUCT: "garment_photos"})
    assert later in shown_failure(capsys)


@pytest.mark.costly
def test_failure_that_dagster_no_longer_has_is_shown_from_its_record(
    settings: Settings, capsys: pytest.CaptureFixture[str]
):
    fail(settings, "advance__garment_photos")
    recorded = documents.failure(error="newer", at_utc="2999-01-01T00:00:00+00:00")
    Ledgers(settings.root, "garment_photos").append(naming.FAILURES, recorded)
    assert ": newer (run r1)" in shown_failure(capsys)


def test_keys_with_given_up_labels_are_shown_as_long_as_they_are_left_out(settings: Settings):
    tables, ledgers = TableStore(settings.root, SPEC.name), Ledgers(settings.root, SPEC.name)
    assert "no labels" not in status.as_text(status.of_product(ProductStore(SPEC, settings)))
    unlabelled.give_up(tables, KEYS[:2], cutoff=KEYS[2], why="late", at=datetime(2026, 1, 1, tzinfo=UTC))
    ledgers.create(naming.DECISIONS, SPEC.grain.first, {})
    unlabelled.record_arrivals(
        tables, History(settings.root, SPEC.name), SPEC.grain, KEYS[1:3], "2026-01-02T00:00:00+00:00"
    )
    first, second = status.of_product(ProductStore(SPEC, settings)).unlabelled
    assert (first.kind, second.kind, second.until_cutoff) == ("given_up", "arrived", SPEC.grain.key_at(2))
    text = status.as_text(status.of_product(ProductStore(SPEC, settings)))
    assert f"no labels  {KEYS[0]} left out from cutoff {KEYS[2]} on; {KEYS[1]} left out" in text


@pytest.mark.costly
def test_latency_is_judged_over_the_newest_keys_and_shown_in_the_report(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    tables, none = TableStore(settings.root, SPEC.name), status.of_product(ProductStore(SPEC, settings))
    assert none.latency is None
    assert "latency    unknown: no answer of the newest keys was counted" in status.as_text(none)
    for key, rows, slow in ((KEYS[-1], 400, 2), (KEYS[-2], 800, 30)):
        moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=row) for row in range(rows)]
        latencies_us = [150_000 if row < slow else 900 for row in range(rows)]
        columns = {"answered_at_utc": moments, "latency_us": latencies_us, "digest": "a", answer_rows.LATE: False}
        predictions = pl.DataFrame(columns, schema_overrides={"answered_at_utc": answer_rows.MOMENT})
        notes = Ingesting.for_product(SPEC).notes(predictions)
        tables.replace("predictions", {key: predictions}, inputs={key: {}}, code="1", notes={key: notes})
    result = status.of_product(ProductStore(SPEC, settings)).latency
    assert (result.requests, result.slow, result.first, result.is_slow) == (1_200, 32, KEYS[-2], True)
    clause = f"2.67% of 1,200 requests on {KEYS[-2]} to {KEYS[-1]} took longer than 100 ms"
    assert f"  latency    {clause}" in status.as_text(status.of_product(ProductStore(SPEC, settings)))
    assert clause in pages.html(settings, SPEC)
    assert recent_latency.recent_latency(ProductStore(SPEC, settings), KEYS[0]) is None
    json.dumps(to_builtins(result))


def test_a_state_without_records_is_unknown_and_never_good(settings: Settings):
    state = status.of_product(ProductStore(SPEC, settings))
    assert {getattr(state, name) for name in ("release", "quality", "drift", "decision", "failure", "latency")} == {
        None
    }
    text = status.as_text(state)
    for clause in ("none yet", "no answer has a label yet", "no key was judged yet"):
        assert clause in text
    json.dumps(to_builtins(state))


def _config_of(command: str) -> tuple[str, dict[str, Any]]:
    arguments = shlex.split(command)
    assert arguments[:3] == ["dg", "launch", "--job"]
    return arguments[3], json.loads(arguments[arguments.index("--config-json") + 1])


def test_held_key_is_named_in_the_first_line_and_its_commands_are_valid_runs(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    fault = documents.fault("fault", KEYS[2], "plans", since=KEYS[2])
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", fault)
    state = status.of_product(ProductStore(SPEC, settings))
    assert status.as_text(state).splitlines()[0] == f"recorded: Recorded; held: {KEYS[2]}"
    (task,) = state.todo
    assert (task.about, task.key) == ("held", KEYS[2])
    last = SPEC.grain.shift(KEYS[2], SPEC.monitors.repair_within)
    assert f"the platform settles it when {last} is judged" in task.text
    jobs = {job.name: job for job in intervention.build(SPEC, defaults())}
    for step in task.steps:
        job, config = _config_of(step.command)
        assert dg.validate_run_config(jobs[job], config)
        assert step.command in status.as_text(state)
    assert f"landing/recorded/plans/{KEYS[2]}.csv" in task.steps[0].when


def test_key_with_a_repair_under_way_needs_no_action(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", documents.fault("repair", KEYS[2]))
    state = status.of_product(ProductStore(SPEC, settings))
    assert [episode.kind for episode in state.held] == ["repair"]
    assert state.todo == []


@pytest.mark.parametrize(("action", "count"), [("wait", 1), ("retrain", 0)])
def test_stale_model_has_the_command_that_trains_unless_a_training_is_decided(
    settings: Settings, action: str, count: int
):
    tables = TableStore(settings.root, SPEC.name)
    decision = documents.decision(
        KEYS[0], action, cutoff=KEYS[1], reasons=["No labels."], numbers={"overdue_keys": 3, "training_age_keys": 38}
    )
    Ledgers(settings.root, SPEC.name).create(naming.DECISIONS, KEYS[0], decision)
    tables.record("decision", KEYS[0], content_digest="d", inputs={}, code="0")
    tasks = status.of_product(ProductStore(SPEC, settings)).todo
    assert [task.about for task in tasks] == ["stale_model"] * count
    for task in tasks:
        assert task.text.startswith("The newest training is 38 keys old")
        assert ": 3 keys beyond max_age (28) and one decision interval. Not trained because: No labels." in task.text
        assert task.steps[0].command == f"dg launch --job retrain__recorded --partition {KEYS[1]}"


def test_missing_labels_are_named_with_their_delivery_location(settings: Settings):
    tables, ledgers = TableStore(settings.root, SPEC.name), Ledgers(settings.root, SPEC.name)
    spec = replace(SPEC, grain=replace(SPEC.grain, start="2019-11-01"))
    grain, newest = spec.grain, KEYS[-1]
    reach = LATE_KEYS + spec.label_delay + spec.label_patience
    old, given_up, awaited, arrived = (grain.shift(newest, -back) for back in (reach, 3, 2, 1))
    unlabelled.give_up(tables, [old, given_up], cutoff=newest, why="late", at=datetime(2026, 1, 1, tzinfo=UTC))
    tables.replace("outcomes", {arrived: pl.DataFrame({"row": [1]})}, inputs={arrived: {}}, code="0")
    numbers = {"awaits_labels": True, "unlabelled": [awaited, arrived]}
    ledgers.create(naming.DECISIONS, newest, documents.decision(newest, numbers=numbers))
    tables.record("decision", newest, content_digest="d", inputs={}, code="0")
    tasks = status.of_product(ProductStore(spec, settings)).todo
    assert [(task.about, task.key) for task in tasks] == [("missing_label", key) for key in (old, given_up, awaited)]
    first, second, third = tasks
    assert _config_of(first.steps[0].command)[0] == "repair__recorded"
    assert "The platform takes the file in by itself." in second.text
    assert "trainings go on without them" in second.text
    assert "a training waits for them" in third.text
    assert all(f"/{task.key}.csv" in task.text for task in tasks)


@pytest.mark.costly
def test_hundreds_of_keys_without_labels_are_one_line_and_one_thing_to_do(settings: Settings):
    spec = replace(SPEC, grain=replace(SPEC.grain, start="2018-01-01"))
    grain, newest = spec.grain, KEYS[-1]
    reach = LATE_KEYS + spec.label_delay + spec.label_patience
    old = [grain.shift(newest, -back) for back in range(reach + 399, reach - 1, -1)]
    tables, ledgers = TableStore(settings.root, SPEC.name), Ledgers(settings.root, SPEC.name)
    unlabelled.give_up(tables, old, cutoff=newest, why="late", at=datetime(2026, 1, 1, tzinfo=UTC))
    ledgers.create(naming.DECISIONS, newest, documents.decision(newest))
    tables.record("decision", newest, content_digest="d", inputs={}, code="0")
    state = status.of_product(ProductStore(spec, settings))
    assert len(state.unlabelled) == 400, "JSON has each"
    (task,) = state.todo
    ends = f"400 days, {old[0]} to {old[-1]}, have not arrived; trainings go on without them. Deliver them to "
    assert task.text.startswith(f"The labels of {ends}")
    assert f"/{old[-1]}.csv. The file needs the job below." in task.text
    assert (task.key, task.steps[0].when) == (None, "after each delivery, with its key")
    text = status.as_text(state)
    assert f"no labels  400 days left out, {old[0]} to {old[-1]}\n" in text
    assert sum(key in text for key in old) == 2, "only the first and the last are named"


def test_broken_file_is_an_action_to_take(settings: Settings):
    broken = Broken(name="torn", file="products/torn.py", error="torn: no SPEC.", cause=ValueError())
    state = status.read(settings, broken)
    assert [task.about for task in state.todo] == ["broken_file"]
    assert "driftline check torn" in status.as_text(state)


def test_verdict_older_than_a_measure_is_shown_without_it(settings: Settings):
    digest, ledgers = "d" * 64, Ledgers(settings.root, SPEC.name)
    record = documents.verdict(digest, product=SPEC.name)
    for numbers in record["models"].values():
        numbers.pop("brier", None)
    ledgers.create(naming.VERDICTS, digest, record)
    ledgers.append(naming.RELEASES, documents.release(digest=digest, product=SPEC.name))
    text = status.as_text(status.of_product(ProductStore(SPEC, settings)))
    assert "baseline constant  AUC 0.7000, log loss 0.4000, ECE 0.0200" in text


def test_a_refused_model_is_named_with_what_to_do_until_another_one_is_live(settings: Settings):
    digest, ledgers, tables = "d" * 64, Ledgers(settings.root, SPEC.name), TableStore(settings.root, SPEC.name)
    for stage in ("onnx", "evaluation"):
        tables.record(stage, KEYS[-1], content_digest=digest, inputs={"bundle": digest}, code="0")
    ledgers.create(naming.VERDICTS, digest, documents.verdict(digest, product=SPEC.name, passed=False))
    result = status.of_product(ProductStore(SPEC, settings))
    assert result.refused == Refused(cutoff=KEYS[-1], digest=digest, reasons=("It was planted.",))
    text = status.as_text(result)
    assert f"refused    model dddddddddddd of cutoff {KEYS[-1]}: It was planted." in text
    assert f"driftline release {SPEC.name} dddddddddddd --override REASON" in text

    ledgers.append(naming.RELEASES, documents.release(digest="e" * 64, product=SPEC.name))
    result = status.of_product(ProductStore(SPEC, settings))
    assert result.refused is not None and not [item for item in result.todo if item.about == "refused"]
    ledgers.append(naming.RELEASES, documents.release(digest=digest, product=SPEC.name))
    assert status.of_product(ProductStore(SPEC, settings)).refused is None


def test_what_the_next_key_waits_for_is_its_end_its_files_or_a_sensor(settings: Settings):
    product = ProductStore(SPEC, settings)
    next_key = SPEC.grain.shift(KEYS[-1], 1)
    over = SPEC.grain.instant_after(next_key)
    assert facts.next_event(product, KEYS[-1], None) is None
    assert facts.next_event(product, SPEC.grain.last, over) is None
    assert facts.next_event(product, KEYS[-1], over - timedelta(hours=1)).startswith(f"the end of {next_key}, ")
    missing = facts.next_event(product, KEYS[-1], over)
    channels = [product.channels[source.name] for source in SPEC.feature_sources if not source.is_slow]
    assert missing.startswith(" and ".join(channel.cite(next_key) for channel in channels))
    assert f"without it {next_key} closes at " in missing
    assert facts.next_event(product, KEYS[-1], over + timedelta(days=30)).startswith("a sensor, which closes")
    for channel in channels:
        channel.deliver(next_key, b"a\n")
    assert facts.next_event(product, KEYS[-1], over).startswith(f"a sensor, which closes {next_key} ")
    assert f"  waits for  {missing}" in status.as_text(structs.replace(status.of_product(product), waits_for=missing))


def test_interval_stays_within_the_range_of_its_measure():
    auc = measures_of(SPEC.task).headline
    wide = Interval(low=-0.1, high=1.2, value=0.9)
    assert inside(wide, auc) == Interval(low=0.0, high=1.0, value=0.9)
    loss = next(measure for measure in measures_of(SPEC.task).of_answers if measure.name == "log_loss")
    assert inside(wide, loss) == Interval(low=0.0, high=1.2, value=0.9), "log loss has no upper bound"
    alone = Interval(low=None, high=None, value=0.9)
    assert inside(alone, auc) == alone


@pytest.mark.costly
def test_slices_are_measured_over_the_newest_window_and_the_weakest_is_named(settings: Settings):
    spec = SLICED
    watched.write(settings, SPEC, KEYS)
    state = status.of_product(ProductStore(spec, settings))
    assert {one.slice for one in state.slices} == {"probability"}
    assert sum(one.rows for one in state.slices) == (len(KEYS) - 1) * watched.ROWS
    assert not status.text.weakest_slices(state), "each quarter has fewer than 100 rows"
    larger = [structs.replace(one, rows=100) for one in state.slices]
    lowest = min(one.quality["auc"] for one in larger)
    assert "weakest    probability = " in status.as_text(structs.replace(state, slices=larger))
    (weakest,) = status.text.weakest_slices(structs.replace(state, slices=larger))
    assert weakest.quality["auc"] == lowest


@pytest.mark.costly
def test_slices_are_unknown_where_the_rows_cannot_be_read(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    for file in (Path(settings.root) / "tables" / SPEC.name / "performance").rglob("*.parquet"):
        file.unlink()
    state = status.of_product(ProductStore(SLICED, settings))
    assert state.slices is None
    assert state.quality is not None
