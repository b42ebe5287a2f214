from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_assets.storage.tables import TableStore

CHILD = Path(__file__).with_name("child.py")
REPOSITORY = Path(__file__).parents[2]

Spawn = Callable[..., "subprocess.Popen[str]"]
Leave = Callable[[int], contextlib.AbstractContextManager[None]]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def store(root: str) -> TableStore:
    return TableStore(root, "tiny")


@pytest.fixture
def spawn(root: str) -> Iterator[Spawn]:
    """Start `child.py` with a task as a process of its own; none outlives the test."""
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
    """Yield a storage root and `leave(bytes)`, a context in which only so much can be written.

    A real full disk (a small tmpfs) where this process may mount one; elsewhere a limit on file sizes.
    """
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        yield str(place / "store"), _limit_file_sizes
        return
    try:
        yield str(place / "store"), lambda free: _fill(place, free)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def _fill(place: Path, free: int) -> Iterator[None]:
    filler = place / "filler"
    room = os.statvfs(place)
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
