"""Remember in the log's folder what a process has shipped, and find what processes that have ended left behind.

Next to the streams of a process lie the file `{process}.process`, locked while the process lives, and per stream
`{stream}.shipped` (how many of its bytes are in the store) and `{stream}.shipping` (the segment under way). Losing one
of the latter two sends some answers twice, which the platform counts once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, time

import msgspec

from platform_assets.base import private_folders
from platform_assets.base.problems import Problem
from platform_assets.serving.log.prediction_log import SUFFIX, Stream
from platform_assets.store import durable, segments

PROCESS, SHIPPED, SHIPPING = ".process", ".shipped", ".shipping"


class LostStream(Problem):
    """A stream that somebody removed or changed before it was shipped."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `{stream}.shipping`: the segment under way.

    Attributes:
        path: of the segment, below the storage root.
        end: where its body ends in the stream.
    """

    path: str
    end: int


class Outbox:
    """The streams of one process, and how far each has been shipped.

    Attributes:
        process: its name.
        streams: those that are not shipped completely, oldest first.
    """

    def __init__(self, folder: Path, process: str, streams: list[Stream], lock: int | None = None) -> None:
        """Take over the streams.

        Args:
            lock: descriptor of the process's file, locked; None until `claim`.
        """
        self.process, self.streams = process, streams
        self._folder, self._lock = folder, lock
        self._claiming = threading.Lock()  # the log's first record and the thread that ships both claim
        self._shipped: dict[str, int] = {}
        self._since_s: dict[str, float] = {}
        self._notes: dict[str, Note] = {}
        for stream in streams:  # of a process that has ended: how far it had shipped them
            mark = stream.path.with_suffix(SHIPPED)
            # The first answer that is not in the store is at most as old as its file and as the last segment.
            since_s = stream.began_at.timestamp()
            try:
                shipped = int(mark.read_bytes())
                if 0 < shipped <= stream.bytes:
                    self._shipped[stream.name], since_s = shipped, mark.stat().st_mtime
            except (OSError, ValueError):
                pass  # nothing of it was shipped, or some of it is shipped again
            self._since_s[stream.name] = monotonic() - max(0.0, time() - since_s)
            try:
                note = msgspec.json.decode(stream.path.with_suffix(SHIPPING).read_bytes(), type=Note)
                if segments.Name.parse(note.path).first == self.shipped(stream) < note.end <= stream.bytes:
                    self._notes[stream.name] = note
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError, segments.SegmentProblem):
                pass  # no segment was under way, or the disk was full

    def claim(self) -> None:
        """Create the process's file unless there is one.

        Raises:
            OSError: the folder cannot be written.
        """
        with self._claiming:
            if self._lock is None:
                self._lock = _acquire(self._folder, self.process)

    def shipped(self, stream: Stream) -> int:
        """Return how many bytes of a stream are in the store."""
        return self._shipped.get(stream.name, 0)

    def pending(self, stream: Stream) -> int:
        """Return how many bytes of a stream are not in the store; notices the first such byte."""
        pending = stream.bytes - self.shipped(stream)
        if pending:
            self._since_s.setdefault(stream.name, monotonic())
        else:
            self._since_s.pop(stream.name, None)
        return pending

    def waited_s(self, stream: Stream) -> float:
        """Return for how long a stream has had bytes that are not in the store, 0 if it has none."""
        now_s = monotonic()
        # Another thread may settle the stream between the two.
        return now_s - min(now_s, self._since_s.get(stream.name, now_s)) if self.pending(stream) else 0.0

    def read(self, stream: Stream, end: int, most: int) -> bytes:
        """Return the next whole lines up to `end`, at most `most` bytes unless the first line is longer.

        Raises:
            LostStream: the file is gone or shorter than what was written.
        """
        start = self.shipped(stream)
        with contextlib.suppress(FileNotFoundError), stream.path.open("rb") as file:
            file.seek(start)
            data = file.read(min(most, end - start))
            whole = data.rfind(b"\n") + 1
            if not whole:
                data += file.read(min(segments.BODY_BYTES_MAX, end - start) - len(data))
                whole = data.find(b"\n") + 1
            if whole:
                return data[:whole]
        raise LostStream(
            f"{stream.path} was removed or changed before bytes {start} to {end} of it were shipped; they are lost."
        )

    def note(self, stream: Stream, note: Note) -> None:
        """Remember the segment under way, on disk; a full disk does not stop shipping."""
        self._notes[stream.name] = note
        with contextlib.suppress(OSError):
            durable.replace(stream.path.with_suffix(SHIPPING), msgspec.json.encode(note))

    def noted(self, stream: Stream) -> Note | None:
        """Return the segment that was under way, also of a process that has ended; None if it is settled."""
        return self._notes.get(stream.name)

    def settle(self, stream: Stream, end: int, seen_s: float | None = None) -> None:
        """Remember that a segment is in the store.

        Args:
            end: where it ends in the stream.
            seen_s: monotonic time at which the stream ended there: what is not shipped came later; None if there was
                more of it.
        """
        self._shipped[stream.name] = end
        self._notes.pop(stream.name, None)
        if stream.bytes <= end:
            self._since_s.pop(stream.name, None)
        elif seen_s is not None:
            self._since_s[stream.name] = seen_s
        # On a full disk the range is sent again, and counts once.
        with contextlib.suppress(OSError):
            # In this order: a kill in between leaves a note that is ignored, as it begins where nothing is to be sent.
            durable.replace(stream.path.with_suffix(SHIPPED), str(end).encode())
            stream.path.with_suffix(SHIPPING).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the streams that have ended and are in the store."""
        for stream in [stream for stream in self.streams if stream.is_ended and not self.pending(stream)]:
            self._remove_files(stream, stream.path)
            self.abandon(stream)

    def abandon(self, stream: Stream) -> None:
        """Leave a stream where it is: a later process of this folder ships what is in it."""
        stream.is_ended = True
        self.streams.remove(stream)
        self._forget(stream)

    def rename(self) -> str:
        """Give the process and its streams new names, under which everything is shipped again; return the new mark."""
        mark = secrets.token_hex(4)
        process = f"{self.process.rpartition('-')[0]}-{mark}"
        lock = _acquire(self._folder, process)
        self.close()
        self.process, self._lock = process, lock
        for stream in list(self.streams):
            self._forget(stream)
            path = stream.path.with_name(f"{'-'.join(stream.name.split('-')[:2])}-{mark}{SUFFIX}")
            stream.path.rename(path)
            self._remove_files(stream)  # by its old name, which `stream.path` still has
            stream.path = path
        return mark

    def close(self) -> None:
        """Remove the process's file, because nothing is left to ship, and unlock it."""
        # Removed before it is unlocked, or others would take this process for one that left something.
        (self._folder / f"{self.process}{PROCESS}").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _forget(self, stream: Stream) -> None:
        self._shipped.pop(stream.name, None)
        self._since_s.pop(stream.name, None)
        self._notes.pop(stream.name, None)

    def _remove_files(self, stream: Stream, *more: Path) -> None:
        marks = (path for suffix in (SHIPPED, SHIPPING) for path in self._folder.glob(f"{stream.name}{suffix}*"))
        for path in (*more, *marks):
            path.unlink(missing_ok=True)


