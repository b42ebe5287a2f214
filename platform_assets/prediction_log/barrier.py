"""Find out which service processes a key waits for: the barrier before a key is measured on a cluster.

A key is complete when every process that was alive in it has sent everything beyond its end or said goodbye, or when
the product's patience (`Service.answers_patience`) is over. Who was alive is read from segments.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace as replace_members

from platform_assets.base import clock
from platform_assets.base.problems import RecordExists
from platform_assets.prediction_log.segments import HEAD_BYTES, OVERLAP_MS, pages
from platform_assets.prediction_log.waiting import SILENCE, Process, Span, incomplete, wrong_clocks
from platform_assets.store import segments
from platform_assets.store.objects import open_store
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.prediction_log import ATTENDANCE, KEY_ENDS, Attendance, KeyEnd
from platform_assets.store.segments import CLOCK_LIMIT_S, GOODBYE, SegmentProblem

FIRST_KEY = timedelta(hours=1)
"""The assumed length of a key whose beginning nobody recorded."""
_NEVER = datetime.min.replace(tzinfo=UTC)


class Listener:
    """Lists a product's segments again and again, and keeps what they say about each process.

    Reads one page per look when nothing is new, and the header of the newest segment of each process once.
    """

    def __init__(self, root: str, product: str) -> None:
        """Prepare without reading anything."""
        self._store, self._product = open_store(root), product
        self._lock = threading.Lock()
        self._since_ms = 0
        self._until_ms = -1
        self._newest: dict[str, str] = {}
        self._processes: dict[str, Process] = {}

    def processes(self, since: datetime) -> list[Process]:
        """Return the processes that sent a segment since a moment."""
        import obstore

        since_ms = round(since.timestamp() * 1000)
        with self._lock:
            if self._until_ms < 0 or since_ms < self._since_ms:
                self._since_ms, self._until_ms, self._newest, self._processes = since_ms, since_ms, {}, {}
            for page in pages(self._store, self._product, max(since_ms, self._until_ms - OVERLAP_MS)):
                for item in page:
                    self._until_ms = max(self._until_ms, item.time_ms)
                    if item.name is None:
                        continue
                    name, at = item.name.process, datetime.fromtimestamp(item.time_ms / 1000, UTC)
                    known = self._processes.get(name) or Process(
                        name=name, first=at, last=at, covers_until=_NEVER, has_left=False, clock_offset_s=None
                    )
                    # A folder lists in no order, so an item may be older than the one before.
                    self._processes[name] = replace(known, first=min(known.first, at), last=max(known.last, at))
                    if at >= known.last:
                        self._newest[name] = item.path
            for name, path in self._newest.items():
                # One that cannot be read says nothing; the next one will.
                with contextlib.suppress(SegmentProblem, FileNotFoundError):
                    head = bytes(obstore.get_range(self._store, path, start=0, length=HEAD_BYTES))
                    header = segments.read_header(path, head, self._product)
                    process, offset = self._processes[name], timedelta(seconds=header.clock_offset_s or 0)
                    self._processes[name] = replace(
                        process,
                        covers_until=max(process.covers_until, header.covers_until_utc + offset),
                        has_left=process.has_left or header.kind == GOODBYE,
                        clock_offset_s=header.clock_offset_s,
                        kind=header.kind,
                        release=header.release,
                    )
            self._newest = {}
            self._processes = {name: process for name, process in self._processes.items() if process.last >= since}
            return list(self._processes.values())


_listeners: dict[tuple[str, str], Listener] = {}
_opening = threading.Lock()


def listener(product: ProductStore) -> Listener:
    """Return this process's listener for a product, for ticks that look again and again."""
    root, name = product.settings.root, product.name
    with _opening:
        return _listeners.setdefault((root, name), Listener(root, name))


