"""Keep what parsing found in a file beside Python's own compiled files, for a parse costs more than loading a module.

An entry counts as long as the source that it was made from is the same. What cannot be read or written is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

_DIGESTING = (
    "digests/__init__.py",
    "digests/definitions.py",
    "digests/cache.py",
    "digests/modules.py",
    "specs/base.py",
)
"""Files that say how code is digested: entries of other ones do not count."""

_NEW: set[str] = set()

Entry = tuple[str, frozenset[str]]
"""A digest, and the names that are imported."""


def get_or_make(name: str, source: bytes, make: Callable[[], Entry]) -> Entry:
    """Return what is kept under a name for this source, or make and keep it."""
    of_source, kept = hashlib.sha256(source).hexdigest(), _kept()
    match kept.get(name):
        case [str(before), str(digest), list(names)] if before == of_source:
            return digest, frozenset(names)
    digest, imported = make()
    kept[name] = [of_source, digest, sorted(imported)]
    _NEW.add(name)
    return digest, imported


def save() -> None:
    """Keep what was made since the last time."""
    if not _NEW:
        return
    _NEW.clear()
    place = _place()
    new = place.with_name(f"{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        new.write_text(json.dumps({"made_by": _made_by(), "entries": _kept()}), encoding="utf-8")
        new.replace(place)


@lru_cache(maxsize=1)
def _kept() -> dict[str, Any]:
    try:
        kept = json.loads(_place().read_bytes())
    except (OSError, ValueError):
        return {}
    entries = kept.get("entries") if isinstance(kept, dict) and kept.get("made_by") == _made_by() else None
    return entries if isinstance(entries, dict) else {}


@lru_cache(maxsize=1)
def _made_by() -> str:
    package = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in _DIGESTING)).hexdigest()


def _place() -> Path:
    return Path(__file__).parent / "__pycache__" / "digests"
