"""A step ends with its parent, handles requests to stop, and measures its own use."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from platform_assets.training.steps import process

pytestmark = pytest.mark.slow

ORPHAN = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys, time
from platform_assets.training.steps import process
process.die_with_parent()
print("ready", flush=True)
time.sleep(60)
'''], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_step_ends_when_the_process_that_started_it_is_killed(repository: Path) -> None:
    parent = subprocess.run([sys.executable, "-c", ORPHAN], cwd=repository, capture_output=True, text=True, check=False)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pidfd = None
    try:
        pidfd = os.pidfd_open(int(parent.stdout))
        import select

        ended, _, _ = select.select([pidfd], [], [], 30)
        assert ended
    except ProcessLookupError:
        pass
    finally:
        if pidfd is not None:
            os.close(pidfd)


def test_a_signal_only_sets_a_flag_and_the_check_ends_the_process_with_a_special_code() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = process.StopRequest().listen()
        stop.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(process.Preempted) as caught:
            stop.check()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert caught.value.code == process.EXIT_PREEMPTED == 143


def test_use_is_positive_and_grows() -> None:
    first = process.cpu_s()
    sum(value * value for value in range(200_000))
    assert process.cpu_s() >= first > 0
    assert process.peak_memory_mb() > 5


def test_kills_for_memory_are_counted_by_the_control_group(tmp_path: Path) -> None:
    assert process.oom_kills(tmp_path) == 0
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert process.oom_kills(tmp_path) == 3
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert process.oom_kills(tmp_path) == 1


def test_what_a_pod_received_is_counted_without_its_loopback(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_text(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls\n"
        "    lo: 5000 7 0 0 0 0 0 0 5000 7 0 0 0 0 0 0\n"
        "  eth0:1234567 800 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n"
        "  net1: 10 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        encoding="ascii",
    )
    assert process.received_bytes(table) == 1_234_577
    assert process.received_bytes(tmp_path / "none") is None
