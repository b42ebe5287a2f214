"""A server's name is its first process's, and of no other one that gets the same id."""

import os
import subprocess
import sys

import psutil
import pytest

from platform_assets.serving import servers


def test_a_server_runs_as_long_as_its_first_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = servers.name_of(process.pid)
        assert servers.is_running(name) and servers.pid_of(name) == process.pid
        process.communicate(b"\n")
    assert not servers.is_running(name)
    with pytest.raises(psutil.NoSuchProcess):
        servers.name_of(process.pid)


def test_a_later_process_with_its_id_is_another_server() -> None:
    pid, started = servers.name_of(os.getpid()).split("-")
    assert servers.is_running(f"{pid}-{started}")
    assert not servers.is_running(f"{pid}-{int(started) - 1}")


@pytest.mark.parametrize("name", ["", "1", "1-", "-1", "1-2-3", "metrics", f"{2**22 + 1}-5"])
def test_other_names_do_not_name_a_running_server(name: str) -> None:
    assert not servers.is_running(name)
