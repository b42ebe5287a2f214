"""Start what a demo needs: Dagster's code server, webserver and daemon, and the service."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from rich.console import Console

from platform_assets.demo import show
from platform_assets.demo.processes import HOST, Children, wait_for, wait_for_port
from platform_assets.demo.runs import Dagster
from platform_assets.serving import run as serving
from platform_assets.settings import REPOSITORY, Settings

UI_PORT, SERVICE_PORT, CODE_PORT = 3000, 3001, 4000
START_S = 180.0


@contextmanager
def dagster(settings: Settings, console: Console, children: Children) -> Iterator[Dagster]:
    """Start Dagster, print the UI's address as soon as it answers, and give a client.

    One code server loads the definitions for webserver and daemon, as `dagster dev` does. Without it each would load
    them itself, the daemon again every minute.
    """
    started_s = perf_counter()
    port = children.free_port(UI_PORT, taken=[SERVICE_PORT, SERVICE_PORT + 1])
    code_port = children.free_port(CODE_PORT)
    module, location = _location()
    workspace = settings.dagster_home / "workspace.yaml"
    client = Dagster(f"http://{HOST}:{port}", settings.dagster_home)
    daemon_command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "--workspace", str(workspace)]
    webserver_command = ["-m", "dagster_webserver", "--host", HOST, "--port", str(port), "--workspace", str(workspace)]
    try:
        with show.waiting(console, "starting Dagster"):
            code_server(children, workspace, module, location, code_port)
            webserver = children.start("webserver", webserver_command)
            wait_for(f"{client.address}/server_info", check=webserver.check, timeout_s=START_S)
        show.done(console, f"Dagster's UI is at [bold]{client.address}[/]", started_s)
        children.start("daemon", daemon_command)
        client.wait_for_location(children.check, START_S)
        yield client
    finally:
        client.close()


def code_server(children: Children, workspace: Path, module: str, location: str, port: int) -> None:
    """Start a code server of a module's definitions, and write the workspace that has webserver and daemon use it."""
    server = {"host": HOST, "port": port, "location_name": location}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}), encoding="utf-8")  # JSON is YAML too
    command = ["-m", "dagster", "api", "grpc", "--module-name", module, "--host", HOST, "--port", str(port)]
    code = children.start("code", [*command, "--location-name", location])
    wait_for_port(port, check=code.check, timeout_s=START_S)


def service(console: Console, children: Children, tag: str) -> str:
    """Start serving a Bento on the live release and return its address once it is ready."""
    port = children.free_port(SERVICE_PORT, count=2)  # the next one is that of its probes
    address = f"http://{HOST}:{port}"
    with show.waiting(console, "starting the service"):
        started = children.start("service", serving.command(tag, port))
        wait_for(f"{address}/readyz", check=started.check, timeout_s=START_S)
    return address


def _location() -> tuple[str, str]:
    """Return module and name of the code location that the checkout declares."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dagster"]
    return declared["module_name"], declared["code_location_name"]
