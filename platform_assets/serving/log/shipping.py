"""Send the prediction log to the store in segments: closed by size and by time, with a sign of life when idle.

One thread per process decides what is due and sends it. Requests never wait for it: they append to the log, which is
on local disk, and while the store is away the log grows there. See `store/segments.py` for what is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep, thread_time, time

from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.serving.log import outbox
from platform_assets.serving.log.disk_room import DiskRoom
from platform_assets.serving.log.outbox import LostStream, Note, Outbox
from platform_assets.serving.log.prediction_log import PredictionLog, Stream
from platform_assets.serving.log.sender import NameTaken, Sender, StoreAway
from platform_assets.store import segments
from platform_assets.store.segments import ANSWERS, GOODBYE, HEARTBEAT, HELLO, NO_STREAM, Kind, Name

SILENCE_S = 180.0
"""A process that sent nothing for so long counts as gone: three heartbeats, as in `prediction_log.waiting`."""
LOOK_S = 1.0
"""Seconds between two looks at what is due."""
log = logging.getLogger("bentoml.driftline")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """When segments are sent.

    Attributes:
        every_s: an answer waits at most this long.
        bytes_max: of a segment's body; a larger body is sent at once, in parts.
        heartbeat_s: a process that has nothing to send sends a heartbeat this often.
        clock_limit_s: a clock that differs more from the store's is a problem.
        goodbye_s: how long a shutdown tries to send the rest. What it does not send, the next process of its folder
            does, if the folder stays.
    """

    every_s: float
    bytes_max: int
    heartbeat_s: float
    clock_limit_s: float
    goodbye_s: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How shipping is doing.

    Attributes:
        unshipped_s: age of the oldest answer that is not in the store, 0 if all are.
        unshipped_bytes: of all answers that are not in the store.
        clock_offset_s: by how much the store's clock is ahead of ours; None before it was measured.
        cpu_s: CPU seconds spent on shipping.
        requests: calls of the store so far, by operation.
    """

    unshipped_s: float
    unshipped_bytes: int
    clock_offset_s: float | None
    cpu_s: float
    requests: dict[str, int]


