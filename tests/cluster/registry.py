"""An image registry, and pushing to one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.spaces import HOST, Service, Space, environment

PORT = 5000


@dataclass(frozen=True)
class Registry:
    """A registry from which the nodes of a cluster pull.

    Attributes:
        address: HOST:PORT, the same for whoever pushes and for the nodes.
        is_plain: reached by HTTP, not HTTPS.
    """

    address: str
    is_plain: bool

    def push(self, name: str, write: Callable[[Path], None], folder: Path) -> str:
        """Push the docker-archive that `write` writes, and return the image's name by digest."""
        archive, digest = folder / "archive.tar", folder / "digest"
        write(archive)
        # --insecure-policy: nobody signs what tests push, and the machine may have no policy file.
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", f"--digestfile={digest}"]
        argv += [f"--dest-tls-verify={json.dumps(not self.is_plain)}"]
        ended = subprocess.run(
            [*argv, f"docker-archive:{archive}", f"docker://{self.address}/{name}:latest"],
            capture_output=True,
            text=True,
            check=False,
            env=environment() if self.is_plain else None,
        )
        archive.unlink()
        if ended.returncode:
            raise RuntimeError(f"{name} could not be pushed to {self.address}: {ended.stderr}")
        return f"{self.address}/{name}@{digest.read_text(encoding='ascii')}"


def start(space: Space, folder: Path) -> tuple[Registry, Service]:
    """Start a registry next to the control plane."""
    address = f"{HOST}:{PORT}"
    config = folder / "registry.json"
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": address}}), encoding="ascii")
    service = space.start("docker-registry", "docker-registry", "serve", str(config), log=folder / "registry.log")
    return Registry(address, is_plain=True), service
