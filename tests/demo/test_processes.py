"""No process outlives the demo that started it."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from platform_assets.demo import processes
from platform_assets.demo.processes import Child, ChildEnded, Children

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0

# A server with a child, an orphan in a session of its own, and a child that ignores SIGTERM.
TREE = "sleep 1000 & (setsid sleep 1001 & ) ; (trap '' TERM; sleep 1002; sleep 1003) & echo up; wait"

HOLDER = """
import os, sys, time
from pathlib import Path
from platform_assets.demo.processes import Children
with Children(os.environ, Path(sys.argv[1]), grace_s=0.5) as children:
    children.start("tree", ["sh", "-c", sys.argv[2]])
    time.sleep(1000)
"""


def wait_until(is_true, condition: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s: {condition}"
        time.sleep(0.02)


def living(marker: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter(["environ", "status", "cmdline"]):
        environment = process.info["environ"] or {}
        if environment.get("DRIFTLINE_TEST_TREE") == marker and process.info["status"] != psutil.STATUS_ZOMBIE:
            processes.append(process)
    return processes


def _sleepers(marker: str) -> int:
    return sum(process.name() == "sleep" for process in living(marker))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_all_processes_end_with_their_holder(tmp_path: Path, number: signal.Signals):
    marker = f"{os.getpid()}-{number}"
    command = [sys.executable, "-c", HOLDER, str(tmp_path), TREE]
    environment = {**os.environ, "DRIFTLINE_TEST_TREE": marker}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as holder:
        try:
            wait_until(lambda: _sleepers(marker) == 3, "three sleepers run")
        finally:
            holder.send_signal(number)
    wait_until(lambda: not living(marker), "nothing of the tree is left")


def test_leaving_the_context_ends_all_processes(tmp_path: Path):
    marker = f"{os.getpid()}-context"
    with Children({**os.environ, "DRIFTLINE_TEST_TREE": marker}, tmp_path) as children:
        children.start("tree", ["sh", "-c", "sleep 1000 & wait"])
        wait_until(lambda: _sleepers(marker) == 1, "the sleeper runs")
        children.check()
    assert not living(marker)


def test_child_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path):
    with Children(os.environ, tmp_path) as children:
        child: Child = children.start("server", ["sh", "-c", "echo no port left; exit 7"])
        wait_until(lambda: child.leash.poll() is not None, "the server ended")
        with pytest.raises(ChildEnded, match=r"(?s)server ended with status 7.*no port left"):
            children.check()


def test_port_in_use_is_skipped():
    with socket.socket() as listener:
        listener.bind((processes.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert processes.free_port(port) > port


def test_two_demos_that_start_at_once_have_ports_of_their_own():
    first = processes.free_port(20_000, count=2)
    others = [processes.free_port(first), processes.free_port(first + 1)]
    assert not {first, first + 1} & set(others)
    assert len(set(others)) == 2


def test_waiting_stops_when_the_server_is_gone():
    def check() -> None:
        raise ChildEnded("gone")

    with pytest.raises(ChildEnded, match="gone"):
        processes.wait_for("http://127.0.0.1:9", check=check)


def test_waiting_says_for_what_from_time_to_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    looks = iter([None, None, "here"])
    monkeypatch.setattr(processes, "SHOWN_EVERY_S", 0.0)
    assert processes.wait_until(lambda: next(looks), "the first model", lambda: None, pause_s=0.0) == "here"
    assert capsys.readouterr().out == "  waiting for the first model, 0 s so far\n" * 2


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Is not ready for the first two requests."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(503 if self.asked < 3 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_waiting_goes_on_while_a_server_is_not_ready():
    with http.server.HTTPServer((processes.HOST, 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        processes.wait_for(f"http://127.0.0.1:{server.server_port}", check=lambda: None)
        server.shutdown()
    assert _Refusing.asked == 3
