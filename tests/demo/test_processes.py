"""No process outlives the demo that started it."""

from __future__ import annotations

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

PATIENCE_S = 60.0

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


def _wait_until(is_true, condition: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s: {condition}"
        time.sleep(0.02)


def _living(marker: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter(["environ", "status"]):
        environment = process.info["environ"] or {}
        if environment.get("DRIFTLINE_TEST_TREE") == marker and process.info["status"] != psutil.STATUS_ZOMBIE:
            processes.append(process)
    return processes


def _sleepers(marker: str) -> int:
    return sum(process.name() == "sleep" for process in _living(marker))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_all_processes_end_with_their_holder(tmp_path: Path, number: signal.Signals):
    marker = f"{os.getpid()}-{number}"
    command = [sys.executable, "-c", HOLDER, str(tmp_path), TREE]
    environment = {**os.environ, "DRIFTLINE_TEST_TREE": marker}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as holder:
        try:
            _wait_until(lambda: _sleepers(marker) == 3, "three sleepers run")
        finally:
            holder.send_signal(number)
    _wait_until(lambda: not _living(marker), "nothing of the tree is left")


def test_leaving_the_context_ends_all_processes(tmp_path: Path):
    marker = f"{os.getpid()}-context"
    with Children({**os.environ, "DRIFTLINE_TEST_TREE": marker}, tmp_path) as children:
        children.start("tree", ["sh", "-c", "sleep 1000 & wait"])
        _wait_until(lambda: _sleepers(marker) == 1, "the sleeper runs")
        children.check()
    assert not _living(marker)


def test_child_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path):
    with Children(os.environ, tmp_path) as children:
        child: Child = children.start("server", ["sh", "-c", "echo no port left; exit 7"])
        _wait_until(lambda: child.leash.poll() is not None, "the server ended")
        with pytest.raises(ChildEnded, match=r"(?s)server ended with status 7.*no port left"):
            children.check()


def test_error_far_above_the_end_of_a_log_is_shown(tmp_path: Path):
    script = """
try:
    try:
        raise ValueError("the port is taken")
    except ValueError as problem:
        raise KeyError("no port") from problem
except KeyError:
    print("line\\n" * 100, flush=True)
    raise
"""
    with Children(os.environ, tmp_path) as children:
        child: Child = children.start("server", [sys.executable, "-c", script])
        _wait_until(lambda: child.leash.poll() is not None, "the server ended")
        child.log.write_text(child.log.read_text(encoding="utf-8") + "line\n" * 100, encoding="utf-8")
        with pytest.raises(ChildEnded, match=r"(?s)caused by ValueError: the port is taken.*line") as raised:
            children.check()
    assert str(raised.value).count("\n") == 16


def test_port_in_use_is_skipped():
    with socket.socket() as listener:
        listener.bind((processes.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert processes.free_port(port) > port


def test_port_reserved_for_another_is_skipped():
    port = processes.free_port(20_000)
    assert processes.free_port(port, taken=[port]) > port


def test_two_demos_that_start_at_once_have_ports_of_their_own(tmp_path):
    one, two = (Children({}, tmp_path) for _ in range(2))
    with one:
        first = one.free_port(20_000, count=2)
        with two:
            others = [two.free_port(first), two.free_port(first + 1)]
            assert not {first, first + 1} & set(others)
            assert len(set(others)) == 2
    with two:
        assert two.free_port(first, count=2) == first, "the end of a demo frees its ports"


def test_waiting_stops_when_the_server_is_gone():
    def check() -> None:
        raise ChildEnded("gone")

    with pytest.raises(ChildEnded, match="gone"):
        processes.wait_for("http://127.0.0.1:9", check=check, timeout_s=PATIENCE_S)


def test_a_timeout_names_the_last_connection_error():
    with pytest.raises(TimeoutError, match="ConnectError"):
        processes.wait_for("http://127.0.0.1:9", check=lambda: None, timeout_s=0.1)


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
        processes.wait_for(f"http://127.0.0.1:{server.server_port}", check=lambda: None, timeout_s=PATIENCE_S)
        server.shutdown()
    assert _Refusing.asked == 3


COPIES = """
import os, time
block = b"x" * 200_000_000
for _ in range(3):
    if not os.fork():
        break
os.write(1, b"there\\n")
time.sleep(1000)
"""


def test_memory_of_the_tree_counts_children_and_what_they_share_once():
    before = processes.tree_memory_bytes()
    command = [sys.executable, "-c", COPIES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            for _ in range(4):
                assert child.stdout.readline() == b"there\n"
            grown = processes.tree_memory_bytes() - before
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert 200e6 < grown < 400e6


def test_memory_of_a_process_that_may_not_be_looked_at_is_what_is_resident(monkeypatch: pytest.MonkeyPatch):
    def refused(_process: psutil.Process) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)
    assert processes.tree_memory_bytes() >= psutil.Process().memory_info().rss / 2


def test_the_peak_of_memory_is_that_of_the_largest_look(monkeypatch: pytest.MonkeyPatch):
    sizes = [3, 7, 5]
    monkeypatch.setattr(processes, "tree_memory_bytes", lambda: sizes.pop(0) if sizes else 1)
    with processes.MemoryWatch(interval_s=0.001) as watch:
        _wait_until(lambda: not sizes, "it looked three times")
    assert watch.peak_bytes == 7


def test_cpu_of_the_tree_counts_children_that_run_and_those_that_ended():
    spend = "import time\nwhile time.process_time() < 0.3: pass\n"
    before = processes.tree_cpu_s()
    subprocess.run([sys.executable, "-c", spend], check=True)
    ended = processes.tree_cpu_s()
    assert ended - before > 0.27, "the system counts ticks of 10 ms"
    with subprocess.Popen([sys.executable, "-c", f"{spend}print(flush=True)\ntime.sleep(1000)"], stdout=-1) as child:
        try:
            assert child.stdout is not None and child.stdout.readline()
            assert processes.tree_cpu_s() - ended > 0.27
        finally:
            child.kill()
