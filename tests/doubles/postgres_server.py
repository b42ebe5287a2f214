"""A real PostgreSQL server in a process of its own: Debian's, which no Python package provides.

It listens on a free port, keeps everything in a temporary folder, has one user, and is stopped at the end.
PostgreSQL refuses to run as root; there it runs as `nobody`.

Dagster opens a new connection for every query, hundreds of them to create one run, and a password that was hashed
4,096 times takes most of that time. So this one is hashed once: the same authentication, for a password that is not
secret.
"""

import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doubles.program import Program

MISSING = "needs a PostgreSQL server: apt-get install postgresql"
USER, DATABASE = "driftline", "postgres"
LOOPBACK = "127.0.0.1"
PATIENCE_S = 600.0
START_ATTEMPTS = 3


@dataclass(frozen=True)
class PostgresServer:
    """A server that answers, and no other: only it has the password.

    Attributes:
        program: its process.
    """

    address: str
    port: int
    password: str
    program: Program

    def environment(self) -> dict[str, str]:
        """Return the variables required by deploy/kubernetes/base/dagster.yaml."""
        return {
            "DAGSTER_PG_HOST": self.address,
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_DB": DATABASE,
            "DAGSTER_PG_USER": USER,
            "DAGSTER_PG_PASSWORD": self.password,
        }

    def start_again(self) -> None:
        """Start it on its files after it was killed, and wait until it answers."""
        self.program.start()
        if not _answers(self):
            raise RuntimeError(f"PostgreSQL did not start again; its log ends: {self.program.log()}")


def binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`, or None; Debian keeps them out of the search path."""
    result = shutil.which("initdb")
    folders = [Path(result).resolve().parent] if result else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (folder for folder in folders if all((folder / item).exists() for item in ("initdb", "postgres"))), None
    )


@contextmanager
def running(address: str = LOOPBACK, before: Sequence[str] = (), pair: Path | None = None) -> Iterator[PostgresServer]:
    """Start the server, yield it when it answers, and stop it.

    Args:
        before: words in front of its command, of a program that becomes the server.
        pair: it also speaks TLS, with the certificate PAIR.crt and the key PAIR.key.

    Raises:
        LookupError: PostgreSQL is not installed.
    """
    folder = binaries()
    if folder is None:
        raise LookupError(MISSING)
    # Below the system's own folder for this: pytest's folders are closed to other users.
    path = Path(tempfile.mkdtemp(prefix="postgres-double-"))
    user = _server_user(path)
    password = secrets.token_hex()
    try:
        salt = secrets.token_bytes(16)
        stretched = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
        stored = hashlib.sha256(hmac.digest(stretched, b"Client Key", "sha256")).digest()
        keys = (salt, stored, hmac.digest(stretched, b"Server Key", "sha256"))
        (path / "password").write_text(
            "SCRAM-SHA-256$1:{}${}:{}".format(*(b64encode(key).decode() for key in keys)), encoding="utf-8"
        )
        options = [
            "-D",
            "data",
            "-U",
            USER,
            "--pwfile=password",
            "--auth=scram-sha-256",
            "--no-sync",
            "--locale=C.UTF-8",
        ]
        subprocess.run(
            [folder / "initdb", *options], cwd=path, check=True, capture_output=True, timeout=PATIENCE_S, **user
        )
        if address != LOOPBACK:
            with (path / "data/pg_hba.conf").open("a", encoding="ascii") as rules:
                rules.write("host all all 0.0.0.0/0 scram-sha-256\n")  # by default it accepts only this machine
        tls = {} if pair is None else _with_tls(path, pair, user)
        for _ in range(START_ATTEMPTS):
            server = _start([*before, str(folder / "postgres")], path, address, password, user, tls)
            try:
                if _answers(server):
                    yield server
                    return
            finally:
                server.program.process.send_signal(signal.SIGQUIT)  # immediately, even with open connections
                server.program.process.wait(PATIENCE_S)
        raise RuntimeError(
            f"PostgreSQL did not start in {START_ATTEMPTS} attempts; its log ends: {server.program.log()}"
        )
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _with_tls(folder: Path, pair: Path, user: dict[str, Any]) -> dict[str, str]:
    """Copy a pair to where the server may read it, and return the options that name it."""
    for kind in ("crt", "key"):
        copy = Path(shutil.copy(pair.with_suffix(f".{kind}"), folder / f"server.{kind}"))
        copy.chmod(0o600)
        if user:
            os.chown(copy, user["user"], user["group"])
    return {"ssl": "on", "ssl_cert_file": str(folder / "server.crt"), "ssl_key_file": str(folder / "server.key")}


def _start(
    command: list[str], folder: Path, address: str, password: str, user: dict[str, Any], more: dict[str, str]
) -> PostgresServer:
    port = _free_port(address)
    options = {"listen_addresses": address, "unix_socket_directories": "", "fsync": "off", "port": port, **more}
    argv = [*command, "-D", "data", *(f"--{name}={value}" for name, value in options.items())]
    return PostgresServer(address, port, password, Program(argv, folder, user))


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def _server_user(folder: Path) -> dict[str, Any]:
    """Give a folder to the user the server may run as, and return the arguments that start a process as that user."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _answers(server: PostgresServer) -> bool:
    """Return whether the server came up; if another one took its port first, it ends."""
    import psycopg2

    address = {"host": server.address, "port": server.port, "dbname": DATABASE, "connect_timeout": 5}
    until = time.monotonic() + PATIENCE_S
    while server.program.process.poll() is None and time.monotonic() < until:
        try:
            psycopg2.connect(**address, user=USER, password=server.password).close()
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False
