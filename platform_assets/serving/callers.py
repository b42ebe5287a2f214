"""Know who asks, by an API key or by what a trusted proxy says, and limit each caller.

The file of callers is TOML: a table per caller with the sha256 of its keys and its limit. Off without a file and
without a proxy. Each worker counts for itself, so a service of N workers lets through at most N times a limit.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Annotated

import msgspec

from platform_assets.problems import Problem
from platform_assets.serving.requests import Refused

OTHER = "other"
"""The label of callers that the file does not list, and the name of the table with the limit that they share."""
CALLERS_MAX = 1_000
"""How many callers a file may list: each is a label of the metrics."""
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_BEARER = b"bearer "
_KEY_BYTES_MAX = 512
_IDENTITY_MAX = 256
_PREFIX = 8


class CallersProblem(Problem, ValueError):
    """A file of callers, or settings about them, that cannot be used."""


class TurnedAway(Refused):
    """A request that is refused before its body is read.

    Attributes:
        header: of the answer.
        caller: who is over its limit; None for nobody we know.
    """

    def __init__(self, status: int, sentence: str, header: tuple[bytes, bytes], caller: Caller | None = None) -> None:
        super().__init__(status, sentence)
        self.header, self.caller = header, caller


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A caller's table in the file.

    Attributes:
        sha256: of its keys, in hexadecimal digits; two while one replaces the other, none for a caller whom a proxy
            names.
        rows_per_second: what it may ask for in the long run; None for no limit.
        burst_rows: what it may ask for at once; one second's rows by default.
    """

    sha256: tuple[Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")], ...] = ()
    rows_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    burst_rows: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Bucket:
    """A token bucket of rows. A list may overdraw it, and then its caller waits until the debt is paid."""

    def __init__(self, rows_per_second: float, burst_rows: float, now_s: float) -> None:
        self._rate, self._burst = rows_per_second, burst_rows
        self._level, self._at_s = burst_rows, now_s

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait until one row is allowed; 0 if it is now."""
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        return max(0.0, (1.0 - self._level) / self._rate)

    def take(self, rows: int) -> None:
        """Take rows out."""
        self._level -= rows


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: for the log.
        label: for metrics: the name if the file lists it, otherwise `OTHER`.
        bucket: its limit; None without one.
    """

    name: str
    label: str
    bucket: Bucket | None

    def used(self, rows: int) -> None:
        """Take a list's rows after the first out of the bucket: before it was decoded, nobody knew how many."""
        if self.bucket is not None and rows > 1:
            self.bucket.take(rows - 1)


class Callers:
    """The callers of a service.

    Attributes:
        is_open: whether everybody may ask, unnamed: nothing is configured.
        problem: why the file as it is now is not used; the one before it is.
    """

    def __init__(self, file: Path | None = None, header: str | None = None, proxies: Sequence[str] = ()) -> None:
        """Read the file.

        Args:
            file: of callers; None for none.
            header: in which a trusted proxy names the caller.
            proxies: addresses and networks of trusted proxies.

        Raises:
            CallersProblem: the file cannot be used, or header and proxies are not set together.
        """
        if bool(header) != bool(proxies):
            raise CallersProblem(
                f"DRIFTLINE_SERVING_CALLER_HEADER is {header!r} and DRIFTLINE_SERVING_PROXIES is "
                f"{','.join(proxies)!r}; expected both or neither."
            )
        self._file, self._header = file, None if header is None else header.lower().encode()
        self._networks = tuple(ipaddress.ip_network(text) for text in proxies)
        self.is_open = file is None and header is None
        self.problem: str | None = None
        self._mark: tuple[int, int, int] | None = None
        self._listed: dict[str, Caller] = {}
        self._by_prefix: dict[bytes, list[tuple[bytes, Caller]]] = {}
        self._is_proxy = lru_cache(maxsize=1_024)(self._is_in_networks)
        if file is not None:
            self._read(file)

    def check(self) -> None:
        """Read the file again if it changed; one that cannot be used is a `problem` and changes nothing."""
        if self._file is None:
            return
        try:
            if _mark(self._file) != self._mark:
                self._read(self._file)
            self.problem = None
        except CallersProblem as problem:
            self.problem = str(problem)

    def admit(self, fields: Mapping[bytes, bytes], address: str | None) -> Caller | None:
        """Return who asks and take one row out of its bucket; None where everybody may ask.

        Args:
            fields: the request's headers.
            address: of the other end of the connection.

        Raises:
            TurnedAway: (401) nobody we know; (429) over its limit.
        """
        if self.is_open:
            return None
        caller = self._passed_on(fields, address) or self._by_key(fields)
        if caller.bucket is not None:
            wait_s = caller.bucket.wait_s(monotonic())
            if wait_s > 0:
                after = str(math.ceil(wait_s)).encode()
                sentence = f"{caller.name} has reached its limit; ask again in {after.decode()} s."
                raise TurnedAway(429, sentence, (b"retry-after", after), caller)
            caller.bucket.take(1)
        return caller

    def _passed_on(self, fields: Mapping[bytes, bytes], address: str | None) -> Caller | None:
        """Return whom a trusted proxy names; None without one."""
        if self._header is None or address is None or not self._is_proxy(address):
            return None
        value = fields.get(self._header)
        if not value:
            return None
        try:
            name = value.decode()
        except UnicodeDecodeError:
            name = ""
        if not name.isprintable() or not 1 <= len(name) <= _IDENTITY_MAX:
            name_of_header = self._header.decode()
            raise _unknown(
                "the proxy's name for the caller cannot be read",
                f"1 to {_IDENTITY_MAX} printable characters in UTF-8 in the header {name_of_header}",
            )
        other = self._listed.get(OTHER)
        return self._listed.get(name) or Caller(name, OTHER, None if other is None else other.bucket)

    def _by_key(self, fields: Mapping[bytes, bytes]) -> Caller:
        value = fields.get(b"authorization", b"")
        if not value:
            raise _unknown("there is no API key")
        if value[: len(_BEARER)].lower() != _BEARER or len(value) > _KEY_BYTES_MAX:
            raise _unknown("the API key cannot be read")
        digest = hashlib.sha256(value[len(_BEARER) :].strip()).digest()
        # The prefix of a digest tells nothing about a key of 256 random bits; the rest is compared in constant time.
        for expected, caller in self._by_prefix.get(digest[:_PREFIX], ()):
            if hmac.compare_digest(expected, digest):
                return caller
        raise _unknown("the API key is not known")

    def _read(self, file: Path) -> None:
        mark, listed, now_s = _mark(file), _tables(file), monotonic()
        callers = {name: Caller(name, name, _bucket(table, now_s)) for name, table in listed.items()}
        by_prefix: dict[bytes, list[tuple[bytes, Caller]]] = {}
        for name, table in listed.items():
            for text in table.sha256:
                digest = bytes.fromhex(text)
                by_prefix.setdefault(digest[:_PREFIX], []).append((digest, callers[name]))
        self._listed, self._by_prefix, self._mark = callers, by_prefix, mark

    def _is_in_networks(self, address: str) -> bool:
        try:
            place = ipaddress.ip_address(address)
        except ValueError:  # not a TCP connection
            return False
        return any(place in network for network in self._networks)


def _mark(file: Path) -> tuple[int, int, int]:
    try:
        state = file.stat()
    except OSError as problem:
        raise _unreadable(file, problem) from problem
    return state.st_mtime_ns, state.st_size, state.st_ino


def _tables(file: Path) -> dict[str, Listed]:
    """Return the tables of a file of callers by name."""
    try:
        listed = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), dict[str, Listed])
    except OSError as problem:
        raise _unreadable(file, problem) from problem
    except (ValueError, msgspec.ValidationError) as problem:
        raise CallersProblem(f"{file} is not a file of callers: {problem}. Expected {_EXAMPLE}") from problem
    if len(listed) > CALLERS_MAX:
        raise CallersProblem(f"{file} lists {len(listed)} callers; expected at most {CALLERS_MAX}.")
    digests = [text for table in listed.values() for text in table.sha256]
    for name, table in listed.items():
        if not _NAME.fullmatch(name):
            raise CallersProblem(f"{file}: {name!r} is not a caller's name; expected 1 to 64 letters, digits and _.@-.")
        if name == OTHER and table.sha256:
            raise CallersProblem(f"{file}: {OTHER} is for callers that are not listed and has no key.")
        if table.burst_rows is not None and table.rows_per_second is None:
            raise CallersProblem(f"{file}: {name} has burst_rows without rows_per_second.")
    if len(set(digests)) < len(digests):
        raise CallersProblem(f"{file}: a sha256 is listed twice; expected each key once.")
    return listed


def _unreadable(file: Path, problem: OSError) -> CallersProblem:
    return CallersProblem(f"{file} (DRIFTLINE_SERVING_CALLERS) cannot be read: {problem.strerror}.")


def _bucket(table: Listed, now_s: float) -> Bucket | None:
    if table.rows_per_second is None:
        return None
    return Bucket(table.rows_per_second, table.burst_rows or max(1.0, table.rows_per_second), now_s)


def _unknown(reason: str, expected: str = "the header Authorization: Bearer KEY") -> TurnedAway:
    return TurnedAway(401, f"{reason}; expected {expected}.", (b"www-authenticate", b"Bearer"))


_EXAMPLE = 'tables such as [mobile_app] with sha256 = ["..."] and rows_per_second = 50.'
