"""A store behind TLS of a private authority, through each of our clients, by the two variables that pods get."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from platform_assets.base.settings import AUTHORITY_VARIABLES, REPOSITORY
from tests.cluster.certificates import Authority
from tests.doubles import tls_proxy
from tests.doubles.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.slow

OBJECTS = """
from platform_assets.store.ledgers import Ledgers
Ledgers(root, "tiny").append("releases", {"n": 7})
print(dict(Ledgers(root, "tiny").records("releases"))[1]["n"])
"""
TABLES = """
import polars as pl
from platform_assets.store.tables import TableStore
TableStore(root, "tiny").replace("features", {"a": pl.DataFrame({"n": [7]})}, inputs={"a": {}}, code="code")
print(TableStore(root, "tiny").read("features", ["a"])["n"].item())
"""
MESSAGES = """
import boto3
place = dict(zip(("Bucket", "Key"), root.removeprefix("s3://").split("/", 1)))
boto3.client("s3").put_object(**place, Body=b"7")
print(boto3.client("s3").get_object(**place)["Body"].read().decode())
"""
NOBODY = """
import os
import obstore
from platform_assets.store import objects
os.environ["SSL_CERT_DIR"] = "/nowhere"
try:
    objects.open_store(root)
except obstore.exceptions.BaseError as error:
    print(objects.reason(root, error))
"""
CLIENTS = {"obstore": OBJECTS, "deltalake": TABLES, "boto3": MESSAGES}
REFUSED = {"obstore": "UnknownIssuer", "deltalake": "UnknownIssuer", "boto3": "CERTIFICATE_VERIFY_FAILED"}


@pytest.fixture(scope="module")
def endpoint(s3_server: S3Server, authority: Authority) -> Iterator[str]:
    with tls_proxy.in_front_of(s3_server.endpoint, authority.folder / "server") as address:
        yield address


def ended(code: str, server: S3Server, endpoint: str, trusted: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment(endpoint), **dict.fromkeys(AUTHORITY_VARIABLES, trusted)}
    environment |= {"AWS_ALLOW_HTTP": "false", "PYTHONPATH": str(REPOSITORY)}
    argv = [sys.executable, "-c", f"root = 's3://{BUCKET}/{uuid.uuid4().hex}'\n{code}"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_trusts_the_authority_that_the_variables_name(
    client: str, s3_server: S3Server, endpoint: str, authority: Authority
) -> None:
    result = ended(CLIENTS[client], s3_server, endpoint, str(authority.certificate))
    assert result.stdout == "7\n", result.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_refuses_a_server_of_another_authority(
    client: str, s3_server: S3Server, endpoint: str, stranger: Authority
) -> None:
    result = ended(CLIENTS[client], s3_server, endpoint, str(stranger.certificate))
    assert (result.stdout, result.returncode) == ("", 1)
    assert REFUSED[client] in result.stderr.strip().splitlines()[-1]


def test_a_machine_that_trusts_nobody_is_told(s3_server: S3Server, endpoint: str) -> None:
    """As a pod without the config map, whose image has no authorities of its own."""
    result = ended(NOBODY, s3_server, endpoint, "/nowhere/ca.crt")
    assert "no authority known" in result.stdout, result.stderr


def test_a_name_that_is_not_the_certificates_is_told(s3_server: S3Server, endpoint: str, authority: Authority) -> None:
    result = ended(OBJECTS, s3_server, endpoint.replace("127.0.0.1", "localhost"), str(authority.certificate))
    assert "NotValidForName" in result.stderr.strip().splitlines()[-1]
    assert "check the name in AWS_ENDPOINT_URL" in result.stderr
