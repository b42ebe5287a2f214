"""A training whose saves take longer than a notice leaves gives a warning before it starts."""

import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from platform_assets.base import failures
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.launch import records
from platform_assets.launch.attempt import begin
from platform_assets.launch.endings import Ending, first_try
from platform_assets.launch.profiles import PROFILES
from platform_assets.launch.tries import report_save_time
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, Attempt, ProcessLocation

WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
GKE = PROFILES["gpu_spot"].replace(cloud="gke")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path), "DRIFTLINE_ROOT": str(tmp_path / "store")})


def measure(settings: Settings, save_s: float, step: str = "train") -> None:
    """Record an attempt, of another cutoff, whose longest save took this long."""
    work = Work(product="tiny", step=step, cutoff="0001", fingerprint="e" * 64)
    launch = begin(work, first_try(GKE), run_id="r", launcher="kubernetes")
    progress = Attempt(id=launch.id, reason="", usd_per_hour=1.0, wall_s=1.0, save_s=save_s)
    ending = Ending(failure=failures.PREEMPTED, evidence="the node was taken away")
    record = records.record_of(launch, ending, ProcessLocation(), None, progress, None)
    assert (record.save_s, record.save_limit_s) == (save_s, 15)
    Ledgers(settings.root, "tiny").of(ATTEMPTS).append(record)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


def report(settings: Settings, size: Any, work: Work = WORK) -> list[tuple[str, str]]:
    logger, lines = logging.getLogger("notices"), Lines()
    logger.setLevel(logging.INFO)
    logger.handlers = [lines]
    report_save_time(logger, settings, work, size)  # type: ignore[arg-type]  # Dagster's logger is one of logging's
    return lines.lines


def test_without_a_measured_save_the_time_that_the_notice_leaves_is_logged(settings: Settings) -> None:
    ((level, line),) = report(settings, GKE)
    assert level == "INFO"
    assert "no save of step train has been measured yet; profile gpu_spot leaves 15 s" in line
    assert report(settings, PROFILES["gpu"]) == []


def test_a_save_longer_than_the_notice_gives_a_warning_before_the_start(settings: Settings) -> None:
    measure(settings, 41.26)
    measure(settings, 3.0)
    ((level, line),) = report(settings, GKE)
    assert level == "WARNING"
    assert "has taken 41.3 s, and profile gpu_spot leaves 15 s" in line
    assert "raise the grace_s" not in line
    assert report(settings, GKE.replace(notice_s=60)) == []
    ((_, line),) = report(settings, PROFILES["gpu"].replace(grace_s=30))
    assert "leaves 30 s" in line
    assert "raise the grace_s of the profile" in line


def test_only_attempts_at_the_same_step_count_and_an_export_makes_no_saves(settings: Settings) -> None:
    measure(settings, 41.0, step="export")
    assert report(settings, GKE)[0][0] == "INFO"
    assert report(settings, GKE, Work(product="tiny", step="export", cutoff="0009", fingerprint="f" * 64)) == []


def test_a_record_without_a_save_is_written_as_before() -> None:
    record = Attempt(id="a", reason="finished", usd_per_hour=1.0, wall_s=1.0)
    assert {"save_s", "save_limit_s"}.isdisjoint(record.document())
    assert replace(record, save_s=2.5).document()["save_s"] == 2.5
