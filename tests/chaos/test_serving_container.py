"""A service in a container whose process is killed answers again.

Real: podman, its container, the Bento, its process and the kills. The container mounts this machine's virtual
environment and Python over the trainer image's Debian, so no image of services is needed. Needs podman and
`DRIFTLINE_TRAINER_IMAGE`, like `test_container.py`. How long a restart takes depends on the machine's load: it is only
printed.
"""

import contextlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.serving.run import build, child
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models, pods

IMAGE = os.environ.get("DRIFTLINE_TRAINER_IMAGE", "")
pytestmark = pytest.mark.skipif(
    not IMAGE or shutil.which("podman") is None,
    reason="needs podman, and DRIFTLINE_TRAINER_IMAGE as `make images` prints it",
)
KILLS, PATIENCE_S = 5, 120.0
BODY = json.dumps(models.row())


@dataclass
class Container:
    """A service in a container.

    Attributes:
        name: name of the container.
        port: port on this machine, whose network it shares.
        digest: digest of the released model.
    """

    name: str
    port: int
    digest: str

    @property
    def parent(self) -> psutil.Process:
        return psutil.Process(int(podman("inspect", "--format={{.State.Pid}}", self.name)))

    def answers(self) -> bool:
        """Send one request on a new connection."""
        connection = http.client.HTTPConnection(child.HOST, self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                return response.status == 200 and json.loads(response.read())["digest"] == self.digest
        return False

    def stays_alive(self) -> None:
        """Check that Kubernetes would not restart it."""
        for _ in range(20):
            _, body = child.Server("", f"http://{child.HOST}:{self.port + 1}", None, Path()).probe("/healthz")  # type: ignore[arg-type]  # only sends requests
            assert json.loads(body) == {"is_alive": True}
            time.sleep(0.1)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            probes = f"http://{child.HOST}:{self.port + 1}"
            _, body = child.Server("", probes, None, Path()).probe("/readyz")  # type: ignore[arg-type]  # only sends requests
            state = json.loads(body)
            return bool(state["is_ready"] and state["source"] == "release")
        return False


def podman(*arguments: str) -> str:
    ended = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def seconds_until(condition: Callable[[], object]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, "the condition was not met in time"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Container]]:
    names: list[str] = []

    def serve() -> Container:
        settings = Settings.from_environment(
            {
                "DRIFTLINE_STATE": str(tmp_path),
                "DRIFTLINE_SERVING_POLL_S": "0.2",
            }
        )
        store = ArtifactStore(settings.root)
        built = build.build(settings, store, models.write_bundle(store, bias=0.0))
        digest = models.write_bundle(store, bias=1.0)
        models.release(settings.root, digest)
        name, port = f"driftline-serving-{os.getpid()}", child.free_port()
        environment = {**settings.to_environment(), "HOME": str(tmp_path)}
        names.append(name)
        podman(
            *("run", "--detach", "--restart=always", "--network=host", "--pull=never", f"--name={name}"),
            "--user=0:0",  # the image's own user may not read this machine's Python where that lies in a home folder
            *(f"--volume={path}:{path}:ro" for path in (REPOSITORY, sys.base_prefix)),
            f"--volume={tmp_path}:{tmp_path}",
            *(f"--env={key}={value}" for key, value in environment.items()),
            *(f"--workdir={built.path}/src", IMAGE, *pods.command(port)),
        )
        container = Container(name, port, digest)
        try:
            seconds_until(container.is_ready)
        except AssertionError:
            print(podman("logs", "--tail=40", name))
            raise
        return container

    yield serve
    for name in names:
        podman("rm", "--force", "--ignore", "--time=5", name)


def report(title: str, seconds: list[float]) -> None:
    values = ", ".join(f"{second:.2f}" for second in seconds)
    print(f"\n{title}: median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s ({values})")


def test_the_process_of_a_container_is_killed(serve: Callable[[], Container]) -> None:
    container = serve()
    seconds = []
    for _ in range(KILLS):
        before = container.parent
        before.kill()
        seconds_until(lambda before=before: not before.is_running())
        seconds.append(seconds_until(container.answers))
        seconds_until(container.is_ready)
        container.stays_alive()
    report("the container's process killed, an answer again", seconds)
    assert int(podman("inspect", "--format={{.RestartCount}}", container.name)) == KILLS
