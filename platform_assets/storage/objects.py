"""Open a storage root, create objects there exactly once, and say in a sentence what went wrong.

Belongs here: what blobs, ledgers and tables share of obstore; obstore and the standard library only, for serving
imports it. Does not belong here: what is stored, and which of our problems an error becomes.

An answer of S3 may be lost after the write was done; the client then repeats the request by itself and is told that
the object exists. So each create carries the id of its write in the object's metadata, never in its bytes, and
whoever is told that the object exists looks whose it is. A folder's answers are not lost, and it has no metadata.
An object without bytes counts as absent when something is created, for only a lost power leaves one (`durable.py`).
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.storage import durable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import LocalStore, ObjectStore

CREATE_ATTEMPTS = 3
PAUSE_S = 0.1
WRITE = "driftline-write"
_REFUSED = ("403 Forbidden", "401 Unauthorized")
_NO_BUCKET = "NoSuchBucket"
# Without a key in the environment, clients ask the host for one: EC2's address, then ECS's.
_ASKED_FOR_A_KEY = ("http://169.254.169.254/", "http://169.254.170.2/")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TRIED = re.compile(r" in [\d.]+\w*s, after \d+ retries, max_retries: \d+, retry_timeout: [\d.]+\w*s *")
"""How long the client went on asking: another text each time, for the same trouble."""
_CODE = re.compile(r"<Code>(\w+)</Code>")


def open_store(root: str) -> ObjectStore:
    """Return the object store of a storage root: a folder (made when absent) or a URL such as `s3://bucket/path`.

    The S3 client takes its keys, region and endpoint from the `AWS_*` variables.
    """
    import obstore

    if not is_folder(root):
        return obstore.store.from_url(root)
    return obstore.store.LocalStore(Path(root.removeprefix("file://")).absolute(), mkdir=True)


def is_there(root: str) -> bool:
    """Tell whether a storage root is there to be read, without making it; of a bucket only a request tells."""
    return not is_folder(root) or Path(root.removeprefix("file://")).is_dir()


def create(store: ObjectStore, path: str, data: bytes) -> bool:
    """Create an object unless there, and tell whether it is this call's; either way one is stored for good.

    Raises:
        obstore.exceptions.BaseError, OSError: when none is there; see `reason`.
    """
    import obstore

    if isinstance(store, obstore.store.LocalStore):
        return durable.create(_place(store, path), data)
    write = uuid.uuid4().hex
    unknown: obstore.exceptions.BaseError | None = None
    mode: Any = "create"
    for attempt in range(CREATE_ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        try:
            obstore.put(store, path, data, mode=mode, attributes={WRITE: write})
            return True
        except (
            obstore.exceptions.AlreadyExistsError,
            obstore.exceptions.GenericError,
            obstore.exceptions.PreconditionError,
        ) as error:
            # Somebody's object, or ours and the answer was lost, or none: S3 says 409 to some requests that collide.
            unknown = error
            found = _found(store, path)
            if found is None:
                continue
            if found.size or not data:
                return found.write == write
            mode = {"e_tag": found.e_tag}
    assert unknown is not None
    raise unknown


def replace(store: ObjectStore, path: str, data: bytes) -> None:
    """Put an object in the place of another; it is stored for good when this returns.

    Raises:
        obstore.exceptions.BaseError, OSError: it could not be written.
    """
    import obstore

    if isinstance(store, obstore.store.LocalStore):
        durable.replace(_place(store, path), data)
    else:
        obstore.put(store, path, data, mode="overwrite")


def remove(store: ObjectStore, path: str) -> bool:
    """Remove an object and tell whether it was there."""
    import obstore

    # Asked first, for S3 removes what is not there without a word; a folder says so if another was quicker.
    if not exists(store, path):
        return False
    with contextlib.suppress(FileNotFoundError):
        obstore.delete(store, path)
    return True


def read(store: ObjectStore, path: str) -> bytes | None:
    """Return an object's bytes, or None when it is not there though its bucket is.

    Raises:
        obstore.exceptions.BaseError, OSError: it cannot be read, or is a pipe in a folder, which may never end.
    """
    import obstore

    if is_not_a_file(store, path):
        raise OSError(f"{path} is no file")
    try:
        return bytes(obstore.get(store, path).bytes())
    except FileNotFoundError as error:
        if _NO_BUCKET in str(error):
            raise
        return None


def exists(store: ObjectStore, path: str) -> bool:
    """Tell whether an object is there; to S3's answer a bucket that is gone looks the same as an object that is."""
    return size(store, path) is not None


def size(store: ObjectStore, path: str) -> int | None:
    """Return how many bytes an object has, None when it is not there; -1 for a pipe or a folder in its place."""
    import obstore

    if is_not_a_file(store, path):
        return -1
    try:
        return int(obstore.head(store, path)["size"])
    except FileNotFoundError:
        return None


def mark_of(meta: ObjectMeta) -> str:
    """Return what tells an object from another one at the same place, without its bytes.

    Of a file in a folder that is its inode, size and time; S3 makes it of the bytes.
    """
    return str(meta.get("e_tag") or f"{meta['last_modified'].isoformat()} {meta['size']}")


def is_folder(root: str) -> bool:
    """Tell whether a storage root is a folder, where a file is seen while it is written."""
    return "://" not in root or root.startswith("file://")


def is_not_a_file(store: ObjectStore, path: str) -> bool:
    """Tell whether a folder, a pipe or a device lies where a file should; opening a pipe may take for ever."""
    import obstore

    if not isinstance(store, obstore.store.LocalStore):
        return False
    place = _place(store, path)
    return place.exists() and not place.is_file()


def _place(store: LocalStore, path: str) -> Path:
    return Path(store.prefix or "/", path)


def reason(root: str, error: BaseException) -> str:
    """Return why a library could not read or write at a root, without its dump and without a full stop.

    Args:
        root: the root, or a place below it.
        error: what obstore, deltalake or polars raised; they share the client's words.
    """
    text = _TRIED.sub(" ", _COLOUR.sub("", str(error))).split("\n\nDebug source:", 1)[0]
    code = _CODE.search(text)
    if not is_folder(root):
        bucket = "/".join(root.split("/", 3)[:3])
        if any(address in text for address in _ASKED_FOR_A_KEY):
            return f"no key for {bucket} was found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a role"
        if _NO_BUCKET in text:
            return f"the bucket {bucket} does not exist; make it, or mend DRIFTLINE_ROOT or AWS_ENDPOINT_URL"
        if any(status in text for status in _REFUSED):
            return (
                f"{bucket} refuses our key{f' ({code[1]})' if code else ''}; check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, and what they may do with the bucket"
            )
    first, *others = text.splitlines() or [type(error).__name__]
    causes = [line.strip().removeprefix("↳").strip() for line in others if line.strip().startswith("↳")]
    return ": ".join([first, *causes]).rstrip(".")


def first_line(error: BaseException) -> str:
    """Return the first line of a storage error's text, without the debug dump that follows it."""
    return str(error).split("\n", 1)[0]


@dataclass(frozen=True)
class _Found:
    """What lies at a path of a bucket: the id of the write that made it ("" for another program's), and its mark."""

    write: str
    size: int
    e_tag: str | None


def _found(store: ObjectStore, path: str) -> _Found | None:
    import obstore

    try:
        found = obstore.get(store, path, options={"head": True})
    except FileNotFoundError:
        return None
    return _Found(str(found.attributes.get(WRITE, "")), int(found.meta["size"]), found.meta["e_tag"])
