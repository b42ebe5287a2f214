"""A run's process is a copy with Dagster imported, and with nothing that a person may edit; switched off, it is none.

`tests/automation/test_pools.py` cancels and kills real runs, with this launcher and with Dagster's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.instance import copying_launcher, home

PROGRAM = """
import os, sys
from pathlib import Path

def look(place):
    import json
    before = sorted(sys.modules)
    import edited
    Path(place).write_text(json.dumps([edited.VALUE, before, len(os.listdir("/proc/self/task"))]))

if __name__ == "__main__":
    import platform_assets.definitions
    from platform_assets.instance import copying_launcher
    for value in ("first", "second"):
        Path("edited.py").write_text(f"VALUE = {value!r}\\n")
        process = copying_launcher.copied(look, value)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


def test_a_copy_has_the_libraries_one_thread_and_the_files_as_they_are_now(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    environment = {"PYTHONPATH": str(REPOSITORY), "DRIFTLINE_STATE": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for expected in ("first", "second"):
        value, modules, threads = json.loads((tmp_path / expected).read_text(encoding="utf-8"))
        assert (value, threads) == (expected, 1)
        assert set(copying_launcher.LIBRARIES) <= set(modules)
        assert not {name.partition(".")[0] for name in modules} & {"platform_assets", "resources", "sensors", "edited"}


@pytest.mark.parametrize(("enabled", "expected"), [(True, "CopyingLauncher"), (False, "DefaultRunLauncher")])
def test_the_setting_chooses_the_launcher(settings: Settings, enabled: bool, expected: str) -> None:
    path = home.prepare(settings) / "dagster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["run_launcher"]["config"]["enabled"] = enabled
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(path.parent)) as instance:
        assert type(instance.run_launcher).__name__ == expected
