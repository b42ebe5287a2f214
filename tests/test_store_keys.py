"""`driftline store-keys` on a real S3 server: each account's key is made once, and forges and deletes nothing."""

from __future__ import annotations

import json
import re
import socket
import stat
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from platform_assets.base import naming
from platform_assets.cli import main
from platform_assets.operations import bucket_policy
from platform_assets.serving.log.sender import Sender, StoreAway
from tests.doubles import s3_server, thief
from tests.doubles.s3_server import S3Server
from tests.doubles.thief import error_of

STORE, LOGS = "driftline-keys", "driftline-keys-logs"
PATH = "prod"
OURS, OTHER = "flight_delays", "garment_photos"
STEP = "driftline-store-step-flight-delays"
EXPIRY = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
"""Has the server delete everything."""
FORGED, KEPT = thief.foreign(OURS, OTHER), thief.kept(OURS, OTHER)


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


def write(file: Path, *options: str) -> int:
    return main(["store-keys", str(file), "--logs", LOGS, *options])


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


def test_a_steps_key_forges_nothing_and_deletes_nothing(server: S3Server, file: Path) -> None:
    assert len(FORGED) == len(KEPT) == 8
    assert write(file) == 0
    for path in {*FORGED, *KEPT}:
        server.client().put_object(Bucket=STORE, Key=f"{PATH}/{path}", Body=b"kept")
    step = client(server, keys(file)[STEP])
    written = {path: error_of(step.put_object, Bucket=STORE, Key=f"{PATH}/{path}", Body=b"forged") for path in FORGED}
    deleted = {path: error_of(step.delete_object, Bucket=STORE, Key=f"{PATH}/{path}") for path in KEPT}
    assert written == dict.fromkeys(FORGED, "AccessDenied")
    assert deleted == dict.fromkeys(KEPT, "AccessDenied")
    batch = {"Objects": [{"Key": f"{PATH}/{path}"} for path in KEPT]}  # as tools delete many
    assert error_of(step.delete_objects, Bucket=STORE, Delete=batch) in ("", "AccessDenied")
    for path in {*FORGED, *KEPT}:
        assert step.get_object(Bucket=STORE, Key=f"{PATH}/{path}")["Body"].read() == b"kept"
    for path in ("artifacts/sha256/1", "saves/1", "pipes/1", f"ledgers/{OURS}/{naming.CHECKPOINTS}/1.json"):
        assert error_of(step.put_object, Bucket=STORE, Key=f"{PATH}/{path}", Body=b"{}") == "", path
    assert error_of(step.delete_object, Bucket=STORE, Key=f"{PATH}/saves/1") == ""


def test_a_steps_key_forges_nothing_by_a_detour(server: S3Server, file: Path) -> None:
    """Copies, uploads in parts and paths with dots end at an object that a step may not write."""
    assert write(file) == 0
    owner, step = server.client(), client(server, keys(file)[STEP])
    target, own = ({"Bucket": STORE, "Key": f"{PATH}/{path}"} for path in (FORGED[0], "saves/own"))
    for place in (target, own):
        owner.put_object(**place, Body=b"kept")
    theirs = owner.create_multipart_upload(**target)["UploadId"]
    upload = step.create_multipart_upload(**own)["UploadId"]
    part = step.upload_part(**own, UploadId=upload, PartNumber=1, Body=b"forged")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    copied = {"CopySource": f"{STORE}/{PATH}/saves/own"}
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


def test_a_pod_without_a_key_of_its_own_only_reads(server: S3Server, file: Path) -> None:
    assert write(file) == 0
    server.client().put_object(Bucket=LOGS, Key="compute_logs/1", Body=b"log")
    default = client(server, keys(file)["driftline-store"])
    for bucket, path in ((STORE, f"{PATH}/landing/1"), (STORE, f"{PATH}/saves/1"), (LOGS, "compute_logs/1")):
        assert error_of(default.put_object, Bucket=bucket, Key=path, Body=b"") == "AccessDenied"
    assert default.get_object(Bucket=LOGS, Key="compute_logs/1")["Body"].read() == b"log"
    code, step = (client(server, keys(file)[name]) for name in ("driftline-store-code", STEP))
    assert error_of(code.put_object, Bucket=LOGS, Key="compute_logs/2", Body=b"log") == ""
    assert error_of(step.put_object, Bucket=LOGS, Key="compute_logs/2", Body=b"log") == "AccessDenied"


