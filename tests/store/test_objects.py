"""Objects on a real S3 server whose responses `tests/doubles/faulty_s3.py` breaks, and the resulting messages."""

from collections.abc import Callable

import polars as pl
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError

from platform_assets.base.problems import LedgerProblem, RecordExists
from platform_assets.operations import doctor
from platform_assets.store import objects, upkeep
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, sha256
from platform_assets.store.leases import Lease
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableProblem, TableStore
from tests.doubles.faulty_s3 import Faults
from tests.doubles.s3_server import SECRET, S3Server

LOST = [
    pytest.param({"answer": 0, "is_done": True}, id="done and dropped"),
    pytest.param({"answer": 500, "is_done": True}, id="done and 500"),
    pytest.param({"answer": 0}, id="dropped"),
    pytest.param({"answer": 503, "times": 2, "delay_s": 0.05}, id="slow down"),
    pytest.param({"answer": 409}, id="conflict"),
]
FRAME = pl.DataFrame({"n": [1]})
READS: list[Callable[[str], object]] = [
    lambda root: ArtifactStore(root).get(sha256(b"x")),
    lambda root: ArtifactStore(root).put(b"x"),
    lambda root: Ledgers(root, "tiny").latest("releases"),
    lambda root: Ledgers(root, "tiny").newest_number("releases"),
    lambda root: Ledgers(root, "tiny").read("decisions", "0001"),
    lambda root: Ledgers(root, "tiny").create("decisions", "0001", {}),
    lambda root: Ledgers(root, "tiny").append("releases", {}),
    lambda root: Ledgers(root, "tiny").overwrite("leases/abc", "1.heartbeat", {}),
    lambda root: TableStore(root, "tiny").records("features"),
    lambda root: upkeep.tidy(root, "tiny", dry_run=False),
    lambda root: doctor.examine(root, "tiny"),
    lambda root: TableStore(root, "tiny").replace("features", {"1": FRAME}, inputs={"1": {}}, code="code"),
    lambda root: TableStore(root, "tiny").read("features", ["1"]),
    lambda root: TableStore(root, "tiny").record("checkpoint", "0001", content_digest="x", inputs={}, code="code"),
]
"""Every way to access a root: each must report an error in one sentence."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_a_record_is_appended_once_whatever_the_responses(broken_root: str, faults: Faults, fault: dict[str, int]):
    ledgers = Ledgers(broken_root, "tiny")
    assert ledgers.append("releases", {"n": 1}) == 1
    faults.add("PUT", "00000002.json", **fault)
    assert ledgers.append("releases", {"n": 2}) == 2
    assert ledgers.append("releases", {"n": 2}) == 3
    assert dict(ledgers.records("releases")) == {1: {"n": 1}, 2: {"n": 2}, 3: {"n": 2}}
    assert faults.met


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_a_keyed_record_and_a_lease_are_ours_whatever_the_responses(
    broken_root: str, faults: Faults, fault: dict[str, int]
) -> None:
    ledgers = Ledgers(broken_root, "tiny")
    faults.add("PUT", "0009.json", **fault)
    ledgers.create("decisions", "0009", {"decided": "wait"})
    with pytest.raises(RecordExists):
        ledgers.create("decisions", "0009", {"decided": "wait"})
    faults.add("PUT", "00000001.json", **fault)
    assert Lease(ledgers, "abc").acquire(60) == 1
    assert len(faults.met) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_an_equal_record_of_another_writer_is_not_ours(broken_root: str, faults: Faults, fault: dict[str, int]) -> None:
    ledgers = Ledgers(broken_root, "tiny")
    ledgers.create_number("releases", 1, {"n": 1})
    faults.add("PUT", "00000001.json", **fault)
    with pytest.raises(RecordExists, match=r"00000001\.json exists"):
        ledgers.create_number("releases", 1, {"n": 1})
    assert faults.met
    assert ledgers.newest_number("releases") == 1


@pytest.mark.slow
def test_a_late_response_is_not_a_failure(broken_root: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    ledgers = Ledgers(broken_root, "tiny")
    faults.add("PUT", "00000001.json", answer=None, delay_s=2)
    assert ledgers.append("releases", {"n": 1}) == 1
    assert list(ledgers.records("releases")) == [(1, {"n": 1})]


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_a_blob_exists_after_put_whatever_the_responses(broken_root: str, faults: Faults, fault: dict[str, int]):
    store = ArtifactStore(broken_root)
    faults.add("PUT", "/artifacts/", **fault)
    assert store.get(store.put(b"weights")) == b"weights"
    assert faults.met


@pytest.mark.slow
def test_reads_are_repeated(broken_root: str, faults: Faults) -> None:
    ledgers = Ledgers(broken_root, "tiny")
    ledgers.append("releases", {"n": 1})
    for fault in ({"answer": 500}, {"answer": 503}, {"answer": 0}):
        faults.add("GET", "/releases/", **fault)
        faults.add("HEAD", "/releases/", **fault)
        assert ledgers.latest("releases") == (1, {"n": 1})
    assert len(faults.met) == 6


@pytest.mark.slow
def test_a_permanent_collision_is_reported(broken_root: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAUSE_S", 0.0)
    faults.add("PUT", "00000001.json", answer=409, times=objects.CREATE_ATTEMPTS)
    with pytest.raises(LedgerProblem, match=r"00000001\.json could not be written: ") as problem:
        Ledgers(broken_root, "tiny").append("releases", {"n": 1})
    assert not isinstance(problem.value, RecordExists)
    assert isinstance(problem.value.__cause__, AlreadyExistsError)


@pytest.mark.slow
def test_an_object_without_a_write_id_is_not_ours(s3_root: str) -> None:
    store = objects.open_store(s3_root)
    store.put("x", b"1")
    assert not objects.create(store, "x", b"1")
    assert objects.read(store, "x") == b"1"


def test_the_write_id_is_not_in_the_objects_bytes(root: str) -> None:
    store = objects.open_store(root)
    assert objects.create(store, "x", b"1")
    assert not objects.create(store, "x", b"2")
    assert (objects.read(store, "x"), objects.read(store, "y")) == (b"1", None)
    assert (objects.exists(store, "x"), objects.exists(store, "y")) == (True, False)


@pytest.mark.slow
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", r"SignatureDoesNotMatch|403"),
        ("AWS_ACCESS_KEY_ID", r"InvalidAccessKeyId|403"),
    ],
)
def test_a_wrong_key_is_reported_with_the_root_and_a_remedy(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, variable: str, code: str, read: Callable[[str], object]
) -> None:
    monkeypatch.setenv(variable, "wrong-and-a-secret")
    with pytest.raises((ArtifactProblem, LedgerProblem, TableProblem)) as problem:
        read(s3_root)
    message = str(problem.value)
    assert "s3://driftline refuses our key" in message
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in message
    check_sentence(message)


@pytest.mark.slow
@pytest.mark.parametrize("read", READS)
def test_a_missing_bucket_is_reported(s3_server: S3Server, s3_root: str, read: Callable[[str], object]) -> None:
    bucket = f"vanishing-{READS.index(read)}"
    root = f"s3://{bucket}/store"
    s3_server.make_bucket(bucket)
    Ledgers(root, "tiny").append("releases", {"n": 1})
    s3_server.remove_bucket(bucket)
    with pytest.raises((ArtifactProblem, LedgerProblem, TableProblem)) as problem:
        read(root)
    message = str(problem.value)
    assert f"the bucket s3://{bucket} does not exist; create it, or fix its name or AWS_ENDPOINT_URL" in message
    check_sentence(message)


def test_missing_credentials_are_reported() -> None:
    error = BaseError("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s")
    assert objects.reason("s3://bucket/store", error).startswith("no key for s3://bucket was found; set AWS_ACCESS_KEY")


def test_a_reason_has_the_causes_without_colours_and_dump() -> None:
    text = "Kernel error\n   \x1b[31m↳\x1b[0m Error performing list request\n  \x1b[31m↳\x1b[0m 500\n<Error>\n"
    assert objects.reason("s3://bucket", OSError(text)) == "Kernel error: Error performing list request: 500"
    assert objects.reason("/store", BaseError("No space left.\n\nDebug source:\nGeneric {")) == "No space left"
    assert objects.reason("/store", OSError()) == "OSError"


def check_sentence(message: str) -> None:
    assert message.endswith(".")
    assert "\n" not in message
    assert SECRET not in message
    assert "wrong-and-a-secret" not in message


def test_the_same_error_has_the_same_reason_whatever_the_retry_times() -> None:
    error = "Generic S3 error: Error performing HEAD http://host/b/x in {}, after {} retries, max_retries: 10, "
    error += "retry_timeout: 180s  - HTTP error: error sending request"
    reasons = {
        objects.reason("s3://b", OSError(error.format(*values))) for values in (("3.26677009s", 10), ("812.5ms", 3))
    }
    assert reasons == {"Generic S3 error: Error performing HEAD http://host/b/x - HTTP error: error sending request"}
