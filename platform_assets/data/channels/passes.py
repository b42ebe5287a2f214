"""Read a file once, when its size or time has changed, for all sources and processes.

What a pass found is kept in a local folder. It may be lost at any moment: that costs a pass. A tick does not wait for
a long one, which goes on in the thread that asked for it (`automation.sensors.source_calls`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from platform_assets.base import clock
from platform_assets.data.channels import parts
from platform_assets.data.channels.parts import Index, Recipe
from platform_assets.store import durable

FORMAT = 1
"""Raised with every change of what a pass finds."""
RACY_S = 2.0
"""A file that was written this shortly before a pass may have been written again without another time."""
LONG_S, AGE = 1.0, 4
"""A file that is written all the time, and takes a pass so long, is looked at as it was up to so many passes ago."""
_KNOWN: dict[str, Index] = {}


def index(recipe: Recipe, scratch: Path | None) -> Index:
    """Return which rows belong to which key: what is known, or what a pass finds.

    Args:
        scratch: a folder for files that may be lost; None keeps it in this process.

    Raises:
        FileNotFoundError: there is no file.
    """
    name = _name(recipe)
    if scratch is None:
        _KNOWN[name] = _known(recipe, None) or parts.index(recipe)
        return _KNOWN[name]
    kept = scratch / "one_file" / name
    if (known := _known(recipe, kept)) is not None:
        return known
    with _locked(kept):
        # Another thread or process may have read the file meanwhile.
        if (known := _known(recipe, kept)) is not None:
            return known
        _KNOWN[name] = parts.index(recipe)
        durable.replace(kept, msgspec.msgpack.encode(_KNOWN[name]))
        return _KNOWN[name]


def forget(recipe: Recipe, scratch: Path | None) -> None:
    """Forget what a pass found, because the file has other rows."""
    _KNOWN.pop(_name(recipe), None)
    if scratch is not None:
        (scratch / "one_file" / _name(recipe)).unlink(missing_ok=True)


def _name(recipe: Recipe) -> str:
    described = (recipe.path, recipe.by, recipe.time_format, recipe.multiline, repr(recipe.grain), FORMAT)
    return hashlib.sha256(repr(described).encode()).hexdigest()[:24]


def _known(recipe: Recipe, kept: Path | None) -> Index | None:
    """Return what an earlier pass found, if the file is the same, or the pass was long and has just ended."""
    try:
        stat = Path(recipe.path).stat()
    except OSError:
        raise FileNotFoundError(f"there is no file {recipe.path}.") from None
    for found in (_KNOWN.get(_name(recipe)), _stored(kept)):
        if found is None:
            continue
        is_same = found.file == parts.file_mark(stat) and found.at_s - found.modified_s > RACY_S
        is_recent = found.took_s > LONG_S and clock.wall().timestamp() - found.at_s < AGE * found.took_s
        if is_same or (is_recent and not found.problem):
            _KNOWN[_name(recipe)] = found
            return found
    return None


def _stored(kept: Path | None) -> Index | None:
    try:
        return None if kept is None else msgspec.msgpack.decode(kept.read_bytes(), type=Index)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


@contextmanager
def _locked(kept: Path) -> Iterator[None]:
    """Wait for the lock of a file's pass, which ends with its process."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{kept}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