def test_a_service_sends_its_answers_with_its_own_key(
    server: S3Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write(file) == 0
    for name, text in keys(file)["driftline-store-service-flight-delays"].items():
        monkeypatch.setenv(name, text)
    own, others = (Sender(f"s3://{STORE}/{PATH}", product, 30.0) for product in (OURS, OTHER))
    own.measure()
    segment = own.name("server-1-0123abcd", "1-1-0123abcd", 0)
    own.send(segment, b"answers")
    own.measure(segment.path)
    with pytest.raises(StoreAway, match=r"403|AccessDenied"):
        others.measure()


def test_keys_are_made_once_kept_for_their_owner_alone_renewed_and_revoked(
    server: S3Server, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(file) == 0
    first = keys(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    runs = ("advance", "retrain", "release", "intervention", "maintenance", "code")
    products = [f"{kind}-{name}" for kind in ("step", "service") for name in ("flight-delays", "garment-photos")]
    assert set(first) == {"driftline-store", *(f"driftline-store-{name}" for name in (*runs, *products))}
    assert len({key["AWS_ACCESS_KEY_ID"] for key in first.values()}) == len(first)
    capsys.readouterr()
    assert write(file) == 0
    assert "new keys: none" in capsys.readouterr().out and keys(file) == first
    assert write(file, "--renew") == 0
    second = keys(file)
    path = {"Bucket": STORE, "Key": f"{PATH}/saves/2", "Body": b""}
    assert [error_of(client(server, key[STEP]).put_object, **path) for key in (first, second)] == ["", ""]
    assert write(file, "--revoke") == 0
    assert "driftline-step-flight-delays" in capsys.readouterr().out.split("revoked: ")[1]
    errors = [error_of(client(server, key[STEP]).put_object, **path) for key in (first, second)]
    assert errors == ["InvalidAccessKeyId", ""]
    assert secrets_of(server) == set()


def secrets_of(server: S3Server) -> set[str]:
    """Return what the server's log says of secrets of ours."""
    return set(re.findall(r"AWS_SECRET_ACCESS_KEY", server.program.log()))


@pytest.mark.parametrize("secret", [STEP, "driftline-store", "driftline-store-service-garment-photos"])
def test_an_accounts_key_gives_itself_no_other_rights(server: S3Server, file: Path, secret: str) -> None:
    assert write(file) == 0
    pair = {name.lower(): text for name, text in keys(file)[secret].items()}
    iam, s3 = (
        boto3.client(service, endpoint_url=server.endpoint, region_name="us-east-1", **pair)
        for service in ("iam", "s3")
    )
    policy = bucket_policy.logs_text(STORE, "arn:aws:iam::000000000000:user/{account}")
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


def test_a_lost_file_or_a_key_that_the_server_forgot_is_replaced(server: S3Server, file: Path) -> None:
    assert write(file) == 0
    lost = keys(file)
    iam = boto3.Session(region_name="us-east-1").client("iam")
    iam.delete_access_key(UserName="driftline-code", AccessKeyId=lost["driftline-store-code"]["AWS_ACCESS_KEY_ID"])
    assert write(file) == 0
    assert {name for name, key in keys(file).items() if key != lost[name]} == {"driftline-store-code"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"AWS_ACCESS_KEY_ID": s3_server.READER},
            "did not create the user driftline-advance: .*[(]403[)]. This needs a key that may administer users",
        ),
        ({"DRIFTLINE_ROOT": "/data/store"}, "DRIFTLINE_ROOT is /data/store; expected s3://bucket/path"),
        ({"DRIFTLINE_ROOT": f"s3://{LOGS}/store"}, "--logs is driftline-keys-logs, the bucket of DRIFTLINE_ROOT"),
    ],
    ids=["no administrator", "folder", "one bucket"],
)
def test_what_gives_no_keys_is_a_sentence(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    for name, text in change.items():
        monkeypatch.setenv(name, text)
    assert write(file) == 1
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
    assert not file.exists()


def test_a_server_without_users_is_told_what_to_do_instead(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert write(file) == 1
    assert "put what `driftline policy` prints on the buckets" in capsys.readouterr().err


def test_a_file_that_holds_no_keys_is_left_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('{"items": [{"metadata": {"name": "other"}}]}', encoding="utf-8")
    assert write(file) == 1
    assert "does not hold keys as `driftline store-keys` writes them" in capsys.readouterr().err
    assert "other" in file.read_text(encoding="utf-8")


def test_the_logs_bucket_has_a_policy_for_roles_too(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert main(["policy", "--logs", LOGS]) == 0
    statements = {item["Sid"]: item for item in json.loads(capsys.readouterr().out)["Statement"]}
    writers, readers = (statements[sid]["Principal"]["AWS"] for sid in ("Write", "Read"))
    assert set(readers) - set(writers) == {bucket_policy.PRINCIPAL.replace("{account}", "driftline-webserver")}
    assert not any("step" in name or "service" in name for name in readers)
