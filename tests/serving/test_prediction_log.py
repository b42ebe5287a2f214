"""Complete records, one file per process, and nothing half-written on a full disk."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.log.prediction_log import LogProblem, PredictionLog

pytestmark = pytest.mark.slow


def test_no_file_is_created_before_the_first_record(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "deep" / "log")
    log.sync()
    log.close()
    assert not (tmp_path / "deep").exists()
    log.append(b"a\n")
    log.append(b"b\n")
    log.sync()
    (path,) = (tmp_path / "deep" / "log").iterdir()
    assert path.read_bytes() == b"a\nb\n"
    assert str(os.getpid()) in path.name


def test_files_and_folders_are_for_their_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        log = PredictionLog(tmp_path / "state" / "log")
        log.append(b"a\n")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == modes.pop("log") == 0o700
    assert list(modes.values()) == [0o600]


def test_a_full_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, file_bytes_max=4)
    for record in (b"aaaa\n", b"b\n", b"c\n", b"d\n"):
        log.append(record)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"aaaa\n", b"b\nc\n", b"d\n"]


# Changes by others ----------------------------------------------------------------------------------------------------


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.jsonl"))]


@pytest.mark.parametrize(
    ("change", "remaining"),
    [
        (Path.unlink, []),
        (lambda path: path.rename(path.with_suffix(".rotated")), []),
        (lambda path: (path.unlink(), path.write_bytes(b"another\n")), [b"another\n"]),
        (lambda path: os.truncate(path, 3), [b"fir"]),
        (lambda path: shutil.rmtree(path.parent), []),
    ],
    ids=["removed", "renamed", "replaced", "cut", "folder removed"],
)
def test_a_file_changed_by_others_is_left_and_a_new_one_created(
    tmp_path: Path, change: Callable[[Path], object], remaining: list[bytes]
) -> None:
    log = PredictionLog(tmp_path / "log")
    log.append(b"first\n")
    (path,) = (tmp_path / "log").iterdir()
    change(path)
    for record in (b"second\n", b"third\n"):
        log.append(record)
    assert files(tmp_path / "log") == [*remaining, b"second\nthird\n"]
    log.check()
    assert log.problem is None
    assert open_files(tmp_path) == 1, "the abandoned file is closed"
    log.close()
    assert open_files(tmp_path) == 0


def test_no_request_syncs_or_closes_a_full_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, synced = PredictionLog(tmp_path, file_bytes_max=4), []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for record in (b"aaaa\n", b"bbbb\n", b"cccc\n"):
        log.append(record)
    assert (synced, open_files(tmp_path)) == ([], 3)
    log.check()
    assert (len(set(synced)), open_files(tmp_path)) == (3, 1)


def open_files(folder: Path) -> int:
    targets = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(str(target).startswith(str(folder)) for target in targets)


# A full disk ----------------------------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(65_536)):
            pass


def test_a_full_disk_is_named_before_a_request_fails_and_the_problem_ends_by_itself(small_disk: Path) -> None:
    log = PredictionLog(small_disk / "log")
    log.append(b"first\n")
    log.check()
    assert log.problem is None
    fill(small_disk / "fill")
    log.check()
    assert "cannot be written: less than" in log.problem
    with pytest.raises(LogProblem, match=r"No space left on device|the disk is full"):
        log.append(b"x" * 65_536 + b"\n")
    log.check()
    assert "cannot be written" in log.problem
    (small_disk / "fill").unlink()
    log.check()
    assert log.problem is None
    log.append(b"second\n")
    assert files(small_disk / "log") == [b"first\nsecond\n"]
    assert [path.name for path in (small_disk / "log").iterdir() if path.suffix != ".jsonl"] == []


def test_a_folder_that_cannot_be_written_is_a_problem_before_the_first_record(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = PredictionLog(tmp_path / "file" / "log")
    log.check()
    assert log.problem == f"{log.folder} cannot be written: Not a directory."


LIMITED = """
import resource, signal, sys
from pathlib import Path
from platform_assets.serving.log.prediction_log import LogProblem, PredictionLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = PredictionLog(Path(sys.argv[1]))
log.append(b"first\\n")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
try:
    log.append(b"second\\n")
except LogProblem as problem:
    print(problem)
for _ in range(2):
    log.check()
    print(log.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.check()
print(log.problem)
log.append(b"third\\n")
"""


def test_a_limit_that_the_disk_does_not_report_is_probed(tmp_path: Path) -> None:
    """A quota, a read-only mount or a broken disk leaves free space as it is; the kernel limits files to 10 bytes."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "log")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    refused, *checked, after = ended.stdout.splitlines()
    assert "took 4 of 7 bytes" in refused
    assert all("cannot be written: File too large" in text for text in checked)
    assert after == "None"
    assert files(tmp_path / "log") == [b"first\nthird\n"]


def test_a_disk_that_cannot_be_synced_is_a_problem_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PredictionLog(tmp_path)
    log.append(b"first\n")
    with monkeypatch.context() as patch:

        def broken(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "fdatasync", broken)
        log.check()
        assert "cannot be synced: Input/output error" in log.problem
    log.check()
    assert log.problem is None
