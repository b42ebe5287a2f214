"""A process that died is told of by the next one, once, with the time when it was last seen alive."""

import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.follow.alive import Mark

pytestmark = pytest.mark.slow

KILLED = """\
import os, signal, sys
from pathlib import Path
from platform_assets.serving.follow.alive import Mark
mark = Mark(Path(sys.argv[1]))
mark.begin()
mark.renew()
if sys.argv[2] == "closes":
    mark.end()
os.kill(os.getpid(), signal.SIGKILL)
"""


def run(folder: Path, ending: str) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), ending], check=False).returncode == -9


def test_each_death_is_told_once_and_counted_on_the_disk(tmp_path: Path) -> None:
    before, folder = datetime.now(UTC), tmp_path / "alive"
    run(folder, "closes")
    first = Mark(folder)
    assert (first.begin(), first.deaths) == ([], 0)
    run(folder, "is killed")
    run(folder, "is killed")  # finds the one before it
    second = Mark(folder)
    (died,) = second.begin()
    assert before.replace(microsecond=0) <= died.seen_at <= datetime.now(UTC)
    assert died.had is None
    assert second.deaths == 2, "a counter that began at one in each process would not rise"
    second.end()
    third = Mark(folder)
    assert (third.begin(), third.deaths) == ([], 2), "the first process still lives"
    first.end()
    third.end()
    assert list(folder.glob("*.alive")) == []


@pytest.mark.parametrize("text", ["", "-1", "many", "²", "9" * 5000])
def test_a_damaged_count_begins_again(tmp_path: Path, text: str) -> None:
    run(tmp_path, "is killed")
    (tmp_path / "deaths").write_text(text, encoding="utf-8")
    mark = Mark(tmp_path)
    assert (len(mark.begin()), mark.deaths) == (1, 1)
    mark.end()


def test_the_line_and_the_counter_of_a_death(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    run(app.folder / "alive", "is killed")
    with caplog.at_level(logging.INFO, "bentoml.driftline"):
        app.middleware._leave_mark()
    (line,) = caplog.messages
    assert re.fullmatch(
        r"tiny: a process before this one ended without closing; it was last seen alive at [-0-9]+T[0-9:]+\+00:00\.",
        line,
    )
    assert "driftline_process_deaths_total 1.0" in app.metrics()
    app.runtime.mark.end()


def test_a_folder_that_cannot_be_written_keeps_nobody_from_answering(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (app.folder / "alive").write_text("not a folder")
    app.middleware._leave_mark()
    app.runtime.mark.renew()
    app.runtime.mark.end()
    assert "whether a process before this one died is not known" in caplog.text
