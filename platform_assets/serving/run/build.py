"""Build the Bento of a contract, once, and put it into the store.

A Bento is memoised by its version, a digest of the serving code, the packages it runs with and the contract: a new
model with the same contract needs no new Bento. The build runs in a subprocess, because a second `bentoml.build()` in
one process packages the first one's files. In the store a Bento is a bundle of its files, which `fetch` lays down
elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platform_assets.base.problems import Problem
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.engine.digests import modules
from platform_assets.serving.run import fetch
from platform_assets.store import durable
from platform_assets.store.artifacts import ArtifactStore, Bundle

SERVER = "platform_assets.serving.run.pod"
SERVICE = "platform_assets.serving.run.bento:PredictionService"
PACKAGES = (
    *("bentoml", "cryptography", "httptools", "msgspec", "numpy", "obstore", "onnxruntime", "pillow"),
    *("prometheus-client", "psutil", "uvloop"),
)
_NO_CONTENT = ("bento.yaml", "README.md")
_BUILT_AT = re.compile(rb"^creation_time: .*$", re.MULTILINE)
_ALWAYS = b"creation_time: '1970-01-01T00:00:00+00:00'"
"""In place of the build's time in a stored Bento, so that two builds of the same content have the same digest."""


class BuildProblem(Problem):
    """A Bento could not be built, or is not the expected one."""


@dataclass(frozen=True)
class Built:
    """A Bento in the local Bento store.

    Attributes:
        tag: `product:version`, for `bentoml serve`.
        path: its folder.
        content_digest: over its files, except those that contain the build time.
        was_built: False if an earlier build was reused.
    """

    tag: str
    path: Path
    content_digest: str
    was_built: bool


def build(settings: Settings, store: ArtifactStore, digest: str) -> Built:
    """Return the Bento for a bundle's contract; unless it exists, build it with this bundle as its fallback.

    Costs about 5 CPU seconds when it builds and milliseconds when it does not.

    Args:
        settings: state where Bentos are.
        store: the store with the bundle.
        digest: of the bundle.

    Raises:
        BuildProblem: `bentoml build` failed, or the Bento does not contain this contract.
    """
    bundle = store.bundle(digest)
    product, contract = bundle.manifest["product"], bundle.manifest["contract_sha256"]
    version = version_of(contract)
    tag, path = f"{product}:{version}", settings.bentoml_home / "bentos" / product / version
    record = settings.bentoml_home / "driftline" / f"{product}-{version}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with durable.locked(record.parent):  # two runs do not build one Bento at the same time
        if record.exists() and path.exists():
            content = json.loads(record.read_bytes())["content_digest"]
            if content_digest(path) == content:
                return Built(tag, path, content, was_built=False)
        record.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        # Not below the state folder: `bentoml build` rejects paths with a hidden folder, such as `.driftline`.
        with tempfile.TemporaryDirectory(prefix="driftline-bento-") as context:
            write_context(Path(context), bundle)
            _run(settings, Path(context), ["build", ".", "--name", product, "--version", version, "--output", "tag"])
        info = json.loads(_run(settings, path, ["get", tag, "--output", "json"]))
        packed = json.loads((path / "src" / "fallback" / "fallback.json").read_bytes())["digest"]
        # Bento says nothing when it packs other files, as the second build of a process packs those of the first.
        if info["service"] != SERVICE or info["models"] or packed != bundle.digest:
            raise BuildProblem(
                f"{tag} contains service {info['service']!r}, models {info['models']} and bundle {packed}; "
                f"expected {SERVICE!r}, none and {bundle.digest}. Remove {path} and build again."
            )
        fallback = ArtifactStore(str(path / "src" / "fallback")).bundle(bundle.digest)
        for name in fallback.names:
            fallback.read(name)
        content = content_digest(path)
        record.write_text(json.dumps({"tag": tag, "content_digest": content}), encoding="utf-8")
    return Built(tag, path, content, was_built=True)


def stored(store: ArtifactStore, built: Built) -> str:
    """Put a Bento's files into the store; return the digest of their manifest, by which `fetch` finds them.

    Raises:
        ArtifactProblem: a file cannot be written to the store.
        BuildProblem: `bento.yaml` is not as expected.
    """
    files = {name: path.read_bytes() for name, path in _files(built.path) if name != "README.md"}
    files["bento.yaml"], count = _BUILT_AT.subn(_ALWAYS, files["bento.yaml"])
    if count != 1:
        raise BuildProblem(f"{built.path}/bento.yaml states {count} creation times; expected one.")
    runnable = [name for name in files if os.access(built.path / name, os.X_OK)]  # a blob has no mode
    return store.write_bundle(files, {"kind": fetch.KIND, "tag": built.tag, fetch.EXECUTABLE: runnable})


def version_of(contract: str) -> str:
    """Return the version of a contract's Bento as this checkout and its installed packages would build it."""
    total = hashlib.sha256(f"{contract} {_pinned()}".encode())
    for name in (*sources(), "platform_assets/serving/run/build.py"):
        total.update(f"{name} {hashlib.sha256((REPOSITORY / name).read_bytes()).hexdigest()}".encode())
    return total.hexdigest()[:20]


def sources() -> list[str]:
    """Return the files that run in a service: the imports of its server."""
    paths = (modules.path_of(name) for name in modules.closure(SERVER))
    return [str(path.relative_to(REPOSITORY)) for path in paths if path is not None]


def write_context(folder: Path, bundle: Bundle) -> None:
    """Write the build context: the serving modules, the contract, and the bundle as a fallback.

    Raises:
        ArtifactProblem: a blob of the bundle is missing or changed.
    """
    for name in sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    fallback = ArtifactStore(str(folder / "fallback"))
    for name in bundle.names:
        fallback.put(bundle.read(name))
    assert fallback.put_json(bundle.manifest) == bundle.digest, bundle.digest
    (folder / "fallback" / "contract.json").write_bytes(bundle.read("contract.json"))
    (folder / "fallback" / "fallback.json").write_text(json.dumps({"digest": bundle.digest}), encoding="utf-8")
    bentofile = {
        "service": SERVICE,
        "include": ["platform_assets/**", "fallback/**"],
        "labels": {"product": bundle.manifest["product"], "contract": bundle.manifest["contract_sha256"][:40]},
        "python": {"packages": _pinned(), "lock_packages": False},
    }
    (folder / "bentofile.yaml").write_text(json.dumps(bentofile), encoding="utf-8")  # JSON is YAML


def content_digest(path: Path) -> str:
    """Return the sha256 over a Bento's files: equal for two builds of the same content.

    The two files that contain the build time are left out, and so is what Python compiles in a service.
    """
    total = hashlib.sha256()
    for name, file in _files(path):
        if name not in _NO_CONTENT:
            total.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of a Bento's files, in order, without what Python compiled in a service."""
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and "__pycache__" not in name.parts:
            yield name.as_posix(), file


def _pinned() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]


def _run(settings: Settings, folder: Path, arguments: list[str]) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        cwd=folder,
        env=settings.replace(serving_callers=None).child_environment(),  # a build imports the service and asks nobody
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()[-8:]
        raise BuildProblem(
            f"bentoml {' '.join(arguments)} failed with status {result.returncode}:\n" + "\n".join(lines)
        )
    return result.stdout
