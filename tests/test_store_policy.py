"""deploy/store on a real S3 server: each account writes what it must, and a stolen key forges and deletes nothing."""

import json
import socket
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.serving.log.sender import Sender, StoreAway
from platform_assets.store.ledgers import Ledgers
from tests.doubles import s3_server, store_keys, thief
from tests.doubles.s3_server import S3Server
from tests.doubles.thief import error_of

pytestmark = pytest.mark.slow

STORE, LOGS = "driftline-keys", "driftline-keys-logs"
PATH = "prod"
OURS, OTHER = "flight_delays", "garment_photos"
STEP = "driftline-store-step-flight-delays"
EXPIRY = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
"""Has the server delete everything."""
FORGED = thief.foreign(OURS, OTHER)
ALL = (
    *("artifacts/1", "saves/1", "pipes/1", "pulse/1", "landing/1"),
    *(f"{place}/{product}/1" for place in ("tables", "records", "prediction_log") for product in (OURS, OTHER)),
    *(f"ledgers/{OURS}/{name}/1.json" for name in (naming.RELEASES, naming.VERDICTS, naming.DECISIONS)),
    *(f"ledgers/{OURS}/{name}/1.json" for name in (naming.REQUESTS, naming.PRUNED, naming.ALERTS)),
    *(f"ledgers/{product}/{naming.CHECKPOINTS}/1.json" for product in (OURS, OTHER)),
)
ROWS, OF_OURS = ("tables/", "records/"), f"ledgers/{OURS}"
RIGHTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("advance", (*ROWS, "artifacts/", f"{OF_OURS}/decisions/", f"{OF_OURS}/requests/"), ROWS),
    (
        "retrain",
        (*ROWS, "artifacts/", "saves/", "pipes/", f"{OF_OURS}/releases/", f"{OF_OURS}/verdicts/"),
        (*ROWS, "saves/", "pipes/"),
    ),
    ("release", (f"{OF_OURS}/releases/",), ()),
    ("intervention", (f"{OF_OURS}/requests/",), ()),
    ("maintenance", (*ROWS, f"{OF_OURS}/pruned/"), (*ROWS, "prediction_log/")),
    ("code", ("pulse/", f"{OF_OURS}/requests/", f"{OF_OURS}/alerts/"), ()),
    ("step-flight-delays", ("artifacts/", "saves/", "pipes/", f"{OF_OURS}/checkpoints/"), ("saves/",)),
    ("service-flight-delays", (f"prediction_log/{OURS}/",), ()),
    ("", (), ()),
)
"""Of each account's secret: where it must write, and delete; everywhere else in `ALL` it must not."""
Refused = Callable[..., bool]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket(STORE)
        running.make_bucket(LOGS)
        yield running


