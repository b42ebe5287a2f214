"""A worker is a copy of its parent that has forgotten it: nothing of its files, signals or end is left."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from platform_assets.serving import build, run
from platform_assets.settings import Settings
from platform_assets.storage.artifacts import ArtifactStore
from tests.doubles import models

SHARED = 2
"""Sockets that a worker inherits: the callers' and the probes'."""
WORK = """\
import sys
from _bentoml_impl.worker import service
from platform_assets.serving import forked

def main(*_):
    {does}

service.main.main = main
forked._work(["python", "-m", forked.WORKER, "."], {{"LANG": "C"}})
print("the parent's code went on")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[run.Server]:
    folder = tmp_path_factory.mktemp("forked")
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVING_POLL_S": "0.1"})
    workshop = ArtifactStore(str(folder / "workshop"))
    built = build.build(settings, workshop, models.write_bundle(workshop, bias=0.0))
    with run.serving(settings, str(built.path)) as running:  # a folder, as in a pod
        yield running


def _workers(server: run.Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def _sockets(process: psutil.Process) -> set[str]:
    links = {str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
    return {link for link in links if link.startswith("socket:")}


def test_workers_share_the_memory_of_what_their_parent_imported(server: run.Server) -> None:
    parent = psutil.Process(server.process.pid)
    one, other = _workers(server)
    assert one.cmdline() == other.cmdline() == parent.cmdline()
    for worker in (one, other):
        memory = worker.memory_full_info()
        assert memory.uss < memory.rss / 2, "bytes that no other process has, and all"


def test_a_worker_has_the_two_listening_sockets_of_its_parent_and_no_other(server: run.Server) -> None:
    parent = psutil.Process(server.process.pid)
    assert len(_sockets(parent)) > SHARED
    for worker in _workers(server):
        assert len(_sockets(worker) & _sockets(parent)) == SHARED


def test_a_line_of_the_log_names_the_worker_that_wrote_it(server: run.Server) -> None:
    loaded = re.findall(r"\[(\S+)\] Service loaded", server.log.read_text(encoding="utf-8"))
    assert set(loaded) == {"cli", ":1", ":2"}


def test_a_worker_ignores_closed_pipes_and_is_a_session_of_its_own(server: run.Server) -> None:
    for worker in _workers(server):
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
        ignored = int(re.findall(r"SigIgn:\s+(\w+)", status)[0], 16)
        assert ignored & 1 << 12, "SIGPIPE, number 13"
        fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        assert int(fields[3]) == worker.pid, "its session"


@pytest.mark.parametrize(
    ("does", "status", "printed"),
    [
        ("return", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no port')", 1, "no port\n"),
        ("raise ValueError('no model')", 1, "ValueError: no model\n"),
        ("print('said', flush=False); import os; print(dict(os.environ), file=sys.stderr)", 0, "{'LANG': 'C'}\n"),
    ],
)
def test_a_worker_ends_as_a_program_does_and_never_as_its_parent(does: str, status: int, printed: str) -> None:
    code = WORK.format(does=does)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr[-len(printed) :] if printed else ended.stderr) == (status, printed)
    assert ended.stdout == ("said\n" if "said" in does else "")


@pytest.mark.thorough
def test_no_copy_is_made_where_changed_code_is_to_be_loaded_again(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)})
    workshop = ArtifactStore(str(tmp_path / "workshop"))
    built = build.build(settings, workshop, models.write_bundle(workshop, bias=0.0))
    port = run.free_port()
    command = [*run.command(built.tag, port), "--reload"]
    with subprocess.Popen(command, env=settings.child_environment(), stdout=subprocess.DEVNULL) as process:
        url, probes = f"http://{run.HOST}:{port}", f"http://{run.HOST}:{settings.probes_port(port)}"
        running = run.Server(url, probes, process, tmp_path / "log")
        running.log.touch()
        running.wait_ready()
        children = psutil.Process(process.pid).children()
        assert [child for child in children if "_bentoml_impl.worker.service" in child.cmdline()]
        process.terminate()
