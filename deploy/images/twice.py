"""Build images twice without any cache, and print whether they are the same; where not, which files differ.

Usage: python deploy/images/twice.py [platform] [service] [trainer], or `make images-twice`. Ends with 1 if any differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

BUILD = Path(__file__).with_name("build.sh")
IMAGES = ("platform", "service", "trainer")


def built(image: str, name: str) -> str:
    """Build an image without cache under a name; return its digest."""
    variables = {**os.environ, "NAME": name, "NO_CACHE": "1"}
    output = subprocess.run([str(BUILD), image], env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
    return output.strip().rpartition("@")[2]


def layers(name: str, folder: Path) -> list[Path]:
    """Unpack an image's archive; return the files of its layers."""
    archive = folder / "image.tar"
    argv = ["podman", "image", "save", "--quiet", "--format=oci-archive", f"--output={archive}", name]
    subprocess.run(argv, check=True)
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    index = json.loads((folder / "index.json").read_bytes())
    blobs = folder / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].split(":")[1]).read_bytes())
    return [blobs / layer["digest"].split(":")[1] for layer in manifest["layers"]]


def members(layer: Path) -> dict[str, str]:
    """Return what a layer says of each file: kind, mode, owner, time, and the sha256 of its content."""
    result = {}
    with tarfile.open(layer) as content:
        for item in content:
            data = content.extractfile(item) if item.isfile() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else item.linkname
            result[item.name] = f"{item.type!r} {item.mode:o} {item.uid}:{item.gid} {item.mtime} {digest}"
    return result


def differences(first: str, second: str) -> Iterator[str]:
    """Yield the files that differ between two images, layer by layer."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        pairs = zip(layers(first, Path(one)), layers(second, Path(other)), strict=True)
        for number, (mine, theirs) in enumerate(pairs):
            if mine.name == theirs.name:
                continue
            before, after = members(mine), members(theirs)
            for name in sorted({*before, *after}):
                if before.get(name) != after.get(name):
                    yield f"  layer {number}: {name}: {before.get(name)} and {after.get(name)}"


def main(images: list[str]) -> int:
    """Compare each image; return the exit code."""
    is_same = True
    for image in images or IMAGES:
        names = [f"localhost/driftline-twice-{number}" for number in (1, 2)]
        digests = [built(image, name) for name in names]
        print(f"{image}: {digests[0]} and {digests[1]}", flush=True)
        if digests[0] != digests[1]:
            is_same = False
            print(*differences(*(f"{name}-{image}:latest" for name in names)), sep="\n", flush=True)
    return not is_same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
