"""A run's process is a copy with libraries and our package imported, and without products; switched off, it is none.

`tests/automation/test_pools.py` cancels and kills real runs, with this launcher and with Dagster's own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest
import yaml

from platform_assets.base.settings import ONLY_PRODUCT, REPOSITORY, Settings
from platform_assets.instance import copying_launcher, home, preloaded

pytestmark = pytest.mark.slow

PROGRAM = """
import os, sys
from pathlib import Path

def look(place):
    import json
    before = sorted(sys.modules)
    import edited
    import polars
    assert polars.DataFrame({"a": [1, 2]}).lazy().sum().collect().item() == 3, "its threads start in the copy"
    Path(place).write_text(json.dumps([edited.VALUE, before]))

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


@pytest.mark.costly
def test_a_copy_has_the_libraries_and_the_files_as_they_are_now(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    environment = {"PYTHONPATH": str(REPOSITORY), "DRIFTLINE_STATE": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for expected in ("first", "second"):
        value, modules = json.loads((tmp_path / expected).read_text(encoding="utf-8"))
        assert value == expected
        assert {"deltalake", "matplotlib.figure", "pandera.polars", "platform_assets.sensors.landings"} <= set(modules)
        assert not {"edited", "platform_assets.definitions", "resources", "sensors"} & set(modules)
        assert not [name for name in modules if name.startswith("platform_assets.products.")]


def test_an_edited_file_of_the_package_has_a_run_start_python_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preloaded.changed() is None
    path = str(copying_launcher.__file__)
    monkeypatch.setitem(preloaded._STAMPS, path, (0, 0))
    started: list[list[str]] = []

    def execv(_path: str, command: list[str]) -> NoReturn:
        started.append([*command[1:], os.environ[ONLY_PRODUCT]])
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv(ONLY_PRODUCT, "")
    with pytest.raises(SystemExit):
        copying_launcher._execute("the run", "shop_orders")
    assert (preloaded.changed(), started) == (path, [["-m", "dagster", "api", "execute_run", "the run", "shop_orders"]])


@pytest.mark.parametrize(("enabled", "expected"), [(True, "CopyingLauncher"), (False, "DefaultRunLauncher")])
def test_the_setting_chooses_the_launcher(settings: Settings, enabled: bool, expected: str) -> None:
    path = home.prepare(settings) / "dagster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["run_launcher"]["config"]["enabled"] = enabled
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(path.parent)) as instance:
        assert type(instance.run_launcher).__name__ == expected
