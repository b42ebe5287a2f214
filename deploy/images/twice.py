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
TAGS = ("first", "second")
NAME = "localhost/driftline-twice"
"""Of both builds, because an image's history names the one that it was labelled from."""


def built(image: str, tag: str) -> str:
    """Build an image without cache, and tag it; return its digest."""
    variables = {**os.environ, "NAME": NAME, "NO_CACHE": "1"}
    output = subprocess.run([str(BUILD), image], env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
    subprocess.run(["podman", "tag", f"{NAME}-{image}:latest", f"{NAME}-{image}:{tag}"], check=True)
    return output.strip().rpartition("@")[2]


def described(name: str) -> dict[str, str]:
    """Return what an image says of itself, by part."""
    argv = ["podman", "image", "inspect", name]
    (image,) = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {part: json.dumps(image.get(part), sort_keys=True) for part in ("Annotations", "Config", "History")}


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
    """Yield the parts of the descriptions and then the files that differ between two images, layer by layer."""
    before, after = described(first), described(second)
    yield from (f"  {part}: {before[part]} and {after[part]}" for part in before if before[part] != after[part])
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
    if unknown := [image for image in images if image not in IMAGES]:
        print(f"IMAGES names {', '.join(unknown)}; expected some of {', '.join(IMAGES)}", file=sys.stderr)
        return 1
    is_same = True
    for image in images or IMAGES:
        digests = [built(image, tag) for tag in TAGS]
        print(f"{image}: {digests[0]} and {digests[1]}", flush=True)
        if digests[0] != digests[1]:
            is_same = False
            print(*differences(*(f"{NAME}-{image}:{tag}" for tag in TAGS)), sep="\n", flush=True)
    return not is_same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
