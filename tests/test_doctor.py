import re
from pathlib import Path

import polars as pl
import pytest

from platform_assets import cli
from platform_assets.base import naming
from platform_assets.operations import doctor
from platform_assets.store import record_index, upkeep
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents

STAGE = "features"


def checkpoint(root: str, name: str) -> str:
    artifacts = ArtifactStore(root)
    return artifacts.put_json({blob: artifacts.put_json([name, blob]) for blob in naming.CHECKPOINT_BLOBS})


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """A store of three keys, one of them written twice and one empty, with a release and a decision."""
    store = TableStore(str(tmp_path / "store"), "tiny")
    for key, number in (("a", 1), ("b", 2), ("a", 3), ("c", None)):
        frame = pl.DataFrame({"number": [] if number is None else [number]}, schema={"number": pl.Int64})
        store.replace(STAGE, {key: frame}, inputs={key: {"raw": f"{number}"}}, code="code", notes={key: {"n": number}})
    store.record("checkpoint", "a", content_digest=checkpoint(store.root, "a"), inputs={}, code="code")
    ledgers = Ledgers(store.root, "tiny")
    ledgers.append(
        "releases", documents.release(digest=ArtifactStore(store.root).write_bundle({"model": b"m"}, {"n": 1}))
    )
    ledgers.append(
        "releases", documents.release(digest=ArtifactStore(store.root).write_bundle({"model": b"n"}, {"n": 2}))
    )
    ledgers.create("decisions", "a", {"action": "wait"})
    ledgers.create("decisions", "0047", {"action": "wait"})
    return store


def damage_records(store: TableStore, stage: str = STAGE) -> None:
    """Empty every file of records except the newest, so that nothing can be read."""
    folder = Path(store.root, "records", "tiny", stage)
    for file in sorted(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)[:-1]:
        file.write_bytes(b"")
    record_index._tables.clear()


