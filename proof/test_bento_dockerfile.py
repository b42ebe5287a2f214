"""The Dockerfile that a Bento carries builds with podman as it is, and its image answers Bento's own client.

Needs podman and, without a registry to take Python's image from, mmdebstrap: `deploy/images/base.sh` makes a base of
this machine's Debian and Python, and a virtual environment in it stands in for the image's pip. Only the name after
`FROM` is another one. The build downloads Debian packages and the Bento's Python packages: about 3 minutes.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.serving.run import build, child
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models
from tests.doubles.bento_client import CLIENT
from tests.doubles.images_lock import building, removing

pytestmark = pytest.mark.skipif(
    shutil.which("podman") is None or shutil.which("mmdebstrap") is None, reason="needs podman and mmdebstrap"
)
NAME, STATE, PATIENCE_S = f"driftline-bento-{os.getpid()}", "/tmp/state", 180.0
BASE = """
FROM {base}
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN python3 -m venv /opt/pip
ENV PATH=/opt/pip/bin:$PATH SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


def podman(*words: str) -> str:
    ended = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
    return ended.stdout.strip()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """Build what stands in for Python's image."""
    with building():
        result = subprocess.run([REPOSITORY / "deploy/images/base.sh"], capture_output=True, text=True, check=True)
    folder, name = tmp_path / "base", f"localhost/{NAME}-base"
    folder.mkdir()
    (folder / "Dockerfile").write_text(BASE.format(base=result.stdout.strip()), encoding="utf-8")
    authorities = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    shutil.copyfile(authorities or "/etc/ssl/certs/ca-certificates.crt", folder / "ca-certificates.crt")
    with building():
        podman("build", "--quiet", "--pull=never", f"--tag={name}", str(folder))
    yield name
    with removing():
        podman("rmi", "--force", name)


@pytest.fixture
def image(tmp_path: Path, base: str) -> Iterator[str]:
    """Build a Bento, and its image from the Dockerfile that it carries."""
    settings, store = (
        Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}),
        ArtifactStore(str(tmp_path / "store")),
    )
    built = build.build(settings, store, models.write_bundle(store, bias=1.0))
    dockerfile = built.path / "env/docker/Dockerfile"
    assert sum(line.startswith("FROM ") for line in dockerfile.read_text(encoding="utf-8").splitlines()) == 1
    name = f"localhost/{NAME}"
    words = (
        "--pull=never",
        "--network=host",
        f"--from={base}",
        f"--file={dockerfile}",
        f"--tag={name}",
        str(built.path),
    )
    with building():
        podman("build", "--quiet", *words)
    yield name
    podman("rm", "--force", "--ignore", "--time=5", NAME)
    with removing():
        podman("rmi", "--force", name)


def test_the_dockerfile_of_a_bento_builds_and_its_image_serves(image: str) -> None:
    port = child.free_port()
    podman(
        *("run", "--detach", "--network=host", "--pull=never", f"--name={NAME}"),
        f"--env=DRIFTLINE_STATE={STATE}",
        *(image, "serve", "--port", str(port)),
    )
    url, began = f"http://{child.HOST}:{port}", time.monotonic()
    server = child.Server(url, url, None, Path())  # type: ignore[arg-type]  # only sends requests
    while not _is_ready(server):
        assert time.monotonic() - began < PATIENCE_S, podman("logs", "--tail=40", NAME)
        time.sleep(0.5)
    bodies = [models.row(), [models.row("a"), models.row("b")], models.row(features={"wind": -1})]
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT, url, json.dumps(bodies)], capture_output=True, text=True, check=True
    )
    one, several, refused = json.loads(ran.stdout)
    assert one["probability"] == pytest.approx(models.expected(1.0), abs=1e-6)
    assert "features.wind: Expected `float` >= 0.0" in refused
    status, fast = server.predict(models.row())
    assert (status, fast["probability"]) == (200, one["probability"])
    log = Settings.from_environment({"DRIFTLINE_STATE": STATE}).prediction_log
    logged = podman("exec", NAME, "sh", "-c", f"cat {log}/*/*.jsonl")
    ids = [json.loads(line)["prediction_id"] for line in logged.splitlines()]
    assert ids == [answer["prediction_id"] for answer in (one, *several, fast)]
    assert podman("exec", NAME, "id", "-u") != "0"


def _is_ready(server: child.Server) -> bool:
    try:
        return server.get("/readyz")[0] == 200
    except OSError:
        return False