class Shipper:
    """Ships the log of one process, and what processes that have ended left in its folder.

    Attributes:
        room: of the volume with the log.
    """

    def __init__(
        self,
        prediction_log: PredictionLog,
        sender: Sender,
        room: DiskRoom,
        terms: Terms,
        *,
        answered_before: Callable[[], datetime],
        release: Callable[[], int | None],
    ) -> None:
        """Prepare; nothing is written or opened yet.

        Args:
            answered_before: returns a moment before which every answer is in the log.
            release: returns the number of the release served now.
        """
        self.room = room
        self._log, self._sender, self._terms = prediction_log, sender, terms
        self._answered_before, self._release = answered_before, release
        self._covered = answered_before()
        # A restarted container counts process ids from 1 again: the mark tells the two processes apart.
        process = f"{prediction_log.server}-{os.getpid()}-{prediction_log.mark}"
        self._own = Outbox(prediction_log.folder, process, prediction_log.streams)
        prediction_log.claim, prediction_log.reserve = self._own.claim, room.reserve
        self._adopted: list[Outbox] = []
        self._has_greeted = self._has_ended = False
        self._sent_s = self._measured_s = float("-inf")
        self._problem: str | None = None
        self._deployments_problem: str | None = None
        self._cpu_s = 0.0
        self._working = threading.Lock()

    @property
    def problem(self) -> str | None:
        """Why answers do not reach the store, what is wrong with our clock, or who else serves the product."""
        offset_s, clock_problem = self._sender.offset_s, None
        if offset_s is not None and abs(offset_s) > self._terms.clock_limit_s:
            side = "behind" if offset_s > 0 else "ahead of"
            clock_problem = (
                f"this machine's clock is {abs(offset_s):g} s {side} the store's; expected at most "
                f"{self._terms.clock_limit_s:g} s. Times of answers are wrong by that: repair the time service of its "
                "node."
            )
        texts = self._problem, clock_problem, self._deployments_problem
        return " ".join(text for text in texts if text) or None

    @property
    def figures(self) -> Figures:
        """How shipping is doing now."""
        streams = [(box, stream) for box in (self._own, *self._adopted) for stream in list(box.streams)]
        return Figures(
            unshipped_s=max((box.waited_s(stream) for box, stream in streams), default=0.0),
            unshipped_bytes=sum(box.pending(stream) for box, stream in streams),
            clock_offset_s=self._sender.offset_s,
            cpu_s=self._cpu_s + self._sender.cpu_s,
            requests=dict(self._sender.requests),
        )

    def look(self) -> None:
        """Send what is due. A problem of the store or the folder is in `problem` afterwards, and nothing is lost."""
        with self._working, self._counted():
            if not self._has_ended:
                self._attempt(self._send_due)

    def close(self) -> None:
        """Send the rest and say goodbye, within the terms' `goodbye_s`; the log gets no further record."""
        try:
            Deadline(self._terms.goodbye_s).run("the goodbye", self._end)
        except Overdue as problem:
            self._state(
                "the last answers were not shipped; the next process of this folder ships them, if the folder stays: "
                f"{problem}"
            )

    def _end(self) -> None:
        """Try again and again: a pod's volume goes with it, and a store that is away may be back before that."""
        until_s = monotonic() + self._terms.goodbye_s
        while True:
            with self._working, self._counted():
                if self._attempt(self._say_goodbye):
                    return
            if monotonic() + LOOK_S > until_s:
                return
            sleep(LOOK_S)

    def _attempt(self, job: Callable[[], None]) -> bool:
        """Return whether it worked; what went wrong is in `problem`."""
        try:
            job()
        except (StoreAway, LostStream) as problem:
            self._state(f"answers are not shipped: {problem}")
        except NameTaken as problem:
            self._state(f"answers are not shipped: {problem} They are shipped again under another name.")
        except OSError as problem:
            self._state(f"answers are not shipped: {self._log.folder} cannot be used: {problem.strerror or problem}.")
        else:
            self._state(None)
            return True
        return False

    def _send_due(self) -> None:
        self._own.claim()
        self._greet()
        self._send_own()
        self._send_left_behind()

    def _send_left_behind(self) -> None:
        """Send what processes that have ended left behind, and their goodbyes."""
        # At each look: answers of a killed process waited for its successor, and were 14 s old where 6 were promised.
        self._adopted += outbox.left_behind(self._log.folder)
        for box in list(self._adopted):
            for stream in list(box.streams):
                # What the process gave before this stream began is in streams before it.
                self._send_stream(box, stream, stream.bytes, (ANSWERS, stream.began_at), monotonic())
            box.tidy()
            self._send_empty(box, GOODBYE, datetime.now(UTC))
            box.close()
            self._adopted.remove(box)

    def _greet(self) -> None:
        """Learn the store's time, which names segments, and say hello."""
        # Names sort by the store's time: a clock an hour ahead would move the platform's cursor past all others.
        if self._sender.offset_s is None:
            self._sender.measure()
            self._measured_s = monotonic()
            self._look_for_others()
        if not self._has_greeted:
            self._send_empty(self._own, HELLO, self._covered)
            self._has_greeted = True

    def _send_own(self, last: Kind = ANSWERS) -> None:
        """Send this process's answers if they are due, otherwise a heartbeat if that is due.

        Args:
            last: the kind of the last segment; a goodbye is always due.
        """
        # In this order: what is in the log now includes every answer that was given before that moment.
        covers, seen_s = self._answered_before(), monotonic()
        ends = [(stream, stream.bytes) for stream in list(self._own.streams) if self._own.pending(stream)]
        is_forced = last == GOODBYE or monotonic() - self._sent_s >= self._terms.heartbeat_s
        is_due = any(
            self._own.waited_s(stream) >= self._terms.every_s or self._own.pending(stream) >= self._terms.bytes_max
            for stream, _ in ends
        )
        if ends and not (is_forced or is_due):
            return
        kind: Kind = ANSWERS
        for stream, end in ends:
            # Only the last segment may say that all answers up to `covers` are in the store.
            closing = (last, covers) if stream is ends[-1][0] else (ANSWERS, self._covered)
            kind = self._send_stream(self._own, stream, end, closing, seen_s)
        if (is_forced and not ends) or kind != last:
            self._send_empty(self._own, HEARTBEAT if last == ANSWERS else last, covers)
        self._covered = covers
        self._own.tidy()

    def _say_goodbye(self) -> None:
        if not self._has_ended:
            self._greet()
            self._send_own(GOODBYE)
            self._own.close()
            self._has_ended = True
        self._send_left_behind()

    def _send_stream(self, box: Outbox, stream: Stream, end: int, last: tuple[Kind, datetime], seen_s: float) -> Kind:
        """Send a stream up to `end`; return the kind of the last segment.

        Args:
            last: kind of the last segment, and the moment that it covers.
            seen_s: monotonic time at which the stream ended there.
        """
        kind: Kind = ANSWERS
        try:
            while (first := box.shipped(stream)) < end:
                # A segment that was under way is sent again under its name, with its lines.
                note = box.noted(stream)
                until, most = (end, self._terms.bytes_max) if note is None else (note.end, note.end - first)
                body = box.read(stream, until, most)
                to = first + len(body)
                name = self._sender.name(box.process, stream.name, first) if note is None else Name.parse(note.path)
                # The platform lists from ten minutes before its newest segment: an older name would not be found.
                if self._sender.is_late(name):
                    name = self._sender.name(box.process, stream.name, first)
                # On the disk before it is sent: the folder's next process sends the same range by the same name.
                box.note(stream, Note(path=name.path, end=to))
                is_whole = note is None and to >= until
                kind, covers = last if is_whole else (ANSWERS, self._covered if box is self._own else stream.began_at)
                self._send(box, name, body, kind, covers, is_last=stream.is_ended and to >= stream.bytes)
                box.settle(stream, to, seen_s if is_whole else None)
        except LostStream:
            box.abandon(stream)
            raise
        return kind

    def _send_empty(self, box: Outbox, kind: Kind, covers: datetime) -> None:
        self._send(box, self._sender.name(box.process, NO_STREAM, 0), b"", kind, covers)

    def _send(
        self, box: Outbox, name: Name, body: bytes, kind: Kind, covers: datetime, *, is_last: bool = False
    ) -> None:
        data = segments.encode(
            name,
            body,
            kind=kind,
            sent_at=datetime.now(UTC),
            covers_until=covers,
            clock_offset_s=self._sender.offset_s,
            release=self._release(),
            is_last_of_stream=is_last,
        )
        try:
            self._sender.send(name, data)
        except NameTaken:
            mark = box.rename()
            if box is self._own:
                self._log.mark, self._has_greeted = mark, False  # nobody knows its new name yet
            raise
        if box is self._own:
            self._sent_s = monotonic()
            if self._sent_s - self._measured_s >= self._terms.heartbeat_s:
                self._sender.measure(name.path)  # what was created just now shows the store's time, for one request
                self._measured_s = monotonic()
                self._look_for_others()

    def _look_for_others(self) -> None:
        """Find out whether another Deployment serves the product; a store that does not list keeps it unknown."""
        with contextlib.suppress(StoreAway):
            processes = self._sender.processes(time() - SILENCE_S) | {self._own.process}
            deployments = {name for process in processes if (name := segments.deployment_of(process)) is not None}
            self._deployments_problem = deployments_problem(self._log.folder.name, deployments)

    def _state(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning("%s: %s", self._log.folder.name, problem or "answers are shipped; no problem left.")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the CPU of this thread."""
        began_s = thread_time()
        try:
            yield
        finally:
            self._cpu_s += thread_time() - began_s


def deployments_problem(product: str, deployments: Collection[str]) -> str | None:
    """Return a sentence if there are several Deployments of a product, which Kubernetes scales and updates apart."""
    if len(deployments) < 2:
        return None
    return (
        f"{product} is served by {len(deployments)} Deployments, {', '.join(sorted(deployments))}: another contract "
        "would be rolled out to one of them; delete the others, or give each a store of its own."
    )