def test_a_sound_store_has_no_findings(store: TableStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(store.root, "tiny", is_repairing=False) == 0
    assert "tiny: 2 stages with 4 records, and 2 ledgers were read; no problems." in capsys.readouterr().out


def test_lost_records_are_restored_exactly_from_the_log(store: TableStore) -> None:
    before = store.records(STAGE)
    old = store.read_exact(STAGE, {"a": before["a"].content_digest})
    damage_records(store)
    examined = doctor.examine(store.root, "tiny")
    assert [finding.stage for finding in examined.findings] == [STAGE]
    ((sentence, is_whole),) = doctor.repair(store.root, "tiny", examined)
    assert is_whole
    assert re.search(rf"^{STAGE}: 4 records rebuilt\. The old table is .*/{STAGE}\.damaged-\d", sentence)
    assert store.records(STAGE) == before
    assert store.read_exact(STAGE, {"a": before["a"].content_digest}).equals(old)
    assert doctor.examine(store.root, "tiny").findings == ()
    assert len(list(Path(store.root, "records", "tiny").glob(f"{STAGE}.damaged-*"))) == 1
    remaining = [location.rsplit("/", 1)[1] for location in upkeep.table_locations(store.root, "records/tiny")]
    assert remaining == ["checkpoint", STAGE], "damaged files put aside are neither cleaned nor examined"


def test_records_of_a_cleaned_log_are_restored_from_the_rows(store: TableStore) -> None:
    before = store.records(STAGE)
    upkeep.tidy(store.root, "tiny", dry_run=False, retention_hours=0)
    folder = Path(store.root, "records", "tiny", STAGE)
    for file in folder.glob("*.parquet"):
        file.write_bytes(b"")
    record_index._tables.clear()
    ((sentence, _),) = doctor.repair(store.root, "tiny", doctor.examine(store.root, "tiny"))
    assert "2 of them from rows alone; those keys are made again" in sentence
    after = store.records(STAGE)
    for key in ("a", "b"):
        assert after[key].content_digest == before[key].content_digest
        assert not after[key].matches(before[key].inputs, before[key].code_digest)
    assert store.read(STAGE, ["a", "b"])["number"].to_list() == [3, 2]


def test_a_repair_that_cannot_restore_everything_exits_with_an_error(
    store: TableStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.record("checkpoint", "b", content_digest=checkpoint(store.root, "b"), inputs={}, code="code")
    damage_records(store, "checkpoint")
    assert doctor.run(store.root, "tiny", is_repairing=True) == 1
    text = capsys.readouterr().out
    assert "checkpoint: 1 record rebuilt; it has no rows to make others from, so materialise the stage" in text
    assert list(store.records("checkpoint")) == ["b"]
    damage_records(store)
    assert doctor.run(store.root, "tiny", is_repairing=True) == 0


def test_damaged_rows_ledgers_and_bundles_are_named(store: TableStore, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(store.root)
    (root / "tables" / "tiny" / STAGE / store.records(STAGE)["b"].files[0]).write_bytes(b"PAR1")
    (root / "ledgers" / "tiny" / "releases" / "00000001.json").write_bytes(b"")
    (root / "ledgers" / "tiny" / "decisions" / "a.json").write_bytes(b"{")
    (root / "ledgers" / "tiny" / "decisions" / "0047.json").write_bytes(b"[]")
    assert doctor.run(store.root, "tiny", is_repairing=False) == 1
    text = capsys.readouterr().out
    assert "features: the rows of b are not those that its record names. Materialise features for b" in text
    assert "00000001.json is empty though later records follow" in text
    assert text.count("Put the file back from a backup") == 3, "each finding has it once"
    assert "a.json is not a JSON object" in text
    assert "0047.json is not a JSON object" in text, "the key of a numbered batch"
    (root / "ledgers" / "tiny" / "releases" / "00000002.json").unlink()
    digest = ArtifactStore(store.root).put(b"n")
    Ledgers(store.root, "tiny").append("releases", documents.release(digest=digest))
    assert "is not a bundle" in str(doctor.examine(store.root, "tiny").findings)


@pytest.mark.parametrize("blob", naming.CHECKPOINT_BLOBS)
def test_a_damaged_checkpoint_and_a_lost_sketch_are_named(store: TableStore, blob: str) -> None:
    artifacts = ArtifactStore(store.root)
    manifest = artifacts.get_json(store.records("checkpoint")["a"].content_digest)
    Path(store.root, naming.blob_path(manifest[blob])).write_bytes(b"x")
    notes = {"sketch": artifacts.put_json(list(range(99)), compressed=True)}
    store.record("drift", "a", content_digest="d", inputs={}, code="code", notes=notes)
    store.record("drift", "b", content_digest="d", inputs={}, code="code", notes={"sketch": "e" * 64})
    copy = {"uri": "a.csv", "sha256": artifacts.put(b"text " * 99, compressed=True)}
    store.record("raw_orders", "a", content_digest="d", inputs={}, code="code", notes=copy)
    store.record("raw_orders", "b", content_digest="d", inputs={}, code="code", notes=copy | {"sha256": "f" * 64})
    findings = {finding.problem: finding.advice for finding in doctor.examine(store.root, "tiny").findings}
    assert findings == {
        "raw_orders: the copy of the file that landed for b cannot be read.": "No step reads it; keep the original, "
        "a.csv.",
        "checkpoint: the checkpoint of a is incomplete or damaged.": "Materialise checkpoint for a to rebuild what is "
        "damaged.",
        "drift: the sketch of b cannot be read.": "Materialise drift for b to rebuild what is damaged.",
    }


@pytest.mark.parametrize("stage", ["validated_orders", "quarantine_orders"])
def test_stages_made_by_one_step_are_named_together(store: TableStore, stage: str) -> None:
    record = store.replace(stage, {"a": pl.DataFrame({"number": [1]})}, inputs={"a": {}}, code="code")["a"]
    Path(store.root, "tables", "tiny", stage, record.files[0]).unlink()
    (finding,) = doctor.examine(store.root, "tiny").findings
    assert finding.advice.startswith("Materialise validated_orders and quarantine_orders for a to rebuild")


def test_a_product_that_stored_nothing_has_nothing_to_examine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    assert cli.main(["doctor", "flight_delays"]) == 0
    assert "flight_delays: 0 stages with 0 records, and 0 ledgers were read; no problems." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nothing", "nothing is stored about a product 'nothing'"), ("../x", "PRODUCT is '../x'"), ("", "PRODUCT is ''")],
)
def test_a_product_that_is_nowhere_is_named(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    assert cli.main(["doctor", name]) == 1
    assert sentence in capsys.readouterr().err
