"""Start what a demo and `driftline dev` need: `dagster dev`, and the service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.demo import show
from platform_assets.demo.processes import HOST, Child, Children, wait_for
from platform_assets.demo.runs import Dagster
from platform_assets.instance import home
from platform_assets.serving.run import child as serving

UI_PORT, SERVICE_PORT = 3000, 3001
START_S = 600.0


def dagster_dev(settings: Settings, children: Children, *options: str, is_shown: bool = False) -> Child:
    """Start Dagster's code server, webserver and daemon on the state's own home.

    Args:
        options: further ones of `dagster dev`.
        is_shown: see `Children.start`.
    """
    home.prepare(settings)
    program = str(Path(sys.executable).with_name("dagster"))
    command = [program, "dev", "--workspace", str(REPOSITORY / "workspace.yaml"), *options]
    return children.start("dagster", command, is_shown=is_shown)


@contextmanager
def dagster(settings: Settings, children: Children) -> Iterator[Dagster]:
    """Start Dagster, print the UI's address as soon as it answers, and give a client."""
    started_s = perf_counter()
    port = children.free_port(UI_PORT, taken=[SERVICE_PORT, SERVICE_PORT + 1])
    client = Dagster(f"http://{HOST}:{port}", settings.dagster_home)
    try:
        started = dagster_dev(settings, children, "--host", HOST, "--port", str(port))
        wait_for(f"{client.address}/server_info", check=started.check, timeout_s=START_S)
        show.done(f"Dagster's UI is at {client.address}", started_s)
        client.wait_for_location(children.check, START_S)
        yield client
    finally:
        client.close()


def service(children: Children, tag: str) -> str:
    """Start serving a Bento on the live release and return its address once it is ready."""
    port = children.free_port(SERVICE_PORT, count=2)  # the next one is that of its probes
    address = f"http://{HOST}:{port}"
    started = children.start("service", serving.command(tag, port))
    wait_for(f"{address}/readyz", check=started.check, timeout_s=START_S)
    return address
