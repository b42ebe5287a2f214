"""Call sources from a tick, and wait no longer than the tick may: a source may hang, be slow or fail.

A call runs in a thread of its own, because nothing can stop it. Each source has one at a time: while it hangs, no other
begins and no tick waits for it again. A result that came too late answers the same question of a later tick.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from platform_assets.base.problems import Problem
from platform_assets.base.wording import counted

T = TypeVar("T")
Question = tuple[str, ...]

# A key whose source hangs stays open, also after its deadline: a run would hang as well.
# One call that hung, or 800 of 75 ms, once held up the ticks of all products.
WAIT_S = 3.0
"""How long ticks wait for one call."""
KEPT, KEPT_S = 4, 600.0
"""How many late results of a source are kept, and for how long; a call that takes longer is given up."""


class SourceProblem(Problem):
    """A source did not answer or failed; the message continues the source's name."""


class Unanswered(SourceProblem):
    """It has not answered in `WAIT_S`, and goes on."""


class OutOfTime(Problem):
    """A tick has no time left for this product."""


@dataclass
class _Call:
    question: Question
    begun_s: float
    is_over: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class Line:
    """Calls that are made one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: _Call | None = None
        self._late: dict[Question, _Call] = {}

    def ask(self, question: Question, function: Callable[[], T], until_s: float, wait_s: float | None = None) -> T:
        """Call a function, or take the late result of its question; see `ask`. None waits for `WAIT_S`."""
        wait_s = WAIT_S if wait_s is None else wait_s
        while True:
            with self._lock:
                call = self._late.pop(question, None)
                if call is not None and time.perf_counter() - call.begun_s < KEPT_S:
                    break
                if self._call is not None and time.perf_counter() - self._call.begun_s > KEPT_S:
                    self._call = None
                if (call := self._call) is None:
                    call = self._call = _Call(question, time.perf_counter())
                    # A daemon, so that a process ends although a source hangs.
                    threading.Thread(target=self._work, args=(call, function), name="source", daemon=True).start()
            limit_s = min(until_s, call.begun_s + wait_s)
            if not call.is_over.wait(max(0.0, limit_s - time.perf_counter())):
                waited_s = time.perf_counter() - call.begun_s
                if waited_s < wait_s:
                    raise OutOfTime(f"waited {waited_s:.1f} s for it in this tick")
                raise Unanswered(f"has not answered for {counted(round(waited_s), 'second')}")
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def _work(self, call: _Call, function: Callable[[], Any]) -> None:
        try:
            call.result = function()
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the tick
            call.error = error
        with self._lock:
            self._late[call.question] = call
            while len(self._late) > KEPT:
                del self._late[next(iter(self._late))]
            if self._call is call:
                self._call = None
        call.is_over.set()


_LINES: dict[tuple[str, str, str], Line] = {}
_LOCK = threading.Lock()


def ask(root: str, product: str, source: str, question: Question, function: Callable[[], T], until_s: float) -> T:
    """Return what a call of a source returns, or raise what it raises.

    Args:
        root: the storage root of the product.
        question: names the call; a late result answers a later call of the same name.
        until_s: of `time.perf_counter`, when the tick must go on.

    Raises:
        Unanswered: a call of this source has not returned in `WAIT_S`; it goes on.
        OutOfTime: the tick must go on before that.
    """
    with _LOCK:
        line = _LINES.setdefault((root, product, source), Line())
    return line.ask(question, function, until_s)
