"""A cutoff becomes a checkpoint, a bundle, a verdict, a proved service and a release, for batches as for days."""

import getpass
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation import evaluation, signing
from platform_assets.evaluation.evaluation_maker import Evaluating
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.evaluation.releases import next_release
from platform_assets.product.spec import Training
from platform_assets.serving.follow import releases
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from platform_assets.training import labelled_rows
from tests.doubles import documents
from tests.doubles import numbered_batches as batches
from tests.doubles.advancing import metadata_of
from tests.doubles.launcher import InProcessLauncher

pytestmark = pytest.mark.slow

SPEC = replace(
    batches.SPEC,
    training=Training(threads=1, epochs=60, batch_size=16, learning_rate=0.01, settings=batches.SPEC.training.settings),
    holdout=3,
    min_keys=8,
)
MAKER = Evaluating.for_product(SPEC, measures_of(SPEC.task))
CUTOFF, LATER = "0030", "0036"
Execute = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def public_key(tmp_path: Path) -> str:
    """The public half of the key with which the store of this test signs."""
    return signing.make_key(tmp_path / "signing.pem")


@pytest.fixture
def store(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> StoreResource:
    clock.move(settings, SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))
    signs = "public_key" in request.fixturenames
    key = {"DRIFTLINE_SIGNING_KEY_FILE": str(tmp_path / "signing.pem")} if signs else {}
    return StoreResource(variables={**settings.to_environment(), **key})


@pytest.fixture
def launcher(settings: Settings) -> InProcessLauncher:
    return InProcessLauncher(SPEC, settings)


@pytest.fixture
def execute(instance: dg.DagsterInstance, store: StoreResource, launcher: InProcessLauncher) -> Execute:
    """Run a job of the product: a range of keys, a cutoff, or neither with a config."""
    defs = build_defs(specs=[SPEC], resources={"store": store, "launcher": launcher})

    def run(job: str, *keys: str, **more: Any) -> dg.ExecuteInProcessResult:
        if len(keys) == 2:
            more["tags"] = {
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[1],
            }
        elif keys:
            more["partition_key"] = keys[0]
        return defs.resolve_job_def(naming.job(job, SPEC.name)).execute_in_process(instance=instance, **more)

    return run


@pytest.fixture
def advanced(advance_to: Callable[..., TableStore]) -> TableStore:
    return advance_to("0036")


def released(settings: Settings) -> list[dict[str, Any]]:
    return [record for _, record in Ledgers(settings.root, SPEC.name).records(naming.RELEASES)]


def plant_verdict(settings: Settings, digest: str, *, passed: bool) -> None:
    record = documents.verdict(digest, passed, cutoff=CUTOFF)
    Ledgers(settings.root, SPEC.name).create(naming.VERDICTS, digest, record)


def release_config(digest: str) -> dict[str, Any]:
    return {"ops": {f"{SPEC.name}__release": {"config": {"digest": digest, "why": "I say so"}}}}


