"""Open a storage root, create objects in it exactly once, and explain storage errors in a sentence.

An S3 response may get lost after the write was done. The client then repeats the request, and S3 answers that the
object exists. So each create stores the id of its write in the object's metadata, never in its bytes: on AlreadyExists,
we compare the write id, and if it is ours, the create succeeded. A folder loses no responses and has no metadata. An
empty object counts as absent on create, because only a power loss leaves one (`durable.py`). Imports only obstore and
the standard library, because serving imports this module.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.store import durable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import LocalStore, ObjectStore

MOST_CLIENTS = 64
"""A client takes .1 MB, and keeps its connections for some time. A run reaches some 40 addresses of its product."""
CREATE_ATTEMPTS = 3
PAUSE_S = 0.1
WRITE = "driftline-write"
_REFUSED = ("403 Forbidden", "401 Unauthorized")
_NO_BUCKET = "NoSuchBucket"
# Without credentials in the environment, clients ask the host: EC2's address, then ECS's.
_CREDENTIAL_ADDRESSES = ("http://169.254.169.254/", "http://169.254.170.2/")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RETRY_TIMES = re.compile(r" in [\d.]+\w*s, after \d+ retries, max_retries: \d+, retry_timeout: [\d.]+\w*s *")
"""The client's retry times, which differ in each message for the same error."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)|No CA certificates")
"""Only the debug dump says so: the message is that of every request that could not be sent, or of no client at all."""


def open_store(root: str, patience: timedelta | None = None) -> ObjectStore:
    """Return the object store of a root: a folder (created if missing) or a URL such as `s3://bucket/path`.

    The S3 client reads its keys, region and endpoint from the `AWS_*` variables.

    Args:
        patience: for how long the client retries a request; None: its default, three minutes.

    Raises:
        OSError: the folder cannot be made.
    """
    # The package, not `obstore.exceptions`: two threads that began with one each left a broken package behind.
    import obstore

    if not is_folder(root):
        return _bucket(root, patience, access())
    folder = Path(root.removeprefix("file://")).absolute()
    try:
        return obstore.store.LocalStore(folder, mkdir=True)
    except OSError as problem:
        raise OSError(f"the folder {folder} cannot be made: {problem}. Set DRIFTLINE_ROOT to one that can.") from None


@functools.lru_cache(maxsize=MOST_CLIENTS)
def _bucket(url: str, patience: timedelta | None, _: tuple[tuple[str, str], ...]) -> ObjectStore:
    """Return the one client of an address in this process: another one would connect and ask for credentials again."""
    import obstore

    return obstore.store.from_url(url, retry_config=None if patience is None else {"retry_timeout": patience})


def access() -> tuple[tuple[str, str], ...]:
    """Return the variables that decide where a client connects and with which credentials."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


def is_there(root: str) -> bool:
    """Tell whether a root exists, without creating it; True for every bucket, because only a request can tell."""
    return not is_folder(root) or Path(root.removeprefix("file://")).is_dir()


def create(store: ObjectStore, path: str, data: bytes) -> bool:
    """Create an object unless it exists; return whether this call created it. Durable either way.

    Raises:
        obstore.exceptions.BaseError, OSError: no object exists; see `reason`.
    """
    import obstore

    if isinstance(store, obstore.store.LocalStore):
        # obstore's LocalStore creates, but has no replacement by e_tag (NotImplementedError), as an empty file needs.
        return durable.create(_file_path(store, path), data)
    write = uuid.uuid4().hex
    unclear: obstore.exceptions.BaseError | None = None
    mode: Any = "create"
    for attempt in range(CREATE_ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        try:
            # Not in the record's bytes: two replays must write equal records.
            obstore.put(store, path, data, mode=mode, attributes={WRITE: write})
            return True
        except (
            obstore.exceptions.AlreadyExistsError,
            obstore.exceptions.GenericError,
            obstore.exceptions.PreconditionError,
        ) as error:
            # Another writer's object, or ours and the response was lost, or none: some collisions get a 409 too.
            unclear = error
            try:
                existing = obstore.get(store, path, options={"head": True})
            except FileNotFoundError:
                continue
            if existing.meta["size"] or not data:
                return existing.attributes.get(WRITE) == write  # another program's object has no such attribute
            # An empty object counts as absent. It is replaced only as it was seen: another writer may do the same.
            mode = {"e_tag": existing.meta["e_tag"]}
    assert unclear is not None
    raise unclear


def replace(store: ObjectStore, path: str, data: bytes) -> None:
    """Write an object, replacing an existing one; durable when this returns.

    Raises:
        obstore.exceptions.BaseError, OSError: it could not be written.
    """
    import obstore

    if isinstance(store, obstore.store.LocalStore):
        durable.replace(_file_path(store, path), data)
    else:
        obstore.put(store, path, data, mode="overwrite")


def remove(store: ObjectStore, path: str) -> bool:
    """Remove an object; return whether it existed."""
    import obstore

    # Look first, because S3 reports success for a missing object; a folder reports it if another process was quicker.
    if not exists(store, path):
        return False
    with contextlib.suppress(FileNotFoundError):
        obstore.delete(store, path)
    return True


def read(store: ObjectStore, path: str, bytes_max: int | None = None) -> bytes | None:
    """Return an object's bytes, or None when it does not exist in an existing bucket.

    Args:
        bytes_max: a larger object is refused and not read; None for any size.

    Raises:
        obstore.exceptions.BaseError, OSError: it is unreadable or too large, or a pipe in a folder, which may never
            end.
    """
    import obstore

    if is_not_a_file(store, path):
        raise OSError(f"{path} is not a file")
    try:
        result = obstore.get(store, path)
        # The head of the answer tells the size, before the body is read into memory.
        if bytes_max is not None and result.range[1] > bytes_max:
            raise OSError(f"{path} has {result.range[1]} bytes; expected at most {bytes_max}")
        return bytes(result.bytes())
    except FileNotFoundError as error:
        if _NO_BUCKET in str(error):
            raise
        return None


def exists(store: ObjectStore, path: str) -> bool:
    """Tell whether an object exists; on S3 a deleted bucket looks the same as a missing object."""
    return size(store, path) is not None


def size(store: ObjectStore, path: str) -> int | None:
    """Return an object's size in bytes, None when it does not exist; -1 for a pipe or a folder at its path."""
    import obstore

    if is_not_a_file(store, path):
        return -1
    try:
        return int(obstore.head(store, path)["size"])
    except FileNotFoundError:
        return None
    except ValueError as error:  # the file's time is after the year 9999
        raise OSError(f"the time of {path} cannot be read: {error}") from error


