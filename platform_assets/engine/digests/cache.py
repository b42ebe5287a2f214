"""Cache the result of parsing next to Python's compiled files, because parsing costs more than loading a module.

An entry is valid while its source is the same. Unreadable or unwritable entries are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

_DIGESTING = (
    "engine/digests/__init__.py",
    "engine/digests/definitions.py",
    "engine/digests/cache.py",
    "engine/digests/modules.py",
    "product/data_files.py",
    "product/spec.py",
)
"""Files that determine how code is digested; entries of other versions of these files are ignored."""

_NEW: set[str] = set()

Entry = tuple[str, frozenset[str], frozenset[str]]
"""A digest, the imported names, and the names of the data files that are read."""


def get_or_make(name: str, source: bytes, make: Callable[[], Entry]) -> Entry:
    """Return the entry of a name if it was made from this source; otherwise make it and add it to the cache."""
    source_digest, entries = hashlib.sha256(source).hexdigest(), _entries()
    match entries.get(name):
        case [str(cached_source), str(digest), list(names), list(files)] if cached_source == source_digest:
            return digest, frozenset(names), frozenset(files)
    digest, imported, read = make()
    entries[name] = [source_digest, digest, sorted(imported), sorted(read)]
    _NEW.add(name)
    return digest, imported, read


def save() -> None:
    """Write the cache to its file if it has new entries."""
    if not _NEW:
        return
    _NEW.clear()
    file = _file()
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # in a folder that cannot be written, each process parses again
        file.parent.mkdir(exist_ok=True)
        # Sorted, so that an image that is built twice has the same file twice.
        text = json.dumps({"made_by": _version(), "entries": _entries()}, sort_keys=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)


@lru_cache(maxsize=1)
def _entries() -> dict[str, list[str | list[str]]]:
    try:
        content = json.loads(_file().read_bytes())
    except (OSError, ValueError):
        return {}
    entries = content.get("entries") if isinstance(content, dict) and content.get("made_by") == _version() else None
    return entries if isinstance(entries, dict) else {}


@lru_cache(maxsize=1)
def _version() -> str:
    package = Path(__file__).parents[2]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in _DIGESTING)).hexdigest()


def _file() -> Path:
    return Path(__file__).parent / "__pycache__" / "digests"
