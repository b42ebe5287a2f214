"""Fetch a Bento from the store by its digest: `python -m platform_assets.serving.run.fetch DIGEST FOLDER`.

A Bento in the store is a bundle whose blobs are the Bento's files. Each file is verified before it is written, and the
files appear in the folder after the last of them was. The init container of a service's pod runs this; then
`bentoml serve FOLDER` serves, or `podman build --file FOLDER/env/docker/Dockerfile FOLDER` makes an image of it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from platform_assets.base.configuration import ConfigurationProblem
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.serving.follow import store_wait
from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.serving.follow.store_wait import StoreAway
from platform_assets.serving.run.listening import PortProblem, bound
from platform_assets.store import objects
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, Bundle

FETCH_S = 300.0
KIND = "bento"
EXECUTABLE = "executable"
"""Member of the manifest: the files that may be executed."""


class FetchProblem(Problem):
    """A digest that is not that of a Bento, a folder that cannot be filled, or a store that is not there."""


def fetch(store: ArtifactStore, digest: str, folder: Path) -> int:
    """Lay a Bento's files into a folder; return their number.

    A container that is killed meanwhile is started again, so whatever the folder holds is replaced.

    Args:
        store: with the Bento.
        digest: of the Bento's manifest.
        folder: created if missing; emptied otherwise.

    Raises:
        ArtifactProblem: a file is missing in the store, or its bytes do not match their digest.
        FetchProblem: the digest names something else, or a file's path leads out of the folder.
    """
    bento = _opened(store, digest)
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.iterdir():
        shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        for name in bento.names:
            path = Path(temporary, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bento.read(name))
            path.chmod(0o755 if name in bento.manifest[EXECUTABLE] else 0o644)
        for path in sorted(Path(temporary).iterdir()):
            path.rename(folder / path.name)
    return len(bento.names)


def _opened(store: ArtifactStore, digest: str) -> Bundle:
    """Return the manifest of a Bento whose files all lie within one folder."""
    bento = store.bundle(digest)
    if bento.manifest.get("kind") != KIND:
        raise FetchProblem(
            f"{digest} is not a Bento but a bundle of kind {bento.manifest.get('kind')!r}; expected the digest that "
            "`driftline manifests` prints."
        )
    for name in bento.names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name:
            raise FetchProblem(f"Bento {digest} names a file {name!r}; expected a path within the Bento's folder.")
    return bento


def _reach(root: str, digest: str) -> None:
    import obstore

    try:
        store_wait.reach(root, digest)
    except StoreAway as problem:
        raise StoreAway(f"Bento {digest} cannot be fetched: {problem}") from problem
    except (obstore.exceptions.BaseError, OSError) as problem:
        raise FetchProblem(f"Bento {digest} cannot be read: {objects.reason(root, problem)}.") from problem


def _wait_for_store(settings: Settings, digest: str, wait_s: float) -> None:
    with contextlib.ExitStack() as opened:
        probes = None
        if settings.serving_probes_port is not None:
            with contextlib.suppress(PortProblem):  # then only the log says so
                probes = opened.enter_context(bound("0.0.0.0", settings.serving_probes_port))  # a pod's
        store_wait.wait(
            lambda: _reach(settings.root, digest),
            lambda sentence: print(f"fetch: {sentence}", file=sys.stderr, flush=True),
            probes,
            wait_s,
        )


def _place(settings: Settings) -> str:
    """Return where a pod's store and its keys are set; empty elsewhere."""
    if settings.environment != "cluster":
        return ""
    address = dict(settings.store_environment).get("AWS_ENDPOINT_URL")
    keys = "its keys in" if settings.store_secrets else "and no key of it is set: without a role, add the keys to"
    return (
        f" The store is {settings.root}{f' at {address}' if address else ''}, as the config map `driftline` says "
        f"(DRIFTLINE_ROOT, AWS_ENDPOINT_URL), {keys} the secret `driftline-store`."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch one Bento; return the exit code."""
    parser = argparse.ArgumentParser(prog="fetch", description="Fetch a Bento from the store by its digest.")
    parser.add_argument("digest", metavar="DIGEST", help="of the Bento, as `driftline manifests` prints it")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where its files go; replaced")
    parser.add_argument(
        "--wait-s",
        type=float,
        default=store_wait.WAIT_S,
        help=f"seconds to wait for a store that is away (default: {store_wait.WAIT_S:g})",
    )
    options = parser.parse_args(arguments)
    place = ""
    try:
        settings = Settings.from_environment()
        place = _place(settings)
        if not objects.is_there(settings.root):
            raise FetchProblem(f"no store exists at {settings.root}; check DRIFTLINE_ROOT.")
        _wait_for_store(settings, options.digest, options.wait_s)
        store = ArtifactStore(settings.root)
        count = Deadline(FETCH_S).run("the fetch", lambda: fetch(store, options.digest, options.folder))
    except (ArtifactProblem, ConfigurationProblem, FetchProblem, OSError, Overdue, StoreAway) as problem:
        print(f"fetch: {problem}{place}", file=sys.stderr)
        return 1
    print(f"Bento {options.digest}: {count} files in {options.folder}, each verified.")
    return 0


if __name__ == "__main__":
    # The first process of a container gets no signal without a handler: its pod would end only after its grace.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(main())
