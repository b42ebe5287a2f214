"""Fetch a Bento from the store by its digest: `python -m platform_assets.serving.run.fetch DIGEST FOLDER`.

A Bento in the store is a bundle whose blobs are the Bento's files. Each file is verified before it is written, and the
files appear in the folder after the last of them was. The init container of a service's pod runs this; then
`bentoml serve FOLDER` serves, or `podman build --file FOLDER/env/docker/Dockerfile FOLDER` makes an image of it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath

from platform_assets.base import naming
from platform_assets.base.configuration import ConfigurationProblem
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.store import objects
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore

FETCH_S = 300.0
KIND = "bento"
EXECUTABLE = "executable"
"""Member of the manifest: the files that may be executed."""


WAIT_S = 300.0
"""How long a store that is away is waited for: then the process ends, and whoever started it sees that. The kubelet
starts a container that ends again after 10 s, then 20 s, and up to 5 minutes after the store is back."""
PAUSE_S = 2.0
PATIENCE, REACH_S = timedelta(seconds=10), 30.0
"""For how long the client repeats a request before the wait is reported, and until a request that hangs is given up."""


class StoreAway(Problem):
    """The store cannot be read, for a reason that may pass."""


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
    bento = store.bundle(digest)
    if bento.manifest.get("kind") != KIND:
        raise FetchProblem(
            f"{digest} is not a Bento but a bundle of kind {bento.manifest.get('kind')!r}; expected the digest that "
            "`driftline manifests` prints."
        )
    for name in bento.names:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or str(relative) != name:
            raise FetchProblem(f"Bento {digest} names a file {name!r}; expected a path within the Bento's folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.iterdir():
        shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
    # Within the folder, because a rename does not leave a file system, and the folder is a volume.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        for name in bento.names:
            path = Path(temporary, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bento.read(name))
            path.chmod(0o755 if name in bento.manifest[EXECUTABLE] else 0o644)
        for path in sorted(Path(temporary).iterdir()):
            path.rename(folder / path.name)
    return len(bento.names)


def _wait_for_store(root: str, digest: str) -> None:
    """Wait for a store that is away, and say so once: ask for a Bento's manifest, which need not exist.

    Raises:
        StoreAway: the store cannot be read for now.
        FetchProblem: it cannot be read at all.
    """
    import obstore

    def read() -> None:
        objects.read(objects.open_store(root, PATIENCE), naming.blob_path(digest))

    until_s, is_first = time.monotonic() + WAIT_S, True
    while True:
        try:
            return Deadline(REACH_S).run("the first request", read)
        except Overdue as problem:
            reason = str(problem)
        except (obstore.exceptions.BaseError, OSError) as problem:
            reason = f"{objects.reason(root, problem)}."
            if not objects.may_pass(root, problem):  # a wrong name, key or address
                raise FetchProblem(f"Bento {digest} cannot be read: {reason}") from problem
        away = f"Bento {digest} cannot be fetched: the store at {root} cannot be read: {reason}"
        if time.monotonic() + PAUSE_S > until_s:
            raise StoreAway(away)
        if is_first:
            print(f"fetch: {away} Waiting for the store, {WAIT_S:g} s at most.", file=sys.stderr, flush=True)
        is_first = False
        time.sleep(PAUSE_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch one Bento; return the exit code."""
    parser = argparse.ArgumentParser(prog="fetch", description="Fetch a Bento from the store by its digest.")
    parser.add_argument("digest", metavar="DIGEST", help="of the Bento, as `driftline manifests` prints it")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where its files go; replaced")
    options = parser.parse_args(arguments)
    place = ""
    try:
        settings = Settings.from_environment()
        if settings.environment == "cluster":  # a pod has both from objects that an operator writes
            address = dict(settings.store_environment).get("AWS_ENDPOINT_URL")
            place = (
                f" The store is {settings.root}{f' at {address}' if address else ''}, as the config map `driftline` "
                "says (DRIFTLINE_ROOT, AWS_ENDPOINT_URL), its keys in the secret `driftline-store`."
            )
        if not objects.is_there(settings.root):
            raise FetchProblem(f"no store exists at {settings.root}; check DRIFTLINE_ROOT.")
        _wait_for_store(settings.root, options.digest)
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
