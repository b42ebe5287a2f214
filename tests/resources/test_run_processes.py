"""A run's process is a copy with Dagster imported, and with nothing that a person may edit."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path

import pytest
from dagster._grpc.impl import start_run_in_subprocess

from platform_assets.settings import REPOSITORY
from resources import run_processes

PROGRAM = """
import multiprocessing, os, sys
from pathlib import Path

def look(queue):
    before = sorted(sys.modules)
    import edited
    queue.put((edited.VALUE, before, len(os.listdir("/proc/self/task"))))

if __name__ == "__main__":
    import json
    import platform_assets.definitions
    from resources import run_processes
    results = []
    for value in ("first", "second"):
        Path("edited.py").write_text(f"VALUE = {value!r}\\n")
        queue = multiprocessing.get_context("spawn").Queue()
        process = run_processes.copied(look, [queue])
        process.start()
        results.append(queue.get())
        process.join()
        assert process.exitcode == 0
    print(json.dumps(results))
"""


def test_runs_are_copies_and_other_processes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(context, "Process", context.Process)
    run_processes.install()
    assert isinstance(context.Process(target=start_run_in_subprocess, args=[1]), ForkServerProcess)
    assert isinstance(context.Process(target=print, args=[1]), SpawnProcess)


def test_a_copy_has_the_libraries_one_thread_and_the_files_as_they_are_now(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "DRIFTLINE_STATE": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout.splitlines()[-1])
    assert [value for value, _, _ in results] == ["first", "second"]
    for _, modules, threads in results:
        assert set(run_processes.LIBRARIES) <= set(modules)
        assert threads == 1
        assert not {name.partition(".")[0] for name in modules} & {"platform_assets", "resources", "sensors", "edited"}
