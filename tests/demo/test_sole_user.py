"""One demo or UI per state: a second one is refused with a message, and a killed one leaves no lock or processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.demo.processes import StateInUse, sole_user
from platform_assets.instance import home
from tests.demo.test_processes import PATIENCE_S, living, wait_until

pytestmark = pytest.mark.slow

HOLDER = """
import os, sys, time
from platform_assets.demo.processes import Children, sole_user
from platform_assets.base.settings import Settings
settings = Settings.from_environment()
with sole_user(settings, "driftline demo --keys 4") as lock:
    with Children(os.environ, settings.state / "logs", grace_s=1.0, keeps=(lock,)) as children:
        children.start("tree", ["sh", "-c", sys.argv[1]])
        print("ready", flush=True)
        time.sleep(1000)
"""
STUBBORN = "trap '' TERM; echo up; sleep 1001; sleep 1002"


def commands(marker: str) -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in living(marker)]


@contextmanager
def holding(settings: Settings, marker: str, does: str = STUBBORN) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **settings.to_environment(), "DRIFTLINE_TEST_TREE": marker}
    command = [sys.executable, "-c", HOLDER, does]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
            wait_until(lambda: any("sleep 1001" in command for command in commands(marker)), "the tree runs")
            yield holder
        finally:
            holder.kill()
    wait_until(lambda: not living(marker), "nothing of the tree is left")


@pytest.mark.parametrize("command", [["demo"], ["demo", "--keys", "2", "--seed", "7"], ["dev"]])
def test_a_second_holder_is_refused_and_changes_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        run = dg.DagsterRun(job_name="advance__flight_delays", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        with holding(settings, f"{os.getpid()}-second-{len(command)}") as holder:
            before = sorted(settings.state.rglob("*"))
            assert main(command) == 1
            message = capsys.readouterr().err
            assert f"{settings.state} is in use by `driftline demo --keys 4` (process {holder.pid}, since " in message
            assert "DRIFTLINE_STATE" in message
            assert sorted(settings.state.rglob("*")) == before
            assert holder.poll() is None
        stored = instance.get_run_by_id(run.run_id)
        assert stored is not None and stored.status is dg.DagsterRunStatus.STARTED


def test_a_killed_holders_lock_stays_with_its_processes_and_is_then_free(settings: Settings) -> None:
    marker = f"{os.getpid()}-killed"
    with holding(settings, marker) as holder:
        holder.kill()
        holder.wait()
        wait_until(lambda: is_free(settings), "the lock is free")
        assert [command for command in commands(marker) if "sleep" in command] == [], (
            "two daemons would work on one state"
        )


def is_free(settings: Settings) -> bool:
    try:
        with sole_user(settings, "the next"):
            return True
    except StateInUse:
        return False


def test_a_lock_is_free_after_its_context_and_independent_of_other_states(settings: Settings, tmp_path: Path) -> None:
    other = settings.replace(state=tmp_path / "other")
    for _ in range(2):
        with sole_user(settings, "one"), sole_user(other, "another"):
            assert not is_free(settings)


DEMO = [sys.executable, "-m", "platform_assets.cli", "demo", "--keys", "1"]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("command", "working", "number"),
    [
        (["make", "-o", "setup", "dev", f"BIN={Path(sys.executable).parent}"], "Launching Dagster", signal.SIGTERM),
        pytest.param(DEMO, ", launched by landings: ", signal.SIGKILL, marks=pytest.mark.thorough),
    ],
    ids=["dev", "demo"],
)
def test_no_process_outlives_a_real_dagster_without_a_terminal(
    settings: Settings, repository: Path, command: list[str], working: str, number: signal.Signals
) -> None:
    marker = f"{os.getpid()}-{number}"
    environment = {**os.environ, "DRIFTLINE_TEST_TREE": marker}
    log = settings.state / "output.log"
    with log.open("wb") as output:
        # A script's `make dev &` ignores SIGINT; Dagster then ignores SIGTERM too.
        ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
        started = subprocess.Popen(
            ignoring, cwd=repository, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: working in log.read_text(encoding="utf-8"), "Dagster works")
        assert any("dagster dev" in line for line in commands(marker))
        started.send_signal(number)
        started.wait(PATIENCE_S)
        wait_until(lambda: not living(marker), "nothing of it is left")
    finally:
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("DRIFTLINE_TEST_TREE") == marker:
                process.kill()
        started.wait()
