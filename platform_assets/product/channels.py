"""Define `Channel`, the access to a source's deliveries. Imports nothing heavy, because a spec may hold one."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Landed:
    """One delivery as the upstream system wrote it.

    Attributes:
        uri: where it was read.
        data: its bytes.
        arrived_at_utc: when it arrived, by the clock of the storage.
        mark: changes whenever the delivery changes; a delivery with the same mark is not fetched again.
    """

    uri: str
    data: bytes
    arrived_at_utc: datetime
    mark: str


class Channel:
    """Access to the deliveries of one source.

    A new kind of source is a subclass with `probe`, `fetch`, `cite` and `keys`, which a product sets as
    `Source.channel`. `companion` is a suffix for the marker or manifest of a landed file; other channels leave it
    empty.

    A channel's class, by its code, and its fields, by their values, are part of the version of `raw`: with another
    query the rows of earlier keys are older. A dataclass states its fields; otherwise every attribute is one, except
    cached properties.

    Attributes:
        PLACES: fields that say where the data is and who reads it, such as an address or a user. They count by name
            only, as do fields that a dataclass leaves out of its `repr`, such as a password.
    """

    PLACES: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """Return the fields that determine what is delivered, with their values; None for those that count by name."""
        channel: Any = self  # whether it is a dataclass is up to the subclass
        declared = {item.name: item.repr for item in fields(channel)} if is_dataclass(channel) else {}
        cached = {
            name for kind in type(self).__mro__ for name in vars(kind) if isinstance(vars(kind)[name], cached_property)
        }
        names = declared or [name for name in vars(self) if name not in cached]
        hidden = {*self.PLACES, *(name for name, is_in_repr in declared.items() if not is_in_repr)}
        return {name: None if name in hidden else getattr(self, name) for name in names}

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's delivery without reading it, or None without a delivery."""
        raise NotImplementedError

    def marks(self, keys: Sequence[str], companion: str = "") -> Mapping[str, str | None]:
        """Return the marks of several keys' deliveries; None, or no entry, for a key without one.

        Sensors ask for up to 100 keys, in order. Override it where one request answers for all of them; a channel that
        does not is asked key by key, and no further than needed.
        """
        return {key: self.probe(key, companion) for key in keys}

    def arrived_at(self, key: str) -> datetime | None:
        """Return when a key's delivery arrived, by the clock of the storage; None if that is unknown."""
        return None

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's delivery, with bytes as `Source.read` takes them.

        Raises:
            FileNotFoundError: there is none; the message says where it was expected.
        """
        raise NotImplementedError

    def cite(self, key: str | None = None) -> str:
        """Return the location of a key's delivery, or of all keys' deliveries, for messages."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Return the keys with a delivery; may include names that are not keys."""
        raise NotImplementedError

    def deliver(self, key: str, data: bytes) -> bool:
        """Deliver data for a key instead of the upstream system, for replays; return whether it is new."""
        raise NotImplementedError(f"{self.cite(key)} cannot be replayed; a recording needs sources of landed files.")

    def for_tick(self) -> Channel:
        """Return a channel for one sensor tick, whose probes may share requests."""
        return self
