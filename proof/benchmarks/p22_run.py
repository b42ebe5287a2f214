"""One platform of row P22 in a process of its own: `... {keys|idle|bare} FOLDER [SECONDS]`, in its checkout.

`keys` plays the keys of the first recorded product through a demo's platform and then leaves it alone; `idle` and
`bare` only leave one alone: this checkout's without data, and Dagster's own with one asset and no sensor. Prints one
JSON object.
"""

import json
import mmap
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay, script, servers
from platform_assets.demo.processes import Child, Children, free_port, wait_for
from platform_assets.demo.replay.deliveries import land_late
from platform_assets.demo.replay.recording import Reader
from platform_assets.engine import product_files
from platform_assets.store.product_store import ProductStore

KEYS = int(os.environ.get("P22_KEYS", "15"))
BEFORE = 2
"""Keys that are played first: runs load what others keep loaded, and the store gets its first versions."""
LOOK_S = 0.02
SETTLED_S = 60.0
"""How long a platform has before it counts as idle: its sensors have all ticked."""
ROLES = {
    "forkserver": "runs",
    "execute_run": "runs",
    "dagster._daemon": "daemon",
    "webserver": "webserver",
    "code-server": "code server's proxy",
    "grpc": "code server",
}
BARE = "import dagster as dg\n\n\n@dg.asset\ndef rows() -> None: ...\n\n\ndefs = dg.Definitions(assets=[rows])\n"


class Usage:
    """What the processes below one have used: CPU seconds by role, of ended ones too, flushes and connections."""

    def __init__(self, child: Child, counts: Path) -> None:
        self._top = psutil.Process(child.leash.pid)
        with counts.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 16)

    def now(self) -> Counter[str]:
        used = Counter[str]()
        for process, role in self._processes(self._top, "others"):
            times = process.cpu_times()
            used[role] += times.user + times.system + times.children_user + times.children_system  # type: ignore[assignment]
        used["flushes"], used["connections"] = struct.unpack("qq", self._counts[:16])
        return used

    def _processes(self, process: psutil.Process, role: str) -> Iterator[tuple[psutil.Process, str]]:
        try:
            line = " ".join(process.cmdline())
            role = next((name for part, name in ROLES.items() if part in line), role)
            below = process.children()
        except psutil.NoSuchProcess:
            return
        yield process, role
        for child in below:
            yield from self._processes(child, role)


def keys(folder: Path, seconds: float) -> dict[str, object]:
    spec = next(spec for spec in product_files.load_all() if spec.history is not None)
    settings = Settings(root=f"{folder}/store", state=folder / "state", sensor_patience_s=script.SENSOR_PATIENCE_S)
    product, chosen = ProductStore(spec, settings), script.plan(spec, count=BEFORE + KEYS)
    clock.announce(settings, spec.name, chosen.keys[-1])
    played: list[dict[str, object]] = []
    with (
        Children(_environment(settings), folder / "logs") as children,
        servers.dagster(settings, children) as (ui, instance),
    ):
        usage = Usage(children.started[0], Path(os.environ["P22_COUNTS"]))

        def check() -> None:
            children.check()
            script.raise_if_given_up(product)

        script.land(product, chosen.keys[0])
        script.materialise(product, ui, instance, check, chosen.keys[0])
        address = script.serve(product, children, chosen.keys[0])
        with replay.Player(product, address, check=check) as player:
            for key in chosen.keys:
                player.ask(key)
                script.wait_until_quiet(instance, check)
                played.append(_close(product, instance, usage, key))
                print(json.dumps(played[-1]), file=sys.stderr, flush=True)
                script.wait_until_quiet(instance, check)
        return {"keys": played[BEFORE:], "idle": _idle(usage, seconds, check)}


def _close(product: ProductStore, instance: dg.DagsterInstance, usage: Usage, key: str) -> dict[str, object]:
    """End a key; return the seconds until its decision by part, and what the processes used until the run's end."""
    reader = Reader(product.spec)
    replay.move_on(product, replay.end_of(product.spec, key, reader))
    land_late(product, key, reader)
    before, landed = usage.now(), time.time()
    while product.history.decision(key) is None:
        time.sleep(LOOK_S)
    decided = time.time()
    (record,) = instance.get_run_records(dg.RunsFilter(job_name=naming.job("advance", product.name)), limit=1)
    while not record.dagster_run.is_finished:
        time.sleep(LOOK_S)
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[record.dagster_run.run_id]), limit=1)
    # Of the run's last moments, such as its end in the databases.
    time.sleep(0.5)
    after, ended = usage.now(), time.time()
    if not record.dagster_run.is_success:
        raise SystemExit(f"the run of {key} failed")
    logs = instance.all_logs(record.dagster_run.run_id)
    steps = [log for log in logs if log.dagster_event and log.dagster_event.is_step_event and log.step_key]
    began = {log.step_key: log.timestamp for log in steps if log.dagster_event and log.dagster_event.is_step_start}
    lasted = {
        log.step_key: log.timestamp - began[log.step_key]
        for log in steps
        if log.dagster_event and log.dagster_event.is_step_success
    }
    asked = sum(seconds for step, seconds in lasted.items() if step and step.endswith("predictions"))
    created, started = record.create_timestamp.timestamp(), record.start_time or 0.0
    launched = min(
        (
            log.timestamp
            for log in logs
            if log.dagster_event and log.dagster_event.event_type_value == "PIPELINE_STARTING"
        ),
        default=started,
    )
    return {
        "key": key,
        "wall": decided - landed,
        "parts": {
            "looking": created - landed,
            "queue": launched - created,
            "start": min(began.values()) - launched,
            "answers": asked,
            "steps": decided - min(began.values()) - asked,
        },
        "steps": lasted,
        "used": after - before,
        "over": ended - landed,
    }


def idle(folder: Path, seconds: float) -> dict[str, object]:
    settings = Settings(root=f"{folder}/store", state=folder / "state")
    with Children(_environment(settings), folder / "logs") as children, servers.dagster(settings, children):
        time.sleep(SETTLED_S)
        return {"idle": _idle(Usage(children.started[0], Path(os.environ["P22_COUNTS"])), seconds, children.check)}


def bare(folder: Path, seconds: float) -> dict[str, object]:
    home, port = folder / "home", free_port(servers.UI_PORT)
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    (folder / "bare.py").write_text(BARE, encoding="utf-8")
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    with Children(environment, folder / "logs") as children:
        program = str(Path(sys.executable).with_name("dagster"))
        started = children.start("dagster", [program, "dev", "-f", str(folder / "bare.py"), "--port", str(port)])
        wait_for(f"http://127.0.0.1:{port}/server_info", check=started.check)
        time.sleep(SETTLED_S)
        return {"idle": _idle(Usage(started, Path(os.environ["P22_COUNTS"])), seconds, children.check)}


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **settings.child_environment(),
        **{name: os.environ[name] for name in ("LD_PRELOAD", "P22_COUNTS", "PYTHONPATH")},
    }


def _idle(usage: Usage, seconds: float, check: object) -> dict[str, float]:
    """Return what an idle platform uses per second."""
    assert callable(check)
    time.sleep(SETTLED_S)
    before, began_s = usage.now(), time.monotonic()
    time.sleep(seconds)
    check()
    after, lasted_s = usage.now(), time.monotonic() - began_s
    return {name: (after[name] - before[name]) / lasted_s for name in after}


if __name__ == "__main__":
    print(json.dumps({"keys": keys, "idle": idle, "bare": bare}[sys.argv[1]](Path(sys.argv[2]), float(sys.argv[3]))))
