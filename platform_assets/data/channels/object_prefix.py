"""Define `ObjectPrefix`: many files per key, with any names, in a folder or a bucket of others."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from platform_assets.base import clock, kinds
from platform_assets.base.keys import BatchGrain, KeyProblem
from platform_assets.base.wording import counted
from platform_assets.data.channels import lags
from platform_assets.product.channel_sites import ChannelProblem, SitedChannel
from platform_assets.product.channels import Landed
from platform_assets.store import objects
from platform_assets.store.artifacts import canonical, sha256

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

    from platform_assets.data.channels.lags import Read, Schema

T = TypeVar("T")
PARSED, PACKED = 8, 40
"""Bytes of memory that rows take while they are read and checked, per byte of CSV, and of Parquet or gzip; measured."""
_CODES = {
    "{key}": ("key", r"[^/]+"),
    "%Y": ("Y", r"\d{4}"),
    "%m": ("m", r"\d\d"),
    "%d": ("d", r"\d\d"),
    "%H": ("H", r"\d\d"),
}
_TOKEN = re.compile(r"\{key\}|%[YmdH]|\*")
# The time of each file in an archive, fixed so that equal files give equal archives.
_WRITTEN = (1980, 1, 1, 0, 0, 0)
_MANIFEST = '{"files": {"part-1.csv": "SHA256", ...}}'


@dataclass(frozen=True)
class ObjectPrefix(SitedChannel):
    """Many CSV or Parquet files per key: their rows are one delivery, the files in the order of their names.

    A key has a delivery when its marker or manifest is there and all that a manifest lists. Its mark is of the names
    and marks of its files, so a file that is replaced, added or removed moves that of its key.

    Attributes:
        root: a folder or a URL such as `s3://partner/export`, read with the environment's `AWS_*`. A relative folder
            starts in the project's folder, as in `OneFile`.
        pattern: of the files below `root`: `*` stands for any name or part of one; the key is `{key}`, or
            `%Y`, `%m`, `%d` and `%H` of its start in the grain's time zone: `orders/%Y/%m/%d/*.parquet`.
        marker: a file that is written after all others of the key: `orders/{key}/_SUCCESS`.
        manifest: a file that lists the key's others, next to it, with the sha256 of each:
            `{"files": {"part-1.csv": "SHA256", ...}}`. Others are not read. One of marker and manifest is needed.
        read: `(bytes) -> rows` of one file; None for Parquet by its name, and CSV.
        lag: how long after the end of a key its files may still change.
        most_memory_mb (MB): of one key's rows; more are refused with an estimate.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("root", "marker", "manifest", "lag", "most_memory_mb")

    root: str
    pattern: str
    _: KW_ONLY
    marker: str | None = None
    manifest: str | None = None
    read: Callable[[bytes], pl.DataFrame] | None = None
    lag: timedelta = timedelta(0)
    most_memory_mb: int = 4_000

    def __post_init__(self) -> None:
        """Refuse patterns that do not say the key, and files that nothing completes."""
        kinds.check(self, "ObjectPrefix.")
        for name in ("pattern", "marker", "manifest"):
            value = getattr(self, name)
            if value is not None and "{key}" not in value and not all(code in value for code in ("%Y", "%m", "%d")):
                raise ValueError(
                    f"ObjectPrefix.{name} is {value!r}, which does not say the key; expected {{key}} in it, or "
                    "%Y, %m and %d."
                )
        if (self.marker is None) == (self.manifest is None):
            raise ValueError(
                "ObjectPrefix needs either a marker or a manifest, by which a key's files are known to be complete, "
                "such as marker='orders/{key}/_SUCCESS'."
            )
        if "*" in (self.marker or "") + (self.manifest or ""):
            raise ValueError("ObjectPrefix: marker and manifest are one file per key, without '*'.")

    def reader(self, read: Read | None, schema: Schema, multiline: tuple[str, ...]) -> Read | None:
        """Return what reads all files of a delivery."""
        if read is not None and not isinstance(read, FileRows):
            return read
        return FileRows(schema=schema, read=self.read, multiline=multiline)

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's files, None until they are complete. Costs two requests."""
        if not lags.is_over(self, key):
            return None
        files = self._complete(key)
        return None if files is None else _mark(files)

    def arrived_at(self, key: str) -> datetime | None:
        """Return when the newest of a key's files was written."""
        files = self._complete(key)
        return max((meta["last_modified"] for meta in files.values()), default=None) if files else None

    def keys(self) -> list[str]:
        """Return the keys that are complete. Costs a listing of all files, and two requests per key."""
        name = self.marker or self.manifest or ""
        found = {self._key(path, name) for path in self._list(re.split(_TOKEN, name)[0])}
        return sorted(
            key for key in found if key is not None and lags.is_over(self, key) and self._complete(key) is not None
        )

    def cite(self, key: str | None = None) -> str:
        """Return the location of a key's files, or of all."""
        return f"{self._root.rstrip('/')}/{self.pattern if key is None else self._filled(self.pattern, key)}"

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's files in one archive, which `FileRows` reads.

        Raises:
            FileNotFoundError: they are not complete, or not those of the manifest.
            ChannelProblem: they cannot be read, or are too large.
        """
        import obstore

        files = self._complete(key) if lags.is_over(self, key) else None
        if files is None:
            name = self._filled(self.marker or self.manifest or "", key)
            raise FileNotFoundError(f"{self.cite(key)} is not complete without {name} and all that it lists.")
        size = sum(meta["size"] for meta in files.values())
        needed = sum(meta["size"] * (PARSED if path.endswith(".csv") else PACKED) / 1e6 for path, meta in files.items())
        if needed > self.most_memory_mb:
            raise ChannelProblem(
                f"{self.cite(key)} has {counted(len(files), 'file')} of {size / 1e6:,.1f} MB, which take some "
                f"{needed:,.0f} MB of memory; most_memory_mb is {self.most_memory_mb:,}. Take a finer grain, or more."
            )
        came: dict[str, ObjectMeta] = {}
        expected, data = self._listed(key), BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path in sorted(files):
                try:
                    response = obstore.get(self._store, path)
                    content = bytes(response.bytes())
                except FileNotFoundError:
                    raise FileNotFoundError(f"{path} of {self.cite(key)} is gone.") from None
                except (obstore.exceptions.BaseError, OSError) as problem:
                    raise ChannelProblem(f"{path}: {objects.reason(self._root, problem)}.") from None
                if expected is not None and (actual := sha256(content)) != expected[path].lower():
                    raise FileNotFoundError(
                        f"{path} has the sha256 {actual[:12]} in {len(content):,} bytes; its manifest says "
                        f"{expected[path][:12]}. Deliver it again, or its manifest."
                    )
                came[path] = response.meta
                archive.writestr(zipfile.ZipInfo(path, _WRITTEN), content)
        at = max((meta["last_modified"] for meta in came.values()), default=clock.wall())
        return Landed(uri=self.cite(key), data=data.getvalue(), arrived_at_utc=at, mark=_mark(came))

    @cached_property
    def _root(self) -> str:
        if not objects.is_folder(self.root):
            return self.root
        return str((self.site.folder / Path(self.root.removeprefix("file://")).expanduser()).absolute())

    @cached_property
    def _store(self) -> ObjectStore:
        if not objects.is_there(self._root):
            raise ChannelProblem(f"there is no folder {self._root}.")
        return objects.open_store(self._root)

    def _filled(self, text: str, key: str) -> str:
        text = text.replace("{key}", key)
        if "%" not in text:
            return text
        grain: Any = self.site.grain
        if isinstance(grain, BatchGrain):
            raise ChannelProblem(f"the pattern {text!r} has the parts of a date, and batches have none; use {{key}}.")
        return str(grain.instant(key).astimezone(grain.zone).strftime(text))

    def _key(self, path: str, pattern: str) -> str | None:
        """Return the key of a path, None of one that does not match the pattern or is of no key."""
        match = re.fullmatch(_regex(pattern), path)
        if match is None:
            return None
        parts = match.groupdict()
        key = parts.get("key") or "-".join(parts[name] for name in "Ymd") + (f"T{parts['H']}" if "H" in parts else "")
        try:
            return key if self.site.grain.contains(key) else None
        except KeyProblem:
            return None

    def _complete(self, key: str) -> Mapping[str, ObjectMeta] | None:
        """Return a key's files by path; None until they are complete."""
        pattern = self._filled(self.pattern, key)
        there = self._list(pattern.partition("*")[0])  # first, because only a listing tells of a missing bucket
        if self.marker:
            marker = self._filled(self.marker, key)
            if marker not in there and not self._asked(lambda: objects.exists(self._store, marker)):
                return None
            regex = re.compile(_regex(pattern))
            return {path: meta for path, meta in there.items() if regex.fullmatch(path) and path != marker}
        listed = self._listed(key)
        if listed is None or not listed.keys() <= there.keys():
            return None
        return {path: there[path] for path in listed}

    def _listed(self, key: str) -> dict[str, str] | None:
        """Return the sha256 of each file that a key's manifest lists, by path; None without a manifest."""
        if self.manifest is None:
            return None
        path = self._filled(self.manifest, key)
        data = self._asked(lambda: objects.read(self._store, path))
        if data is None:
            return None
        folder = path.rpartition("/")[0]
        try:
            files = json.loads(data)["files"]
            return {f"{folder}/{name}".lstrip("/"): str(digest) for name, digest in files.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            shown = data[:80].decode("utf-8", errors="replace")
            raise ChannelProblem(
                f"the manifest {path} below {self._root} is {shown!r}; expected {_MANIFEST}."
            ) from None

    def _list(self, start: str) -> dict[str, ObjectMeta]:
        """Return the files whose paths begin with a text."""
        import obstore

        folder = start.rpartition("/")[0]
        pages = self._asked(lambda: list(obstore.list(self._store, folder or None)))
        return {str(meta["path"]): meta for page in pages for meta in page if str(meta["path"]).startswith(start)}

    def _asked(self, call: Callable[[], T]) -> T:
        import obstore

        try:
            return call()
        except (obstore.exceptions.BaseError, OSError) as problem:
            raise ChannelProblem(f"{self._root} cannot be read: {objects.reason(self._root, problem)}.") from None


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """Reads the archive that `ObjectPrefix` delivers: the rows of its files, one after another.

    Attributes:
        schema: of the source.
        read: of one file; None for Parquet by its name, and CSV.
        multiline: columns of CSV whose quoted values may have line breaks.
    """

    schema: Callable[[], pa.DataFrameSchema]
    read: Callable[[bytes], pl.DataFrame] | None = None
    multiline: tuple[str, ...] = ()

    def __call__(self, data: bytes) -> pl.DataFrame:
        """Return the rows; a column that some files lack is null there.

        Raises:
            UnreadableFile: a file cannot be read; names it.
        """
        import polars as pl

        from platform_assets.data import landed
        from platform_assets.data.channels.timed_rows import as_moments
        from platform_assets.product.host_assets import rows_of

        frames = []
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for item in archive.infolist():
                is_parquet = item.filename.endswith((".parquet", ".pq"))
                read = self.read or (rows_of if is_parquet else None)
                try:
                    rows = landed.parse(archive.read(item), read, self.multiline)
                except landed.UnreadableFile as problem:
                    raise landed.UnreadableFile(f"{item.filename}: {problem}") from None
                frames.append(as_moments(rows, self.schema(), {}))
        if not frames:
            raise landed.UnreadableFile(
                "the key is complete and has no files; expected at least one, maybe without rows."
            )
        try:
            return pl.concat(frames, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as problem:
            raise landed.UnreadableFile(f"the key's files have columns of different types: {problem}") from None


def _mark(files: Mapping[str, ObjectMeta]) -> str:
    lines = [f"{path} {objects.mark_of(files[path])}" for path in sorted(files)]
    return f"{len(files)} {sha256(canonical(lines))[:24]}"


def _regex(pattern: str) -> str:
    """Return the regular expression of a pattern's paths; a part that comes twice is the same in both."""
    text, at, seen = "", 0, set[str]()
    for token in _TOKEN.finditer(pattern):
        text += re.escape(pattern[at : token.start()])
        name, code = _CODES.get(token[0], ("", "[^/]*"))
        text += code if not name else f"(?P={name})" if name in seen else f"(?P<{name}>{code})"
        seen.add(name)
        at = token.end()
    return text + re.escape(pattern[at:])
