"""Read a file once, when its size or time has changed, for all sources and processes; a long pass leaves the tick.

What a pass found is kept in a local folder. It may be lost at any moment: that costs a pass.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import msgspec

from platform_assets.base import clock, keys
from platform_assets.data.channels import parts
from platform_assets.data.channels.parts import Index, Recipe
from platform_assets.product.sited import ChannelProblem
from platform_assets.store import durable

FORMAT = 1
"""Raised with every change of what a pass finds."""
TICK_S = 2.0
"""How long a pass may take within a sensor's tick; a longer one goes on in a process of its own."""
RACY_S = 2.0
"""A file that was written this shortly before a pass may have been written again without another time."""
LONG_S, AGE = 1.0, 4
"""A file that is written all the time, and takes a pass so long, is looked at as it was up to so many passes ago."""
_KNOWN: dict[Path | str, Index] = {}
_PROCESSES: dict[Path, subprocess.Popen[bytes]] = {}


class StillReading(ChannelProblem):
    """A pass goes on in a process of its own; its result answers a later tick."""


def index(recipe: Recipe, scratch: Path | None, *, is_tick: bool = False) -> Index:
    """Return which rows belong to which key: what is known, or what a pass finds.

    Args:
        scratch: a folder for files that may be lost; None keeps it in this process.
        is_tick: whether a long pass must not be waited for.

    Raises:
        FileNotFoundError: there is no file.
        StillReading: a pass is under way; only in a tick.
    """
    place = _place(recipe, scratch)
    if (known := _known(recipe, place)) is not None:
        return known
    if scratch is None or isinstance(place, str):
        found = _KNOWN[place] = parts.index(recipe)
        return found
    if not is_tick:
        return run(recipe, place)
    size = f"{Path(recipe.path).stat().st_size / 1e6:,.0f} MB"
    under_way = StillReading(f"{recipe.path} ({size}) is being read by a process of its own; its keys follow.")
    process = _PROCESSES.get(place)
    if process is not None and process.poll() is None:
        raise under_way
    if process is not None and _PROCESSES.pop(place).returncode:
        raise StillReading(
            f"the process that read {recipe.path} ended with {process.returncode}; the next tick tries again."
        )
    with _locked(place, is_patient=False) as has_lock:
        if not has_lock:
            raise under_way
        try:
            return _store(place, parts.index(recipe, time.perf_counter() + TICK_S))
        except parts.TooSlow:
            pass
    command = [sys.executable, "-m", __name__, _as_text(recipe, place)]
    _PROCESSES[place] = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    raise under_way


def run(recipe: Recipe, place: Path) -> Index:
    """Read a file unless another process does; return what is found."""
    with _locked(place, is_patient=True):
        return _known(recipe, place) or _store(place, parts.index(recipe))


def forget(recipe: Recipe, scratch: Path | None) -> None:
    """Forget what a pass found, because the file has other rows."""
    place = _place(recipe, scratch)
    _KNOWN.pop(place, None)
    if isinstance(place, Path):
        place.unlink(missing_ok=True)


def _place(recipe: Recipe, scratch: Path | None) -> Path | str:
    described = (recipe.path, recipe.by, recipe.time_format, recipe.multiline, repr(recipe.grain), FORMAT)
    name = hashlib.sha256(repr(described).encode()).hexdigest()[:24]
    return name if scratch is None else scratch / "one_file" / name


def _known(recipe: Recipe, place: Path | str) -> Index | None:
    """Return what an earlier pass found, if the file is the same, or the pass was long and has just ended."""
    try:
        stat = Path(recipe.path).stat()
    except OSError:
        raise FileNotFoundError(f"there is no file {recipe.path}.") from None
    for found in (_KNOWN.get(place), _stored(place)):
        if found is None:
            continue
        is_same = found.file == parts.file_mark(stat) and found.at_s - found.modified_s > RACY_S
        is_recent = found.took_s > LONG_S and clock.wall().timestamp() - found.at_s < AGE * found.took_s
        if is_same or (is_recent and not found.problem):
            _KNOWN[place] = found
            return found
    return None


def _stored(place: Path | str) -> Index | None:
    try:
        return msgspec.msgpack.decode(Path(place).read_bytes(), type=Index) if isinstance(place, Path) else None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _store(place: Path, found: Index) -> Index:
    durable.replace(place, msgspec.msgpack.encode(found))
    _KNOWN[place] = found
    return found


@contextmanager
def _locked(place: Path, *, is_patient: bool) -> Iterator[bool]:
    """Hold the lock of a file's pass, which ends with its process; yield whether it is ours."""
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _as_text(recipe: Recipe, place: Path) -> str:
    fields = {name: getattr(recipe, name) for name in ("path", "by", "time_format", "multiline")}
    grain = [type(recipe.grain).__name__, asdict(recipe.grain)]
    return json.dumps({"recipe": fields, "grain": grain, "place": str(place)})


def main(text: str) -> None:
    """Read the file that a tick had no time for."""
    told = json.loads(text)
    name, fields = told["grain"]
    told["recipe"]["multiline"] = tuple(told["recipe"]["multiline"])
    run(Recipe(**told["recipe"], grain=getattr(keys, name)(**fields)), Path(told["place"]))


if __name__ == "__main__":
    main(sys.argv[1])
