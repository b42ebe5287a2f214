"""Container images made of files of this machine, without a container engine."""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER = "65532:65532"
"""A number, not root: Pod Security "restricted" refuses an image whose user it cannot tell from root."""
SHELL = ("bash", "cat", "date", "dd", "head", "hostname", "openssl", "sh", "sleep", "tail", "timeout", "touch")
EPOCH_S = 0
EMPTY: Mapping[str, Path] = {}


def write_archive(path: Path, entrypoint: Sequence[str], files: Mapping[str, Path]) -> None:
    """Write a docker-archive of one layer: files by their path in the image, and a /tmp for everybody.

    Times and owners are constant: the same files have the same digest.
    """
    layer = _layer(files)
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"User": USER, "Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests/cluster/images.py"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, f"{digest}.tar", layer)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def write_pause(path: Path) -> None:
    """Write the image that holds a pod's namespaces: catatonit, which is linked statically."""
    write_archive(path, ["/catatonit", "-P"], {"catatonit": program("catatonit")})


def write_shell(path: Path, more: Mapping[str, Path] = EMPTY) -> None:
    """Write an image with a shell and a few commands, and the libraries that they load on this machine.

    Args:
        more: scripts by their names in the search path.
    """
    programs = {name: program(name) for name in SHELL}
    files = {f"bin/{name}": file for name, file in {**programs, **more}.items()}
    write_archive(path, ["/bin/sh", "-c"], files | libraries(*programs.values()))


def libraries(*programs: Path) -> dict[str, Path]:
    """Return the libraries that programs load on this machine, by their paths in an image."""
    paths = [re.findall(r"(/\S+) \(0x", _run("ldd", str(file))) for file in programs]
    return {name.lstrip("/"): Path(name) for names in paths for name in names}


def program(name: str) -> Path:
    """Return where a program of this machine lies."""
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed"
    return Path(path).resolve()


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o1777, EPOCH_S
        layer.addfile(folder)
        for name, path in sorted(files.items()):
            _add(layer, name, path.read_bytes())
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), 0o755, EPOCH_S
    archive.addfile(info, io.BytesIO(content))


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
