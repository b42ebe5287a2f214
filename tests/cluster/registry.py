"""An image registry, and pushing to one."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.cluster.spaces import HOST, Service, Space, environment

PORT = 5000


@dataclass(frozen=True)
class Registry:
    """A registry from which the nodes of a cluster pull.

    Attributes:
        address: HOST:PORT, the same for pushing and for the nodes.
        is_plain: reached by HTTP, not HTTPS.
    """

    address: str
    is_plain: bool

    def push(self, name: str, write: Callable[[Path], None], folder: Path) -> str:
        """Push the docker-archive that `write` writes, and return the image's name by digest."""
        archive = folder / "archive.tar"
        write(archive)
        pushed = self._copy(f"docker-archive:{archive}", name)
        archive.unlink()
        return pushed

    def push_built(self, name: str, image: str) -> str:
        return self._copy(f"containers-storage:{image}", name, "--preserve-digests")

    def _copy(self, source: str, name: str, *flags: str) -> str:
        # --insecure-policy: nobody signs what tests push, and the machine may have no policy file.
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", *flags]
        with NamedTemporaryFile("r", encoding="ascii") as digest:
            argv += [f"--digestfile={digest.name}", f"--dest-tls-verify={json.dumps(not self.is_plain)}"]
            ended = subprocess.run(
                [*argv, source, f"docker://{self.address}/{name}:latest"],
                capture_output=True,
                text=True,
                check=False,
                env=environment() if self.is_plain else None,
            )
            if ended.returncode:
                raise RuntimeError(f"{name} could not be pushed to {self.address}: {ended.stderr}")
            return f"{self.address}/{name}@{Path(digest.name).read_text(encoding='ascii')}"


def start(space: Space, folder: Path, port: int = PORT, passwords: str = "") -> tuple[Registry, Service]:
    """Start a registry next to the control plane. Those with one folder have the same images.

    Args:
        passwords: of who may push and pull, in the form of htpasswd; without it nobody is asked.
    """
    address, name = f"{HOST}:{port}", f"registry-{port}"
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}}
    config: dict[str, object] = {"version": "0.1", "storage": storage, "http": {"addr": address}}
    if passwords:
        file = folder / f"{name}.htpasswd"
        file.write_text(passwords, encoding="ascii")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(file)}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config), encoding="ascii")
    service = space.start(name, "docker-registry", "serve", str(path), log=folder / f"{name}.log")
    return Registry(address, is_plain=True), service
