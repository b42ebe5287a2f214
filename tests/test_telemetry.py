"""No library that we start reports to its makers: in a network of their own, processes send no packet to anybody.

The same processes without our settings are seen to try, so silence is not for want of hearing.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.instance import home

pytestmark = pytest.mark.slow

NETWORK = """\
set -e
echo "nameserver 192.0.2.53" >"$FOLDER/resolv.conf"
mount --bind "$FOLDER/resolv.conf" /etc/resolv.conf
ip link set lo up
ip link add out type veth peer name far
for name in out far; do
    echo 1 >/proc/sys/net/ipv6/conf/$name/disable_ipv6
    ip link set $name up
done
ip address add 192.0.2.1/24 dev out
ip route add default via 192.0.2.2
"$@" >"$FOLDER/output" 2>&1
awk '/^ *out:/ {print $10}' /proc/net/dev
"""
"""Runs a command where names are asked for, and packets sent, into the void; prints how many bytes were."""
BIN = Path(sys.executable).parent
BENTOML = (str(BIN / "bentoml"), "list")
DAGSTER = (str(BIN / "dagster"), "job", "execute", "--python-file", str(REPOSITORY / "tests/doubles/works.py"))
ONNX_RUNTIME = (sys.executable, "-c", "from platform_assets.base import onnx_runtime; onnx_runtime.library()")


def sent_bytes(command: tuple[str, ...], variables: Mapping[str, str], folder: Path) -> int:
    """Return how many bytes a command sends to other machines."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root: to make a network without anybody")
    own = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {**own, "HOME": str(folder), "FOLDER": str(folder), "PYTHONPATH": str(REPOSITORY), **variables}
    network = ["unshare", "--net", "--mount", "sh", "-c", NETWORK, "sh"]
    ended = subprocess.run(
        [*network, *command], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    output = folder / "output"
    assert ended.returncode == 0, ended.stderr + (output.read_text() if output.exists() else "")
    return int(ended.stdout)


@pytest.mark.costly
@pytest.mark.parametrize("command", [BENTOML, DAGSTER, ONNX_RUNTIME], ids=["bentoml", "dagster", "onnxruntime"])
def test_with_our_settings_nothing_is_sent_and_nothing_noted(command: tuple[str, ...], tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    home.prepare(settings)
    assert sent_bytes(command, settings.to_environment(), tmp_path) == 0
    assert noted(tmp_path) == []


def noted(folder: Path) -> list[Path]:
    """Return what Dagster keeps to send later, and ONNX Runtime's number of this machine."""
    return [path for name in (".telemetry", "event.log", "*onnxruntime*") for path in folder.rglob(name)]


@pytest.mark.costly
def test_bentoml_would_send_without_them(tmp_path: Path) -> None:
    assert sent_bytes(BENTOML, {"BENTOML_HOME": str(tmp_path / "bentoml")}, tmp_path) > 0


@pytest.mark.costly
def test_dagster_would_keep_something_to_send_without_them(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/dagster.yaml").touch()
    sent_bytes(DAGSTER, {"DAGSTER_HOME": str(tmp_path / "home"), "DRIFTLINE_STATE": str(tmp_path / "state")}, tmp_path)
    assert noted(tmp_path) != []
