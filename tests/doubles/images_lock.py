"""Keep podman's images apart that tests build and remove in several processes.

A build asks about the layers of all images, and fails with "layer not known" if one of them goes meanwhile.
"""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "driftline-tests-images.lock"


@contextmanager
def building() -> Iterator[None]:
    """Build images in this context, next to other builds."""
    yield from _locked(fcntl.LOCK_SH)


@contextmanager
def removing() -> Iterator[None]:
    """Remove images in this context, while nobody builds any."""
    yield from _locked(fcntl.LOCK_EX)


def _locked(kind: int) -> Iterator[None]:
    with LOCK.open("a", encoding="ascii") as file:
        fcntl.flock(file, kind)
        yield
