import contextlib
import json
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_assets.store.tables import TableStore
from tests.doubles.faulty_s3 import Faults, in_front_of
from tests.doubles.s3_server import S3Server

CHILD = Path(__file__).with_name("child.py")
REPOSITORY = Path(__file__).parents[2]
BROKEN_BUCKET = "driftline-broken"

Spawn = Callable[..., "subprocess.Popen[str]"]
Leave = Callable[[int], contextlib.AbstractContextManager[None]]


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server) -> Iterator[Faults]:
    """One proxy for all tests, with a bucket of its own: polars keeps a bucket's client, address and all."""
    s3_server.make_bucket(BROKEN_BUCKET)
    with in_front_of(s3_server.endpoint) as faults:
        yield faults


@pytest.fixture
def faults(s3_proxy: Faults) -> Faults:
    s3_proxy.clear()
    return s3_proxy


@pytest.fixture
def broken_root(s3_server: S3Server, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage root on S3 behind the proxy that `faults` controls."""
    for name, value in s3_server.environment(faults.endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BROKEN_BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(root: str) -> TableStore:
    return TableStore(root, "tiny")


@pytest.fixture
def spawn(root: str) -> Iterator[Spawn]:
    """Start `child.py` with a task in a process of its own; no process outlives the test."""
    children: list[subprocess.Popen[str]] = []

    def start(**task: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps({"root": root, **task})],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "POLARS_MAX_THREADS": "1", "TOKIO_WORKER_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[str, Leave]]:
    """Yield a storage root and `leave(bytes)`, a context in which only that many bytes can be written.

    A real full disk (a small tmpfs) where this process may mount one; elsewhere a limit on file sizes.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        yield str(folder / "store"), _limit_file_sizes
        return
    try:
        yield str(folder / "store"), lambda free: _fill(folder, free)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def _fill(folder: Path, free: int) -> Iterator[None]:
    filler = folder / "filler"
    room = os.statvfs(folder)
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - free)))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def _limit_file_sizes(free: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