@pytest.mark.costly
def test_batches_go_from_a_cutoff_to_a_release(
    settings: Settings,
    advanced: TableStore,
    execute: Execute,
    launcher: InProcessLauncher,
    public_key: str,
) -> None:
    result = execute("retrain", CUTOFF)
    bundle = ArtifactStore(settings.root).bundle(metadata_of(result, "onnx")["bundle_sha256"])
    assert bundle.manifest["training_keys"] == list(batches.GRAIN.span("0001", "0024"))
    assert bundle.manifest["holdout_keys"] == ["0025", "0026", "0027"]
    assert metadata_of(result, "evaluation")["passed"] is True, metadata_of(result, "evaluation")["reasons"]
    (check,) = [item for item in result.get_asset_check_evaluations() if item.check_name == "verdict"]
    assert (check.passed, check.blocking, check.metadata["digest"].value) == (True, False, bundle.digest)
    assert metadata_of(result, "service")["smoke_max_abs_difference"] <= 1e-6
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        assert next(iter(materialization.metadata)) == "result", materialization.asset_key
        assert len(str(materialization.metadata["result"].value)) > 20, materialization.asset_key
    assert [documents.live_digest(record) for record in released(settings)] == [bundle.digest]
    followed = releases.read(Ledgers(settings.root, SPEC.name), 1, 0, None, (public_key,))
    assert followed.digest == bundle.digest, "evaluation and release signed what a service with the key follows"
    assert metadata_of(result, "release")["outcome"] == "released"
    assert "mean_cpu_cores" in metadata_of(result, "checkpoint")

    again = execute("retrain", CUTOFF)
    assert launcher.ran == ["train", "export"], "the second run trains and exports nothing"
    assert metadata_of(again, "release")["outcome"] == "already_live"
    assert len(released(settings)) == 1

    damaged = bundle.manifest["blobs"]["model.onnx"]["sha256"]
    Path(settings.root, naming.blob_path(damaged)).write_bytes(b"")
    execute("retrain", CUTOFF, asset_selection=[dg.AssetKey(naming.asset_key(SPEC.name, "onnx"))])
    assert launcher.ran == ["train", "export", "export"], "a bundle that cannot be read is exported again"
    assert bundle.is_whole

    weights = bundle.manifest["blobs"]["weights.safetensors"]["sha256"]
    Path(settings.root, naming.blob_path(weights)).write_bytes(b"x")
    assets = [dg.AssetKey(naming.asset_key(SPEC.name, stage)) for stage in ("checkpoint", "onnx")]
    execute("retrain", CUTOFF, asset_selection=assets)
    assert launcher.ran[3:] == ["train"], "retraining the checkpoint also repairs the bundle"
    assert bundle.is_whole

    store, told = ArtifactStore(settings.root), {**bundle.manifest, "cutoff": "0025", "holdout_keys": ["0020", "0021"]}
    files = {name: bundle.read(name) for name in told.pop("blobs")}
    earlier = store.write_bundle(files, {name: told[name] for name in told if name != "format"})
    with pytest.raises(dg.Failure, match="was trained on 2 keys of this holdout"):
        evaluation.judge(ProductStore(SPEC, settings), earlier)


@pytest.mark.costly
def test_training_rows_are_reproducible_after_every_key_was_rewritten(
    settings: Settings, advanced: TableStore, execute: Execute
) -> None:
    result = execute("retrain", CUTOFF, raise_on_error=False, asset_selection=[_key("checkpoint"), _key("onnx")])
    manifest = ArtifactStore(settings.root).bundle(metadata_of(result, "onnx")["bundle_sha256"]).manifest

    def trained_on() -> pl.DataFrame:
        return labelled_rows.read(
            SPEC.fields,
            SPEC.task,
            advanced,
            keys=manifest["training_keys"],
            features=manifest["data"]["features"],
            outcomes=manifest["data"]["outcomes"],
            known_before=datetime.fromisoformat(manifest["known_before"]),
        ).frame

    before = trained_on()
    for key in batches.GRAIN.span("0001", "0036"):
        batches.land(settings.root, "readings", key, batches.readings(key).replace("0.0,", "5.0,"))
        batches.land(settings.root, "verdicts", key, batches.verdicts(key).replace("true", "false"))
    execute("advance", "0001", "0036")
    now = advanced.records("features", manifest["training_keys"])
    assert all(now[key].content_digest != digest for key, digest in manifest["data"]["features"].items() if key in now)
    assert_frame_equal(trained_on(), before)


def _key(stage: str) -> dg.AssetKey:
    return dg.AssetKey(naming.asset_key(SPEC.name, stage))


def test_a_cutoff_with_too_little_history_is_refused(advanced: TableStore, execute: Execute) -> None:
    with pytest.raises(ValueError, match="min_keys is 8"):
        execute("retrain", "0005", asset_selection=[_key("checkpoint")])