def left_behind(folder: Path) -> Iterator[Outbox]:
    """Yield an outbox per process of this folder that has ended and that nobody has taken over.

    Removes what processes that were killed while they removed a stream left of it.
    """
    for suffix in (SHIPPED, SHIPPING):
        for path in folder.glob(f"*{suffix}*"):  # with those that durable.replace was writing
            if not path.with_suffix(SUFFIX).exists():
                path.unlink(missing_ok=True)
    by_process: dict[str, list[Stream]] = {
        path.stem: [] for path in folder.glob(f"*{PROCESS}") if segments.is_process(path.stem)
    }
    for path in sorted(folder.glob(f"*{SUFFIX}")):  # names begin with their time: the oldest first
        if segments.is_stream(path.stem):
            end = path.stem[path.stem.index("-") :]  # the files of processes know their hosts too
            process = next((name for name in by_process if name.endswith(end)), f"{socket.gethostname()}{end}")
            by_process.setdefault(process, []).append(Stream(path, is_ended=True))
    for process, streams in by_process.items():
        lock = _take_over(folder, process, streams)
        if lock is not None:
            for stream in streams:
                stream.bytes = _whole_lines(stream.path)
            yield Outbox(folder, process, streams, lock)


def _acquire(folder: Path, process: str) -> int:
    """Create a process's file and return its descriptor, locked.

    The file gets its name after the lock, so that nobody takes a living process for one that has ended.

    Raises:
        FileExistsError: the process has a file.
    """
    private_folders.make_folder(folder)
    path = folder / f"{process}{PROCESS}"
    temporary = path.with_suffix(f".{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, private_folders.FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.link(temporary, path)  # fails where the process has a file; a rename would replace it
    except OSError:
        os.close(descriptor)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return descriptor


def _take_over(folder: Path, process: str, streams: list[Stream]) -> int | None:
    """Lock the file of a process that has ended, and return its descriptor; None if it lives, or others have it.

    Args:
        streams: what was listed of it.
    """
    path = folder / f"{process}{PROCESS}"
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return _take_over_streams(folder, process, streams)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():  # its process may have removed it between our open and our lock
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _take_over_streams(folder: Path, process: str, streams: list[Stream]) -> int | None:
    """Create the file of a process that has none, and return its descriptor; None if there is nothing to take over.

    Streams that were abandoned have no process's file. Others had one when they were listed: another process has taken
    them over since, shipped them and said goodbye, unless it was killed on the way.
    """
    if not streams:
        return None
    try:
        descriptor = _acquire(folder, process)
    except FileExistsError:
        return None
    if any(stream.path.exists() for stream in streams):
        return descriptor
    (folder / f"{process}{PROCESS}").unlink()
    os.close(descriptor)
    return None


def _whole_lines(path: Path) -> int:
    """Return the length of a file up to its last line end: what follows was not answered."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65_536)
                file.seek(start)
                place = file.read(end - start).rfind(b"\n")
                if place >= 0:
                    return start + place + 1
                end = start
    except FileNotFoundError:
        return 0
    return 0