@pytest.fixture
def file(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of keys, for a person with the administrator's key."""
    for name, text in {**server.environment(), "DRIFTLINE_ROOT": f"s3://{STORE}/{PATH}"}.items():
        monkeypatch.setenv(name, text)
    return tmp_path / "store.json"


def write(file: Path, *options: str) -> None:
    store_keys.main([str(file), "--logs", LOGS, *options])


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the statements of both policies by their ids, as the script prints them for roles."""
    store_keys.main(["--print", "arn:aws:iam::1:role/", "--logs", LOGS])
    texts = capsys.readouterr().out.replace("}\n{", "}\0{").split("\0")
    return [{item["Sid"]: item for item in json.loads(text)["Statement"]} for text in texts]


def keys(file: Path) -> dict[str, dict[str, str]]:
    """Return the variables of each secret in a file."""
    items = json.loads(file.read_bytes())["items"]
    assert {item["kind"] for item in items} == {"Secret"}
    return {
        item["metadata"]["name"]: {name: b64decode(text).decode() for name, text in item["data"].items()}
        for item in items
    }


def client(server: S3Server, key: dict[str, str]) -> Any:
    pair = {name.lower(): text for name, text in key.items()}
    return boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", **pair)


@pytest.fixture
def refused(server: S3Server, file: Path) -> Refused:
    write(file)
    made = keys(file)

    def ask(secret: str, path: str, *, deletes: bool = False) -> bool:
        place = {"Bucket": STORE, "Key": f"{PATH}/{path}"}
        if deletes:
            server.client().put_object(**place, Body=b"{}")
        one = client(server, made[f"driftline-store-{secret}".rstrip("-")])
        error = error_of(one.delete_object, **place) if deletes else error_of(one.put_object, **place, Body=b"{}")
        assert error in ("", "AccessDenied")
        return bool(error)

    return ask


@pytest.mark.costly
def test_each_account_writes_and_deletes_where_it_must_and_not_where_it_must_not(refused: Refused) -> None:
    for secret, writes, deletes in RIGHTS:
        for path in ALL:
            assert refused(secret, path) is not path.startswith(writes), (secret, path)
            assert refused(secret, path, deletes=True) is not path.startswith(deletes), (secret, path)


@pytest.mark.costly
def test_everybody_reads_below_the_root_and_the_owner_deletes_from_no_ledger(server: S3Server, file: Path) -> None:
    write(file)
    owner, path = server.client(), f"{PATH}/ledgers/{OURS}/{naming.RELEASES}/9.json"
    for place in (path, "another/root.json"):
        owner.put_object(Bucket=STORE, Key=place, Body=b"1")
    for secret in keys(file).values():
        reader = client(server, secret)
        assert reader.get_object(Bucket=STORE, Key=path)["Body"].read() == b"1"
        assert reader.list_objects_v2(Bucket=STORE, Prefix=path)["KeyCount"] == 1
        assert error_of(reader.get_object, Bucket=STORE, Key="another/root.json") == "AccessDenied"
    assert error_of(owner.delete_object, Bucket=STORE, Key=path) == "AccessDenied"


@pytest.mark.costly
def test_a_refused_record_is_a_problem_that_names_the_key(
    server: S3Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file)
    for name, text in keys(file)["driftline-store-intervention"].items():
        monkeypatch.setenv(name, text)
    ledgers = Ledgers(f"s3://{STORE}/{PATH}", OURS)
    with pytest.raises(LedgerProblem, match=r"refuses our key \(AccessDenied\); check"):
        ledgers.create(naming.RELEASES, "mine", {"product": OURS})
    assert ledgers.read(naming.RELEASES, "mine") is None


def test_a_steps_key_forges_nothing_by_a_detour(server: S3Server, file: Path) -> None:
    """Copies, uploads in parts and paths with dots end at an object that a step may not write."""
    write(file)
    owner, step = server.client(), client(server, keys(file)[STEP])
    target, own = ({"Bucket": STORE, "Key": f"{PATH}/{path}"} for path in (FORGED[0], "saves/own"))
    for place in (target, own):
        owner.put_object(**place, Body=b"kept")
    theirs = owner.create_multipart_upload(**target)["UploadId"]
    upload = step.create_multipart_upload(**own)["UploadId"]
    part = step.upload_part(**own, UploadId=upload, PartNumber=1, Body=b"forged")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    copied = {"CopySource": f"{STORE}/{PATH}/saves/own"}
    batch = {"Objects": [{"Key": target["Key"]}]}  # as tools delete many; its answer may say so per object
    assert error_of(step.delete_objects, Bucket=STORE, Delete=batch) in ("", "AccessDenied")
    errors = {
        "copy": error_of(step.copy_object, **target, **copied),
        "upload in parts": error_of(step.create_multipart_upload, **target),
        "part of another's upload": error_of(step.upload_part, **target, UploadId=theirs, PartNumber=1, Body=b""),
        "copy as a part": error_of(step.upload_part_copy, **target, **copied, UploadId=theirs, PartNumber=1),
        "own parts": error_of(step.complete_multipart_upload, **target, UploadId=upload, MultipartUpload=parts),
        "end of another's upload": error_of(step.abort_multipart_upload, **target, UploadId=theirs),
        "tags": error_of(step.put_object_tagging, **target, Tagging={"TagSet": []}),
        "deleted version": error_of(step.delete_object, **target, VersionId="null"),
        "folder": error_of(step.delete_object, Bucket=STORE, Key=f"{PATH}/ledgers/"),
    }
    assert errors == dict.fromkeys(errors, "AccessDenied")
    for path in ("saves/../", "saves/x/../../", f"ledgers/{OURS}/leases/../../../", "/"):
        place = {"Bucket": STORE, "Key": f"{PATH}/{path}{FORGED[0]}"}
        for request, more in ((step.put_object, {"Body": b"forged"}), (step.delete_object, {})):
            assert error_of(request, **place, **more) in ("AccessDenied", "InvalidRequest"), path
    assert step.get_object(**target)["Body"].read() == b"kept"


@pytest.mark.costly
def test_a_pod_without_a_key_of_its_own_only_reads(server: S3Server, file: Path) -> None:
    write(file)
    server.client().put_object(Bucket=LOGS, Key="compute_logs/1", Body=b"log")
    default = client(server, keys(file)["driftline-store"])
    for bucket, path in ((STORE, f"{PATH}/landing/1"), (STORE, f"{PATH}/saves/1"), (LOGS, "compute_logs/1")):
        assert error_of(default.put_object, Bucket=bucket, Key=path, Body=b"") == "AccessDenied"
    assert default.get_object(Bucket=LOGS, Key="compute_logs/1")["Body"].read() == b"log"
    code, step = (client(server, keys(file)[name]) for name in ("driftline-store-code", STEP))
    assert error_of(code.put_object, Bucket=LOGS, Key="compute_logs/2", Body=b"log") == ""
    assert error_of(step.put_object, Bucket=LOGS, Key="compute_logs/2", Body=b"log") == "AccessDenied"


def test_a_service_sends_its_answers_with_its_own_key(server: S3Server, file: Path, monkeypatch: pytest.MonkeyPatch):
    write(file)
    for name, text in keys(file)["driftline-store-service-flight-delays"].items():
        monkeypatch.setenv(name, text)
    own, others = (Sender(f"s3://{STORE}/{PATH}", product, 30.0) for product in (OURS, OTHER))
    own.measure()
    segment = own.name("server-1-0123abcd", "1-1-0123abcd", 0)
    own.send(segment, b"answers")
    own.measure(segment.path)
    with pytest.raises(StoreAway, match=r"403|AccessDenied"):
        others.measure()


@pytest.mark.costly
def test_keys_are_made_once_kept_for_their_owner_alone_renewed_and_revoked(
    server: S3Server, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(file)
    first = keys(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    runs = ("advance", "retrain", "release", "intervention", "maintenance", "code")
    products = [f"{kind}-{name}" for kind in ("step", "service") for name in ("flight-delays", "garment-photos")]
    assert set(first) == {"driftline-store", *(f"driftline-store-{name}" for name in (*runs, *products))}
    assert len({key["AWS_ACCESS_KEY_ID"] for key in first.values()}) == len(first)
    capsys.readouterr()
    write(file)
    assert "new keys: none" in capsys.readouterr().out and keys(file) == first
    write(file, "--renew")
    second = keys(file)
    path = {"Bucket": STORE, "Key": f"{PATH}/saves/2", "Body": b""}
    assert [error_of(client(server, key[STEP]).put_object, **path) for key in (first, second)] == ["", ""]
    write(file, "--revoke")
    assert "driftline-step-flight-delays" in capsys.readouterr().out.split("revoked: ")[1]
    errors = [error_of(client(server, key[STEP]).put_object, **path) for key in (first, second)]
    assert errors == ["InvalidAccessKeyId", ""]
    assert "AWS_SECRET_ACCESS_KEY" not in server.program.log()


@pytest.mark.parametrize("secret", [STEP, "driftline-store", "driftline-store-service-garment-photos"])
def test_an_accounts_key_gives_itself_no_other_rights(server: S3Server, file: Path, secret: str) -> None:
    write(file)
    pair = {name.lower(): text for name, text in keys(file)[secret].items()}
    iam, s3 = (
        boto3.client(service, endpoint_url=server.endpoint, region_name="us-east-1", **pair)
        for service in ("iam", "s3")
    )
    policy = store_keys.policies("s3://another", STORE, [], "arn:aws:iam::000000000000:user/")[STORE]
    requests = {
        "key": error_of(iam.create_access_key, UserName="driftline-retrain"),
        "user": error_of(iam.create_user, UserName="mine"),
        "rights": error_of(iam.put_user_policy, UserName="driftline-step", PolicyName="all", PolicyDocument=policy),
        "policy": error_of(s3.put_bucket_policy, Bucket=STORE, Policy=policy),
        "no policy": error_of(s3.delete_bucket_policy, Bucket=STORE),
        "expiry": error_of(s3.put_bucket_lifecycle_configuration, Bucket=STORE, LifecycleConfiguration=EXPIRY),
        "versions": error_of(s3.put_bucket_versioning, Bucket=STORE, VersioningConfiguration={"Status": "Suspended"}),
        "everybody": error_of(s3.put_bucket_acl, Bucket=STORE, ACL="public-read-write"),
        "a record for everybody": error_of(
            s3.put_object_acl, Bucket=STORE, Key=f"{PATH}/{FORGED[0]}", ACL="public-read"
        ),
        "bucket": error_of(s3.delete_bucket, Bucket=STORE),
    }
    assert requests == dict.fromkeys(requests, "AccessDenied")


@pytest.mark.costly
def test_a_lost_file_or_a_key_that_the_server_forgot_is_replaced(server: S3Server, file: Path) -> None:
    write(file)
    lost = keys(file)
    iam = boto3.Session(region_name="us-east-1").client("iam")
    iam.delete_access_key(UserName="driftline-code", AccessKeyId=lost["driftline-store-code"]["AWS_ACCESS_KEY_ID"])
    write(file)
    assert {name for name, key in keys(file).items() if key != lost[name]} == {"driftline-store-code"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"AWS_ACCESS_KEY_ID": s3_server.READER},
            "did not create the user driftline-advance: .*[(]403[)]. This needs a key that may administer users",
        ),
        (
            {"DRIFTLINE_ROOT": "/data/store"},
            "DRIFTLINE_ROOT is /data/store and --logs driftline-keys-logs; expected s3://BUCKET/PREFIX",
        ),
        ({"DRIFTLINE_ROOT": f"s3://{LOGS}/store"}, "expected s3://BUCKET/PREFIX and another bucket"),
    ],
    ids=["no administrator", "folder", "one bucket"],
)
def test_what_gives_no_keys_is_a_sentence(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    message: str,
) -> None:
    for name, text in change.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit, match=message):
        write(file)
    assert not file.exists()


def test_a_server_without_users_is_told_what_to_do_instead(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SystemExit, match="put on the buckets what --print prints"):
        write(file)


def test_a_file_that_holds_no_keys_is_left_alone(file: Path) -> None:
    file.write_text('{"items": [{"metadata": {"name": "other"}}]}', encoding="utf-8")
    with pytest.raises(SystemExit, match="does not hold keys as this script writes them"):
        write(file)
    assert "other" in file.read_text(encoding="utf-8")


@pytest.mark.costly
def test_policies_for_roles_name_accounts_per_product_where_there_are_some(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, logs = printed(capsys)
    assert shared["WriteStep"]["Principal"] == {"AWS": ["arn:aws:iam::1:role/driftline-step"]}
    assert f"arn:aws:s3:::{STORE}/{PATH}/ledgers/*/leases/*" in shared["WriteStep"]["Resource"]
    writers, readers = (set(logs[sid]["Principal"]["AWS"]) for sid in ("Write", "Read"))
    assert readers - writers == {"arn:aws:iam::1:role/driftline-webserver"}
    assert logs["Read"]["Resource"] == [f"arn:aws:s3:::{LOGS}/*"]
    monkeypatch.setenv("DRIFTLINE_STEP_SERVICE_ACCOUNT", "driftline-step-{product}")
    own, _ = printed(capsys)
    step = own["WriteStepFlightDelays"]
    assert step["Principal"] == {"AWS": ["arn:aws:iam::1:role/driftline-step-flight-delays"]}
    assert f"arn:aws:s3:::{STORE}/{PATH}/ledgers/{OURS}/leases/*" in step["Resource"]
    assert set(step["Principal"]["AWS"]) < set(own["List"]["Principal"]["AWS"])
    assert all(sid.isalnum() for sid in own)
    assert "PRODUCT" not in json.dumps([shared, logs, own])