def modified(store: ObjectStore, path: str) -> datetime | None:
    """Return when an object was written by the store's clock, None when it does not exist."""
    import obstore

    try:
        return obstore.head(store, path)["last_modified"]
    except FileNotFoundError:
        return None


def mark(store: ObjectStore, path: str) -> str | None:
    """Return an object's mark, see `mark_of`; None when it does not exist."""
    import obstore

    try:
        return mark_of(obstore.head(store, path))
    except FileNotFoundError:
        return None


def mark_of(meta: ObjectMeta) -> str:
    """Return a mark that changes when an object's content changes, without reading its bytes.

    For a file in a folder it is made of inode, size and time; S3 makes it of the bytes.
    """
    return str(meta.get("e_tag") or f"{meta['last_modified'].isoformat()} {meta['size']}")


def is_folder(root: str) -> bool:
    """Tell whether a root is a folder, where half-written files are visible."""
    return "://" not in root or root.startswith("file://")


def is_not_a_file(store: ObjectStore, path: str) -> bool:
    """Tell whether a folder, a pipe or a device is where a file should be; opening a pipe may block for ever."""
    import obstore

    if not isinstance(store, obstore.store.LocalStore):
        return False
    file = _file_path(store, path)
    return file.exists() and not file.is_file()


def _file_path(store: LocalStore, path: str) -> Path:
    return Path(store.prefix or "/", path)


def reason(root: str, error: BaseException) -> str:
    """Return why a library could not read or write, without its debug dump and without a full stop.

    Args:
        root: the root, or a location below it.
        error: raised by obstore, deltalake or polars, which share the client's messages.
    """
    text = _RETRY_TIMES.sub(" ", _COLOUR.sub("", str(error))).split("\n\nDebug source:", 1)[0]
    code = _CODE.search(text)
    if not is_folder(root):
        bucket = "/".join(root.split("/", 3)[:3])
        if any(address in text for address in _CREDENTIAL_ADDRESSES):
            return f"no key for {bucket} was found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role"
        if certificate := _CERTIFICATE.search(str(error)):
            return (
                f"the certificate of the server of {bucket} is refused ({certificate[1] or 'no authority known'}); "
                "check the name in AWS_ENDPOINT_URL, and that the file in SSL_CERT_FILE contains its authority"
            )
        if _NO_BUCKET in text:
            return f"the bucket {bucket} does not exist; create it, or fix its name or AWS_ENDPOINT_URL"
        if any(status in text for status in _REFUSED):
            return (
                f"{bucket} refuses our key{f' ({code[1]})' if code else ''}; check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, and their permissions on the bucket"
            )
    first, *others = text.splitlines() or [type(error).__name__]
    causes = [line.strip().removeprefix("↳").strip() for line in others if line.strip().startswith("↳")]
    return ": ".join([first, *causes]).rstrip(".")


def may_pass(root: str, error: BaseException) -> bool:
    """Tell whether a bucket may answer a moment later: no, if its name, its key or the client's settings are wrong."""
    text = str(error)
    lasting = (*_CREDENTIAL_ADDRESSES, *_REFUSED, _NO_BUCKET, "builder error", "Config error")
    return not is_folder(root) and not any(part in text for part in lasting)


def variable(name: str) -> str | None:
    """Return a variable that an address of a database names, such as that of a password."""
    return os.environ.get(name)


def first_line(error: BaseException) -> str:
    """Return the first line of a storage error's text, without the debug dump that follows it."""
    return str(error).split("\n", 1)[0]
