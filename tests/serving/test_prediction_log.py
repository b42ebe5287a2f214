"""Whole records, one file a process, and nothing half-written on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from platform_assets.serving.prediction_log import LogProblem, PredictionLog


def test_nothing_is_made_before_the_first_record(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "deep" / "log")
    log.sync()
    log.close()
    assert not (tmp_path / "deep").exists()
    log.append(b"a\n")
    log.append(b"b\n")
    log.sync()
    (place,) = (tmp_path / "deep" / "log").iterdir()
    assert place.read_bytes() == b"a\nb\n"
    assert str(os.getpid()) in place.name


def test_a_full_file_gives_way_to_a_new_one(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, file_bytes_max=4)
    for record in (b"aaaa\n", b"b\n", b"c\n", b"d\n"):
        log.append(record)
    assert [place.read_bytes() for place in sorted(tmp_path.iterdir())] == [b"aaaa\n", b"b\nc\n", b"d\n"]


def test_a_half_written_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(tmp_path)
    log.append(b"first\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(LogProblem, match=r"took 3 of 7 bytes; the disk is full"):
        log.append(b"second\n")
    monkeypatch.undo()
    log.append(b"third\n")
    (place,) = tmp_path.iterdir()
    assert place.read_bytes() == b"first\nthird\n"


def test_a_disk_without_room_is_a_problem_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(tmp_path)
    with monkeypatch.context() as patch:

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "write", full)
        with pytest.raises(LogProblem, match="No space left on device"):
            log.append(b"lost\n")
    log.append(b"kept\n")
    (place,) = tmp_path.iterdir()
    assert place.read_bytes() == b"kept\n"
