"""Create segments in the store, and measure the store's clock.

Every call has a deadline: a store that hangs keeps nobody waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from time import thread_time, time
from typing import TypeVar

from obstore.store import ObjectStore

from platform_assets.base.problems import Problem
from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.store import objects, segments
from platform_assets.store.segments import Name, SegmentProblem

REPEAT_S = segments.LATEST_S / 2
"""How long one name is tried; a try that was abandoned ends within as long again."""
PATIENCE = timedelta(seconds=5)
"""How long the store's client retries a request."""
CLOCK = "prediction_log_clock"
"""Folder of one small object per product, written to learn the store's time before anything is named by it."""
_NOT_IMPLEMENTED = "501 Not Implemented"

Result = TypeVar("Result")


class NameTaken(Problem):
    """Another process created a segment under a name of ours."""


class StoreAway(Problem):
    """The store cannot be used; the message says why."""


class Sender:
    """Sends segments of one product.

    Attributes:
        offset_s: seconds by which the store's clock is ahead of ours; None before it was measured.
        requests: calls of the store, by operation.
        cpu_s: CPU seconds spent in them, without the threads of the store's client.
    """

    def __init__(self, root: str, product: str, deadline_s: float) -> None:
        """Prepare; nothing is opened yet.

        Args:
            root: the storage root; never created.
            deadline_s: for each call of the store.
        """
        self.offset_s: float | None = None
        self.requests: Counter[str] = Counter(dict.fromkeys(("put", "head", "list", "get"), 0))
        self.cpu_s = 0.0
        self._named_ms = 0
        self._root, self._product = root, product
        self._deadline = Deadline(deadline_s)
        self._store: ObjectStore | None = None

    def name(self, process: str, stream: str, first: int) -> Name:
        """Return the name of a segment that is sent now, by the store's clock; no two are of one millisecond."""
        assert self.offset_s is not None, "measure first"
        shipped_ms, last_ms = int((time() + self.offset_s) * 1000), self._named_ms
        self._named_ms = shipped_ms = last_ms + 1 if last_ms - 1000 < shipped_ms <= last_ms else shipped_ms
        return Name(product=self._product, shipped_ms=shipped_ms, process=process, stream=stream, first=first)

    def is_late(self, name: Name) -> bool:
        """Tell whether a name is too old, or too new after a jump of our clock, to be used for a segment sent now."""
        return abs(time() + (self.offset_s or 0.0) - name.shipped_ms / 1000) > REPEAT_S

    def send(self, name: Name, data: bytes) -> None:
        """Create a segment; one that exists with the same body is done.

        Raises:
            NameTaken: another one exists.
            StoreAway: the store cannot be written.
        """
        if self._run("put", lambda store: objects.create(store, name.path, data)):
            return
        # Ours, if the answer to its creation was lost; otherwise that of a process with our name.
        existing = self._run("get", lambda store: objects.read(store, name.path))
        ours = segments.decode(name.path, data, self._product)
        try:
            if existing is not None and segments.decode(name.path, existing, self._product).body == ours.body:
                return
        except SegmentProblem as problem:
            raise NameTaken(f"a segment's name is taken: {problem}") from None
        raise NameTaken(f"{name.path} exists with other content: another process has our name.")

    def measure(self, path: str | None = None) -> None:
        """Measure the store's clock; raises like `send`.

        Args:
            path: of an object that was created just now; None writes a small one.
        """
        began_s = time()
        if path is None:
            path = f"{CLOCK}/{self._product}/now"
            self._run("put", lambda store: objects.replace(store, f"{CLOCK}/{self._product}/now", b"\n"))
        modified = self._run("head", lambda store: objects.modified(store, path))
        if modified is not None:
            # S3 cuts off fractions of a second.
            self.offset_s = round(modified.timestamp() + 0.5 - (began_s + time()) / 2, 1)

    def processes(self, since_s: float) -> set[str]:
        """Return the names of the processes that have sent a segment since a moment; raises like `send`.

        Args:
            since_s: seconds since 1970, by our clock.
        """
        import obstore

        after = segments.start_after(self._product, int((since_s + (self.offset_s or 0.0)) * 1000))

        def paths(store: ObjectStore) -> list[str]:
            pages = obstore.list(store, f"{segments.folder(self._product)}/", offset=after)
            return [item["path"] for page in pages for item in page]

        listed = self._run("list", paths)
        return {process for path in listed if (process := segments.process_of(path)) is not None}

    def _run(self, operation: str, job: Callable[[ObjectStore], Result]) -> Result:
        import obstore

        def counted() -> Result:
            began_s = thread_time()
            try:
                if not objects.is_there(self._root):  # opening a store makes its folder, also of a mistyped root
                    raise FileNotFoundError("the folder does not exist; check DRIFTLINE_ROOT, or create it")
                if self._store is None:
                    self._store = objects.open_store(self._root, patience=PATIENCE)
                return job(self._store)
            finally:
                self.cpu_s += thread_time() - began_s

        self.requests[operation] += 1
        try:
            return self._deadline.run(f"{operation} of a segment", counted)
        except Overdue as problem:
            raise StoreAway(f"{self._root} cannot be used: {problem}") from problem
        except (obstore.exceptions.BaseError, OSError) as problem:
            reason = objects.reason(self._root, problem)
            if _NOT_IMPLEMENTED in str(problem):
                reason = (
                    "the store does not support creating an object only if it is absent, which segments need "
                    f"({reason})"
                )
            raise StoreAway(f"{self._root} cannot be used: {reason}.") from problem