def look(product: ProductStore, key: str, listener: Listener) -> tuple[Attendance | None, str]:
    """Return what would be recorded if a key were measured now, and a clause: what it waits for, empty for nothing.

    None is recorded while the end of the key is unknown; then the clause says why it is.
    """
    span = span_of(product, key)
    if isinstance(span, str):
        return None, span
    # The wall clock for recordings too: services stamp segments by it, a recording's own clock is replayed.
    now = clock.now(product.settings, product.name, is_live=True)
    processes = [process for process in listener.processes(span.start - SILENCE) if process.is_alive_in(span)]
    missing = incomplete(processes, span)
    first = None if processes else product.history.release(1)
    # Silent: a model was live during all of the key. A recording's releases have its own clock.
    is_silent = first is not None and (not product.spec.is_live or datetime.fromisoformat(first.at_utc) <= span.start)
    attendance = Attendance(
        case="no_answers" if processes else "silent" if is_silent else "unreleased",
        ended_at_utc=span.end.isoformat(),
        processes=len(processes),
        unheard=missing,
        wrong_clocks=wrong_clocks(processes, CLOCK_LIMIT_S),
    )
    until = span.end + product.spec.service.answers_patience
    awaited = ", ".join(missing) if missing else "any process of the service" if is_silent else ""
    if now < span.end:
        return attendance, f"{key} ends at {span.end.isoformat()}"
    if awaited and now < until:
        return attendance, f"{key} waits until {until.isoformat()} for answers of {awaited}"
    return attendance, ""


def reason_to_wait(product: ProductStore, key: str) -> str:
    """Return why a key cannot be measured yet, for a tick; empty if it can. Costs nothing once the patience is over."""
    span = span_of(product, key)
    if isinstance(span, str):
        # Before the first release nobody asks, and a channel of a product's own may not know when a batch arrived.
        return span if not product.spec.is_live and product.history.release(1) is not None else ""
    now = clock.now(product.settings, product.name, is_live=True)
    if now >= span.end + product.spec.service.answers_patience:
        return ""
    return look(product, key, listener(product))[1]


def attend(product: ProductStore, keys: Iterable[str]) -> dict[str, Attendance]:
    """Return what processes sent for the keys that wait for nothing and have no record yet.

    Call it before the answers are ingested: what a process has sent by then is ingested.
    """
    listener = Listener(product.settings.root, product.name)
    unrecorded = [key for key in keys if product.history.attendance(key) is None]
    looks = {key: look(product, key, listener) for key in unrecorded}
    return {key: attendance for key, (attendance, reason) in looks.items() if attendance is not None and not reason}


def record(
    product: ProductStore, attended: Mapping[str, Attendance], answers: Mapping[str, int]
) -> dict[str, Attendance]:
    """Record what processes sent, and return the records of all keys.

    Args:
        attended: from `attend`, before the answers were ingested.
        answers: by key, their number.
    """
    for key, attendance in attended.items():
        # Attendance was taken before the ingestion, when nobody knew yet whether there are answers.
        answered = replace_members(attendance, case="answers") if answers[key] else attendance
        with contextlib.suppress(RecordExists):  # another run was quicker
            product.ledgers.of(ATTENDANCE).create(key, answered)
    # Read again: where another run was quicker, its record counts.
    return {key: recorded for key in answers if (recorded := product.history.attendance(key)) is not None}


def announce_end(product: ProductStore, key: str) -> None:
    """Record that a recording's caller has asked everything about a key."""
    now = clock.now(product.settings, product.name, is_live=True)
    with contextlib.suppress(RecordExists):  # it was announced before
        product.ledgers.of(KEY_ENDS).create(key, KeyEnd(at_utc=now.isoformat()))


def span_of(product: ProductStore, key: str) -> Span | str:
    """Return the time in which a key is answered, by the store's clock, or why its end is unknown.

    That of a recording ends when its caller says so, that of a batch when it has arrived.
    """
    grain, is_live = product.spec.grain, product.spec.is_live
    if is_live and (over := grain.instant_after(key)) is not None:
        return Span(start=grain.instant(key), end=over)
    end_of = _arrived if is_live else _announced
    end = end_of(product, key)
    if end is None:
        return f"batch {key} has not arrived" if is_live else f"its caller has not announced the end of {key}"
    before = end_of(product, grain.shift(key, -1)) if grain.index(key) else None
    return Span(start=end - FIRST_KEY if before is None else before, end=end)


def _announced(product: ProductStore, key: str) -> datetime | None:
    end = product.history.key_end(key)
    return None if end is None else datetime.fromisoformat(end.at_utc)


def _arrived(product: ProductStore, key: str) -> datetime | None:
    sources = (source for source in product.spec.feature_sources if not source.is_slow)
    moments = [product.channels[source.name].arrived_at(key) for source in sources]
    return max((moment for moment in moments if moment is not None), default=None)
