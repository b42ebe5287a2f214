"""Stores written by earlier versions of the code are read by today's: see `tests/doubles/stores/make.py`.

The odd product's store is complete, so on a copy it is also continued with a new key. The stores of shipped products
lack only their rows.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import msgspec
import pytest

from platform_assets import clock, naming, specs, status, trace
from platform_assets.compute.releases import rollback
from platform_assets.handle import Product
from platform_assets.history.reader import History
from platform_assets.records.sketches import KeySketch, TrainingSketch
from platform_assets.report import pages
from platform_assets.serving import releases
from platform_assets.serving.model import Model
from platform_assets.serving.releases import Followed
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import ArtifactStore, canonical
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.doubles import documents
from tests.doubles.stores.make import ACCEPTED, LAST
from tests.doubles.stores.older import NAMES, WHOLE, unpacked
from tests.goldens.products import hourly


def spec_of(name: str) -> ProductSpec:
    return hourly().spec if name == WHOLE else specs.load(name)


@pytest.fixture
def older(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = unpacked(request.param, tmp_path)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    return settings


each_store = pytest.mark.parametrize(("older", "name"), [(name, name) for name in NAMES], indirect=["older"])
the_whole_store = pytest.mark.parametrize("older", [WHOLE], indirect=True)


def test_there_is_a_complete_store_and_one_of_a_shipped_product() -> None:
    assert {WHOLE, "flight_delays"} <= set(NAMES) <= {WHOLE, *specs.names()}


@each_store
def test_every_partition_record_can_be_read(older: Settings, name: str) -> None:
    tables, folder = TableStore(older.root, name), Path(older.root, "records", name)
    stages = {path.name for path in folder.iterdir()}
    assert stages >= {"features", "outcomes", "checkpoint", "onnx", "evaluation", "predictions", "performance", "drift"}
    for stage in stages:
        records = tables.records(stage)
        assert records, stage
        assert all(record.content_digest and record.rows >= 0 for record in records.values()), stage


@each_store
def test_the_live_model_loads_and_answers(older: Settings, name: str) -> None:
    _, release = Ledgers(older.root, name).latest(naming.RELEASES)
    model = Model.load(ArtifactStore(older.root), documents.live_digest(release))
    model.warm()
    assert model.contract.product == name


@each_store
def test_status_can_be_read(older: Settings, name: str) -> None:
    spec = spec_of(name)
    result = status.of_product(Product(spec, older))
    _, release = Ledgers(older.root, name).latest(naming.RELEASES)
    assert result.release.digest == documents.live_digest(release)
    assert documents.live_digest(release)[:12] in status.as_text(result)


@each_store
def test_a_verdict_of_every_release_can_be_read(older: Settings, name: str) -> None:
    ledgers = Ledgers(older.root, name)
    for _, release in ledgers.records(naming.RELEASES):
        verdict = ledgers.read(naming.VERDICTS, documents.live_digest(release))
        assert verdict["passed"] is True
        assert verdict["models"]["challenger"][spec_of(name).task.headline.name] is not None


@each_store
def test_sketches_keep_their_bytes(older: Settings, name: str) -> None:
    artifacts = ArtifactStore(older.root)
    records = TableStore(older.root, name).records("drift").values()
    for stored in (artifacts.get(record.notes["sketch"], compressed=True) for record in records):
        read = KeySketch.read(stored)
        assert read is not None
        assert canonical(read.document()) == stored
    for _, release in Ledgers(older.root, name).records(naming.RELEASES):
        stored = artifacts.bundle(documents.live_digest(release)).read("sketch.json")
        assert canonical(msgspec.json.decode(stored, type=TrainingSketch).document()) == stored


@each_store
def test_the_store_does_not_name_the_machine_that_wrote_it(older: Settings, name: str) -> None:
    source = next(item.name for item in spec_of(name).sources if not item.is_slow)
    files = TableStore(older.root, name).records(naming.stage("raw", source))
    assert all(record.notes["uri"].startswith("/srv/") for record in files.values())
    hosts = {record["host"] for _, record in Ledgers(older.root, name).records(naming.ATTEMPTS)}
    assert hosts == {"laptop"}


# The odd product, with its rows --------------------------------------------------------------------------------------


@the_whole_store
def test_the_store_contains_every_older_form_of_records(older: Settings) -> None:
    ledgers = Ledgers(older.root, WHOLE)
    assert [record["outcome"] for _, record in ledgers.records(naming.RELEASES)] == ["released", "released"]
    verdicts = [ledgers.read(naming.VERDICTS, record.content_digest) for record in _records(older, "onnx")]
    assert [verdict["passed"] for verdict in verdicts] == [True, True, False]
    kinds = {
        key: [record["kind"] for _, record in ledgers.records(f"faults/{key}")] for key in ("2013-01-02T21", ACCEPTED)
    }
    assert kinds == {"2013-01-02T21": ["fault", "repaired"], ACCEPTED: ["fault", "accept", "repair"]}
    for ledger in (naming.ALERT_QUEUE, naming.REQUESTS, naming.ATTEMPTS, naming.INGESTED):
        assert ledgers.newest_number(ledger), ledger
    actions = {ledgers.read(naming.DECISIONS, record.key)["action"] for record in _records(older, "decision")}
    assert actions == {"wait", "retrain", "alert_fault"}


@the_whole_store
def test_the_report_can_be_written(older: Settings) -> None:
    spec = spec_of(WHOLE)
    page = pages.of_product(Product(spec, older))
    assert spec.title in html.unescape(page)
    assert "a sensor was changed" in page, "the reason for which a person accepted a key"


@the_whole_store
def test_an_answer_is_traced_to_its_files(older: Settings) -> None:
    spec, tables = spec_of(WHOLE), TableStore(older.root, WHOLE)
    answer = tables.read("predictions", [LAST]).row(0, named=True)
    result = trace.of_prediction(Product(spec, older), answer["prediction_id"])
    assert result.answer["key"] == LAST
    assert result.verdict.passed is True
    assert all(item.file.sha256 for item in result.features.sources)
    assert answer["prediction_id"] in trace.as_text(result)


@the_whole_store
def test_rows_match_their_records_exactly(older: Settings) -> None:
    tables = TableStore(older.root, WHOLE)
    for stage in ("raw_observations", "features", "outcomes", "predictions", "performance", "drift"):
        records = tables.records(stage)
        rows = tables.read_exact(stage, {key: record.content_digest for key, record in records.items()})
        assert rows.height == sum(record.rows for record in records.values()) > 0, stage


@the_whole_store
def test_the_previous_model_can_be_rolled_back_to(older: Settings) -> None:
    ledgers = Ledgers(older.root, WHOLE)
    first = ledgers.at(naming.RELEASES, 1)
    at = clock.now(older, WHOLE, is_live=False)
    number = ledgers.append(
        naming.RELEASES, rollback(History(older.root, WHOLE).releases_newest_first(), author="a test", at=at).document()
    )
    assert number == 3
    assert documents.live_digest(ledgers.at(naming.RELEASES, 3)) == documents.live_digest(first)


def _records(older: Settings, stage: str) -> list[Any]:
    return list(TableStore(older.root, WHOLE).records(stage).values())


# Signatures, which these stores do not have ---------------------------------------------------------------------------


@each_store
def test_a_service_follows_unsigned_records_unless_it_pins_keys(older: Settings, name: str) -> None:
    ledgers = Ledgers(older.root, name)
    number = ledgers.newest_number(naming.RELEASES)
    assert releases.read(ledgers, number, Followed()).number == number
    with pytest.raises(releases.Refusal, match=f"release {number} is not signed"):
        releases.read(ledgers, number, Followed(), (f"{'A' * 43}=",))
