"""Run a real PostgreSQL server as a process of its own: Debian's, which no Python package brings.

It listens on a free port of this host, keeps everything in a folder that is gone after it, knows one user, and is
ended at the end. PostgreSQL refuses to run as root; there it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "there is no PostgreSQL server; on Debian: apt-get install postgresql (.ci/run does)"
USER, PASSWORD, DATABASE = "driftline", "not-a-secret-of-anybody", "postgres"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class PostgresServer:
    """A server that answers."""

    port: int

    def environment(self) -> dict[str, str]:
        """Return the variables that deploy/dagster/cluster/dagster.yaml asks for."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_DB": DATABASE,
            "DAGSTER_PG_USER": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }


def binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`, or None; Debian keeps them out of the search path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (folder for folder in folders if all((folder / each).exists() for each in ("initdb", "postgres"))), None
    )


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start the server, yield it when it answers, and end it; `LookupError` where there is none."""
    folder = binaries()
    if folder is None:
        raise LookupError(MISSING)
    # Below the system's own folder for such: pytest's folders are closed to other users.
    place = Path(tempfile.mkdtemp(prefix="postgres-double-"))
    who = _somebody(place)
    try:
        (place / "password").write_text(PASSWORD, encoding="utf-8")
        made = ["-D", "data", "-U", USER, "--pwfile=password", "--auth=scram-sha-256", "--no-sync", "--locale=C.UTF-8"]
        subprocess.run([folder / "initdb", *made], cwd=place, check=True, capture_output=True, **who)
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "port": port}
        command = [folder / "postgres", "-D", "data", *(f"--{name}={value}" for name, value in options.items())]
        with (place / "server.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, **who)
        try:
            _wait(process, port, place / "server.log")
            yield PostgresServer(port)
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
            process.wait()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _somebody(place: Path) -> dict[str, Any]:
    """Give a folder to whom the server may run as, and return how a process is started as him."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg2

    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=DATABASE).close()
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return
    said = log.read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"PostgreSQL did not start; its log ends: {said[-2000:]}")
