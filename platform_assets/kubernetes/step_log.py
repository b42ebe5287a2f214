"""Forward the lines of a step's pod to the run's log; resume a stream that was cut, and say what could not be read.

A node serves one file of a container's log: it rotates files, and a burst may rotate all of it away. Who follows a log
and is behind when a second file is rotated gets the third one after the first, without a word. A result never depends
on a line.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Self

from platform_assets.base.wording import one_line
from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.manifest import CONTAINER
from platform_assets.kubernetes.pod_status import instant
from platform_assets.kubernetes.responses import ApiTrouble, describe
from platform_assets.launch.attempt import MOST_LINES, Launched

PAUSE_S = 1.0
NOT_STARTED = 400
"""The status for the log of a container that has not started."""
DRAIN_S, LONGEST_DRAIN_S = 10.0, 60.0
"""How long the next line is waited for once the step is over, and all of them."""
SKIP_S, BEHIND_S = 2.5, 1.0
"""Lines of one stream that are so far apart, and came faster than they were written, may have had others in between.
Kubelets look for files to rotate every 3 seconds or less often, so a file that was skipped spans as long."""
BEGINS_S = 30.0
"""After how much of a step its first line is taken for one whose predecessors are gone, where nobody read before."""
OVERLAP = timedelta(seconds=1)
"""A resumed stream begins this long before the newest line: two streams of a process may swap lines by microseconds."""


class StepLog:
    """The log of a step under way, as a context: a thread forwards its lines.

    Args:
        is_new: whether its pod has just been created, not taken over.
    """

    def __init__(self, api: Api, launched: Launched, *, is_new: bool = True) -> None:
        self._api, self._name = api, launched.prepared.name
        self._observation, self._log = launched.observation, launched.log
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._newest: datetime | None = None
        self._stamps = Counter[str]()
        self._reported_after: datetime | None = None
        self._is_whole = False
        self._trouble = "it could not be read yet"
        # By our own clock: until when no line was there, when the stream was opened, when the newest line came.
        self._empty_until_s = time.monotonic() if is_new else None
        self._opened_s = self._came_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        observation, log = self._observation, self._log
        until_s, before = time.monotonic() + LONGEST_DRAIN_S, -1
        while self._thread.is_alive() and observation.lines > before and time.monotonic() < until_s:
            before = observation.lines
            self._thread.join(DRAIN_S)
        if observation.started_at and (self._thread.is_alive() or not self._is_whole):
            since = f"after {_time(self._newest)}" if self._newest else "of the step"
            log.warning(f"lines {since} are missing from this log: {self._trouble}.")
        elif observation.started_at and not observation.lines:
            log.info("the log of the step was empty: it wrote nothing, or its node has rotated all of it away.")
        if observation.lines > MOST_LINES:
            log.info(f"{observation.lines} lines of the step were read.")
        observation.is_over = True

    def _forward(self) -> None:
        while True:
            self._read(follow=True)
            if self._is_over.wait(PAUSE_S):
                break
        until_s = time.monotonic() + DRAIN_S
        while not self._read(follow=False) and time.monotonic() < until_s:
            time.sleep(PAUSE_S)

    def _read(self, *, follow: bool) -> bool:
        """Read a stream to its end; return whether it ended by itself, or there is no log any more."""
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        self._opened_s, is_open = time.monotonic(), False
        try:
            lines = self._api.lines(self._name, CONTAINER, follow=follow, since=self._since())
            is_open = True
            self._add(lines)
        except (client.ApiException, ApiTrouble) as trouble:
            # Not started yet, or gone: the pod's status shows what happened.
            if trouble.status == NOT_STARTED:
                self._empty_until_s = self._opened_s
            self._trouble = f"the API answered {trouble.status} {one_line(trouble.reason or '')}".strip()
            self._is_whole = self._is_whole and trouble.status == 404  # gone after a stream that ended by itself
            return bool(trouble.status == 404)
        except (HTTPError, OSError, ValueError) as trouble:
            self._is_whole = False
            self._trouble = one_line(str(trouble)) if isinstance(trouble, ValueError) else describe(trouble)
            return False
        finally:
            if is_open and self._newest is None:
                self._empty_until_s = time.monotonic()
        self._is_whole = True
        return True

    def _since(self) -> datetime | None:
        return self._newest and self._newest.replace(microsecond=0) - OVERLAP

    def _add(self, lines: Iterator[tuple[str, str]]) -> None:
        """Add the lines that have not been read before."""
        since, past = self._since(), Counter(self._stamps)
        is_resumed = since is None
        is_next = False  # whether a line follows one that this stream has added
        for stamp, line in lines:
            moment = instant(stamp)
            if moment is None:
                raise ValueError(f"a line without a time: {stamp} {line}"[:200])
            # Virtual kubelets send everything from the start.
            is_old = past[stamp] > 0 or (since is not None and moment < since)
            # Too far apart for lines that came faster than they were written.
            apart_s = (moment - self._newest).total_seconds() if self._newest else 0.0
            is_skip = apart_s > SKIP_S and time.monotonic() - self._came_s < apart_s - BEHIND_S
            if not is_old and (not is_resumed or (is_next and is_skip and not self._is_kept())):
                self._report_gap(f"until {_time(moment)} ")
            is_resumed = True
            if is_old:
                past[stamp] -= 1
                continue
            if self._newest is None:
                # This may not be the step's first line: nobody could read for a while before it.
                if self._empty_until_s is not None:
                    is_late = self._opened_s - self._empty_until_s > SKIP_S
                else:
                    started_at = self._observation.started_at
                    is_late = started_at is not None and moment - started_at > timedelta(seconds=BEGINS_S)
                if is_late:
                    self._log.warning(
                        f"lines before {_time(moment)} are missing from this log, if the step wrote any: it was not "
                        "read then, and its node rotates it."
                    )
            is_next, self._came_s = True, time.monotonic()
            if self._newest is None or moment > self._newest:
                before, self._newest = self._since(), moment
                # The stamps of the lines that a resumed stream would begin with, once per second.
                if (oldest := self._since()) and oldest != before:
                    kept = {at: count for at, count in self._stamps.items() if (instant(at) or oldest) >= oldest}
                    self._stamps = Counter(kept)
            self._stamps[stamp] += 1
            self._observation.add_line(line, self._log)
        if not is_resumed:
            self._report_gap("")

    def _is_kept(self) -> bool:
        """Return whether the file that the node serves now has the newest line; then nothing was skipped after it."""
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        try:
            for stamp, _ in self._api.lines(self._name, CONTAINER, follow=False, since=self._since()):
                moment = instant(stamp)
                if moment and self._newest and moment >= self._newest:
                    return moment == self._newest
        except (client.ApiException, ApiTrouble, HTTPError, OSError, ValueError):
            pass  # told as a gap
        return False

    def _report_gap(self, until: str) -> None:
        """Report that a resumed stream did not begin with the newest line: its node does not have that any more."""
        if self._newest and self._reported_after != self._newest:
            self._reported_after = self._newest
            self._log.warning(
                f"lines after {_time(self._newest)} {until}are missing from this log: the step's node had rotated "
                "them away."
            )


def _time(moment: datetime) -> str:
    return moment.time().isoformat(timespec="milliseconds")
