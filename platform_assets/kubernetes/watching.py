"""Watch one pod: the last status of a deleted pod is visible for about a second, less than the pause between two polls.

The pod is read in polls too, because a watch may be silent for other reasons than that nothing happens.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.kubernetes.responses import ApiTrouble

STREAM_S = 60
"""How long a stream lasts; the next one begins after the last known version, so nothing is missed in between."""
PAUSE_S = 1.0
TOO_OLD = 410
LAST_S = 2.0
"""How long the last status of a pod that is gone is waited for."""


class PodWatch:
    """The newest status of a pod, as a context: a thread watches it, through streams that break and expire.

    Args:
        version: of the pod, after which it begins; empty for the pod as it is.

    Attributes:
        newest: None before the first status.
    """

    def __init__(self, api: Api, name: str, version: str = "") -> None:
        self._api = api
        self._name = name
        self._version = version
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._gone = threading.Event()
        self.newest: Pod | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a change."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def last(self) -> Pod | None:
        """Return the last status of a pod that the API does not have any more."""
        if not self._gone.is_set() and self.newest is not None:
            self._gone.wait(LAST_S)
        return self.newest

    def _watch(self) -> None:
        from urllib3.exceptions import HTTPError

        while not self._ended.is_set() and not self._gone.is_set():
            try:
                self._follow()
            except ApiTrouble as trouble:
                if trouble.status == TOO_OLD:
                    self._version = ""
            except (HTTPError, OSError, ValueError):
                pass  # cut, perhaps in the middle of a change: begins again after the last whole one
            self._ended.wait(PAUSE_S)

    def _follow(self) -> None:
        for kind, pod in self._api.changes(self._name, self._version, timeout_s=STREAM_S):
            if self._ended.is_set():
                return
            self._version = pod.version
            if kind == "BOOKMARK" or pod.name != self._name:
                continue
            self.newest = pod
            if kind == "DELETED":
                self._gone.set()
            self._changed.set()
