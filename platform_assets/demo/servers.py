"""Start Dagster and the service on a leash: for a demo, and for `driftline dev`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from platform_assets.base.problems import Problem
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.demo.processes import HOST, Child, Children, free_port, sole_user, wait_for, wait_until
from platform_assets.instance import home
from platform_assets.operations.exporter import code_locations
from platform_assets.serving.run import child as serving

UI_PORT, SERVICE_PORT = 3000, 3001
SENSOR = "dagster/sensor_name"
# Not QUEUED: the next daemon launches such a run.
CUT_OFF = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class DagsterProblem(Problem, RuntimeError):
    """The definitions do not load; the message is Dagster's."""


def dev(settings: Settings) -> int:
    """Open Dagster's UI on a state until it ends, Ctrl-C or SIGTERM; return the exit status: 130 after Ctrl-C.

    On its leash it also ends on SIGTERM when a script started it in the background: such a process ignores SIGINT, and
    Dagster would handle SIGTERM as it handles SIGINT.

    Raises:
        StateInUse: a demo or another UI uses the state.
    """
    environment = settings.replace(broken_products="show").child_environment()
    with (
        contextlib.suppress(KeyboardInterrupt),
        sole_user(settings, "driftline dev") as lock,
        Children(environment, settings.state / "logs", keeps=(lock,)) as children,
    ):
        return _dagster_dev(settings, children, is_shown=True).leash.wait()
    return 130


@contextlib.contextmanager
def dagster(settings: Settings, children: Children) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """Start Dagster on a state's own home; give the UI's address and the storage that it shows, once it has loaded.

    Runs that an earlier demo left under way have lost their processes: they are cancelled, so that their sensors try
    again.
    """
    address = f"http://{HOST}:{(port := free_port(UI_PORT))}"
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        # After SIGKILL of daemon and run a local run stays STARTED: run monitoring ends it on Kubernetes only.
        for run in instance.get_runs(dg.RunsFilter(statuses=CUT_OFF)):
            if SENSOR in run.tags:
                instance.report_run_canceled(run)
        started = _dagster_dev(settings, children, "--host", HOST, "--port", str(port))
        # The webserver answers before its code location has loaded.
        wait_for(f"{address}/server_info", check=started.check)
        wait_for_definitions(address, check=started.check)
        yield address, instance


def _dagster_dev(settings: Settings, children: Children, *options: str, is_shown: bool = False) -> Child:
    home.prepare(settings)
    # `dg dev` starts this same command below a process of its own.
    program = str(Path(sys.executable).with_name("dagster"))
    command = [program, "dev", "--workspace", str(REPOSITORY / "workspace.yaml"), *options]
    return children.start("dagster", command, is_shown=is_shown)


def wait_for_definitions(address: str, *, check: Callable[[], None]) -> None:
    """Wait until a webserver has loaded its definitions.

    Raises:
        DagsterProblem: they do not load.
    """

    def are_loaded() -> bool | None:
        try:
            problems = code_locations.problems(address)
        except ValueError:  # a busy webserver answers late
            return None
        for problem in problems.values():
            if problem not in (None, code_locations.LOADING):
                raise DagsterProblem(f"the definitions do not load: {problem}")
        return (bool(problems) and not any(problems.values())) or None

    wait_until(are_loaded, f"the definitions at {address}", check, pause_s=0.5)


def service(children: Children, tag: str) -> str:
    """Start serving a Bento on the live release and return its address once it is ready."""
    port = free_port(SERVICE_PORT, count=2)  # the next one is that of its probes
    address = f"http://{HOST}:{port}"
    started = children.start("service", serving.command(tag, port))
    wait_for(f"{address}/readyz", check=started.check)
    return address
