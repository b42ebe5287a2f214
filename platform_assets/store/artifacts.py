"""Store blobs under their sha256, and bundles: manifests that name blobs.

A blob is created once, atomically, and never changed. Readers verify what they read; storing a damaged blob again
repairs it. A blob of text may be stored compressed, under its name plus `.gz`. A bundle's manifest is written after
every blob it names, so a readable manifest is complete. Imports only obstore and the standard library, because serving
imports this module.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.store import objects
from platform_assets.store.objects import open_store, reason

BUNDLE_FORMAT = 1
PACKED = ".gz"
"""Suffix of a compressed blob's name."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtifactProblem(Problem):
    """A blob that is missing, does not match its name, or cannot be written; the message names it."""


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
        TypeError: for anything other than dict, list, str, int, float, bool and None.
    """
    # Python would write NaN, which is not JSON.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(data: bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: not JSON in UTF-8, or nested deeper than Python can parse.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError(f"{len(data)} bytes of JSON are nested too deep") from None


def sha256(data: bytes) -> str:
    """Return the sha256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


class ArtifactStore:
    """The blobs and bundles below one storage root."""

    def __init__(self, root: str) -> None:
        """Open the store.

        Args:
            root: a folder or an `s3://` URL (`Settings.root`).
        """
        self.root = root
        self._store = open_store(root)

    def put(self, data: bytes, *, compressed: bool = False) -> str:
        """Store a blob and return its sha256. An existing blob stays, unless its bytes differ.

        Args:
            compressed: store it with gzip (for text), unless that makes it larger.

        Raises:
            ArtifactProblem: it cannot be written, for example on a full disk; nothing is left behind.
        """
        import obstore

        digest = sha256(data)
        stored, path = data, naming.blob_path(digest)
        # By default gzip writes the present time into its header: equal content would get other bytes each time.
        if compressed and len(packed := gzip.compress(data, mtime=0)) < len(data):
            stored, path = packed, path + PACKED
        try:
            if not objects.create(self._store, path, stored) and self._unpacked(path) != data:
                objects.replace(self._store, path, stored)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise ArtifactProblem(
                f"blob {digest} ({len(data)} bytes) could not be written below {self.root}: {reason(self.root, error)}."
            ) from error
        return digest

    def get(self, sha256_hex: str, *, compressed: bool = False, bytes_max: int | None = None) -> bytes:
        """Return a blob's bytes, verified.

        Args:
            compressed: how it was stored; a wrong value costs one more request.
            bytes_max: an object that holds more is refused and not read; None for any size.

        Raises:
            ArtifactProblem: it is missing or unreadable, or its bytes do not match its name.
        """
        import obstore

        if not _SHA256.fullmatch(str(sha256_hex)):
            raise ArtifactProblem(
                f"{sha256_hex!r:.100} is not a blob's name; expected a sha256, 64 hexadecimal digits."
            )
        plain = naming.blob_path(sha256_hex)
        for path in sorted((plain, plain + PACKED), reverse=compressed):
            try:
                data = self._unpacked(path, bytes_max)
            except (obstore.exceptions.BaseError, OSError) as error:
                raise ArtifactProblem(f"blob {sha256_hex} cannot be read: {reason(self.root, error)}.") from error
            if data is not None:
                break
        else:
            raise ArtifactProblem(f"blob {sha256_hex} is missing: {naming.join(self.root, plain)} is not there.")
        actual = sha256(data)
        if actual != sha256_hex:
            raise ArtifactProblem(
                f"blob {sha256_hex} was changed: {naming.join(self.root, path)} holds {len(data)} bytes with sha256 "
                f"{actual}; produce it again."
            )
        return data

    def _unpacked(self, path: str, bytes_max: int | None = None) -> bytes | None:
        """Return an object's bytes, decompressed if the path ends in `.gz`; other data is returned unchanged."""
        data = objects.read(self._store, path, bytes_max)
        if data is not None and path.endswith(PACKED):
            with contextlib.suppress(gzip.BadGzipFile, EOFError, zlib.error):  # its digest tells whether it is damaged
                if bytes_max is None:
                    return gzip.decompress(data)
                # A small object may unpack to any size, so it is unpacked as far as the limit.
                # zlib's 16 stands for the header of gzip.
                content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, bytes_max + 1)
                if len(content) > bytes_max:
                    raise OSError(f"{path} holds more than {bytes_max} bytes")
                return content
        return data

    def is_whole(self, digest: str, names: Iterable[str] = (), *, compressed: bool = False) -> bool:
        """Tell whether a blob and the blobs it names can be read. Costs reading them all.

        Args:
            names: members of the blob's JSON object that hold another blob's sha256, or an object of several.
            compressed: whether the blob was stored compressed.
        """
        try:
            data = self.get(digest, compressed=compressed)
            manifest = parse(data) if names else {}
            for name in names:
                member = manifest[name]
                for blob in member.values() if isinstance(member, dict) else (member,):
                    self.get(blob)
        except (ArtifactProblem, ValueError, KeyError, TypeError):
            return False
        return True

    def put_json(self, value: Any, *, compressed: bool = False) -> str:
        """Store a value as canonical JSON and return the blob's sha256; see `put`."""
        return self.put(canonical(value), compressed=compressed)

    def get_json(self, sha256_hex: str) -> Any:
        """Return the value of a JSON blob, verified; see `get`."""
        return parse(self.get(sha256_hex))

    def write_bundle(self, blobs: Mapping[str, bytes], facts: Mapping[str, Any]) -> str:
        """Store the blobs, then a manifest that names them; return the manifest's sha256, the bundle's digest.

        Args:
            blobs: bytes by name, such as `{"model.onnx": b"..."}`.
            facts: further members of the manifest; deterministic content only (no time, host, path, measurement).

        Raises:
            ValueError: `facts` has a key that the manifest itself uses.
        """
        reserved = {"format", "blobs"} & set(facts)
        if reserved:
            raise ValueError(
                f"facts has {sorted(reserved)}, which the manifest sets itself; rename them in the caller."
            )
        named = {name: {"sha256": self.put(data), "bytes": len(data)} for name, data in blobs.items()}
        return self.put_json({"format": BUNDLE_FORMAT, **facts, "blobs": named})

    def bundle(self, digest: str, bytes_max: int | None = None) -> Bundle:
        """Return a bundle by its digest. Reads and verifies only the manifest.

        Args:
            bytes_max: a larger manifest is refused and not read; None for any size.

        Raises:
            ArtifactProblem: it is missing, changed, or not a bundle manifest of a known format.
        """
        try:
            manifest = parse(self.get(digest, bytes_max=bytes_max))
        except ValueError:
            raise ArtifactProblem(f"blob {digest} is not a bundle: it is not JSON.") from None
        if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT or "blobs" not in manifest:
            raise ArtifactProblem(f"blob {digest} is not a bundle of format {BUNDLE_FORMAT}.")
        blobs = manifest["blobs"]
        if not isinstance(blobs, dict) or not all(
            isinstance(blob, dict) and "sha256" in blob for blob in blobs.values()
        ):
            raise ArtifactProblem(f"blob {digest} is not a bundle: `blobs` must map names to objects with a sha256.")
        return Bundle(digest=digest, manifest=manifest, store=self)


@dataclass(frozen=True)
class Bundle:
    """A verified manifest and access to the blobs it names.

    Attributes:
        digest: the manifest's sha256.
        manifest: `{"format": 1, **facts, "blobs": {name: {"sha256", "bytes"}}}`.
        store: holds the blobs.
    """

    digest: str
    manifest: dict[str, Any]
    store: ArtifactStore

    @property
    def is_whole(self) -> bool:
        """Whether every blob it names exists with the right bytes. Costs reading them all."""
        try:
            return all(self.read(name) is not None for name in self.names)
        except ArtifactProblem:
            return False

    @property
    def names(self) -> tuple[str, ...]:
        """The blobs' names, sorted."""
        return tuple(sorted(self.manifest["blobs"]))

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        """Return one of the bundle's blobs, verified.

        Args:
            bytes_max: as in `ArtifactStore.get`.

        Raises:
            ArtifactProblem: the bundle does not name this blob, or the blob is missing or changed.
        """
        try:
            digest = self.manifest["blobs"][name]["sha256"]
        except KeyError:
            raise ArtifactProblem(f"bundle {self.digest} has no blob {name!r}; it has {list(self.names)}.") from None
        return self.store.get(digest, bytes_max=bytes_max)