@pytest.mark.parametrize(
    ("passed", "digest", "message"),
    [
        (None, "0" * 64, "has no verdict"),
        (False, "1" * 64, "failed its evaluation and is not released: It was planted"),
        (True, "2" * 64, "cannot be released"),  # there is no bundle
        (None, "", "neither a cutoff nor a digest"),
    ],
)
def test_what_did_not_pass_or_is_not_named_is_not_released(
    settings: Settings, store: StoreResource, execute: Execute, passed: bool | None, digest: str, message: str
) -> None:
    if passed is not None:
        plant_verdict(settings, digest, passed=passed)
    with pytest.raises(dg.Failure, match=message):
        execute("release", run_config=release_config(digest))
    assert released(settings) == []


def test_a_person_releases_a_digest_that_passed(settings: Settings, store: StoreResource, execute: Execute) -> None:
    digest = ArtifactStore(settings.root).write_bundle(
        {"contract.json": json.dumps({}).encode()}, {"cutoff": CUTOFF, "contract_sha256": "c" * 64}
    )
    plant_verdict(settings, digest, passed=True)
    assert metadata_of(execute("release", run_config=release_config(digest)), "release")["release"] == 1
    record = released(settings)[0]
    assert (record["by"], record["why"], record["cutoff"], documents.live_digest(record)) == (
        getpass.getuser(),
        "I say so",
        CUTOFF,
        digest,
    )


def test_a_challenger_that_fails_keeps_the_champion(
    settings: Settings, advanced: TableStore, store: StoreResource, execute: Execute
) -> None:
    tables = advanced
    plant_verdict(settings, "3" * 64, passed=False)
    tables.record("onnx", LATER, content_digest="3" * 64, inputs={}, code="0")
    for stage in ("evaluation", "service"):
        tables.record(stage, LATER, content_digest="0", inputs={"bundle": "3" * 64}, code="0")
    outcome = metadata_of(execute("retrain", LATER, asset_selection=[_key("release")]), "release")
    assert (outcome["outcome"], outcome["challenger"]) == ("kept_champion", "3" * 64)
    assert released(settings) == []


@pytest.mark.parametrize(
    ("contract", "cause"),
    [
        (
            {"format": 3, "task": {"kind": "regression", "unit": "m"}},
            "its task is regression, and this product's is binary",
        ),
        (
            {"format": 3, "task": {"kind": "multi_class", "classes": ["a", "b"]}},
            "its task is multi_class a b, and this product's is binary",
        ),
        ({"format": 1, "task": "binary"}, "its contract has format 1; expected 3"),
        ({}, "its contract has format None; expected 3"),
    ],
)
def test_a_live_model_of_another_kind_of_task_is_not_compared(
    settings: Settings, store: StoreResource, contract: dict[str, Any], cause: str
) -> None:
    artifacts, ledgers = ArtifactStore(settings.root), Ledgers(settings.root, SPEC.name)
    for document in ({"format": 3, "task": SPEC.task.document()}, contract):
        digest = artifacts.write_bundle({"contract.json": canonical(document)}, {"cutoff": CUTOFF})
        release = {"product": SPEC.name, "contract_sha256": "c" * 64, "reason": "", "author": "test", "previous": None}
        at = datetime(2024, 1, 3, tzinfo=UTC)
        ledgers.append(naming.RELEASES, next_release(digest=digest, cutoff=CUTOFF, at=at, **release).document())
        product = ProductStore(SPEC, store.settings)
        rival, notes = MAKER.champion(artifacts, product.history, "another")
        assert (rival, len(notes)) == ((digest, 0) if document is not contract else (None, 1))
    assert notes == [f"The live model {digest} was not compared: {cause}."]
    assert MAKER.champion(artifacts, product.history, digest) == (None, []), "a model is not compared with itself"
