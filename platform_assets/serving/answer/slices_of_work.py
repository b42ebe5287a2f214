"""Work in turns: long work gives the event loop back between slices, short work of one turn is finished together.

Work in slices is a generator: it yields where another request may run, and returns its result. It yields None for a
pause, or what can be finished together with that of other requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from platform_assets.serving.answer.contract import Contract


class Sliced(Protocol):
    """Work whose rows are scored in slices, alone or with that of other requests: `batching.Work`.

    Attributes:
        fresh: places of the rows to score.
        at_once: the most rows of one slice.
    """

    fresh: list[int]
    at_once: int


Work = TypeVar("Work", bound=Sliced)
Result = TypeVar("Result")
Steps = Generator[None, None, Result]
Joining = Generator[Work | None, None, Result]
"""Steps that also yield what they need finished before they go on."""

ROWS_AT_ONCE, IMAGES_AT_ONCE = 16, 4
"""Rows per slice. The costliest rows that a contract allows then take 8 ms of CPU: `make bench ROWS=P12`."""
BYTES_AT_ONCE = 32_768
"""JSON bytes per slice. The slowest to decode, numbers of 20 digits with an exponent, cost 0.2 us per byte."""


class Tick(Generic[Work]):
    """Finish together what the requests of one turn of the event loop bring, at most one slice of rows at a time."""

    def __init__(self, together: Callable[[Sequence[Work]], None]) -> None:
        """Prepare.

        Args:
            together: finishes works; a work's own problem is noted in it, and does not concern the others.

        Attributes:
            is_alone: whether no other request is under way, so that there is nothing to wait for; asked per request.
        """
        self._together = together
        self.is_alone: Callable[[], bool] = lambda: False
        self._waiting: list[tuple[Work, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def join(self, work: Work) -> None:
        """Return when the work is finished, at the end of this turn, or at once for a request that is alone."""
        if not self._waiting and self.is_alone():
            self._together([work])
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._waiting = loop, []
        if not self._waiting:
            # Requests whose bodies arrived in this turn have their tasks in the queue already, before this call.
            loop.call_soon(self._run, loop)
        finished: asyncio.Future[None] = loop.create_future()
        self._waiting.append((work, finished))
        await finished

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Finish a work from the queue, and more while their rows fit into one slice."""
        rows, count = 0, 0
        for work, _ in self._waiting:
            rows += len(work.fresh)
            if count and rows > work.at_once:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        if self._waiting:
            loop.call_soon(self._run, loop)
        problem: BaseException | None = None
        try:
            self._together([work for work, finished in taken if not finished.done()])
        except Exception as bug:  # noqa: BLE001  # each request raises it in its own task
            problem = bug
        for _, finished in taken:
            if finished.done():
                continue  # its caller left
            if problem is None:
                finished.set_result(None)
            else:
                finished.set_exception(problem)


def finish(steps: Joining[Work, Result], together: Callable[[Sequence[Work]], None] | None = None) -> Result:
    """Run all slices without a pause.

    Args:
        together: finishes what the steps yield; None if they yield nothing but pauses.
    """
    while True:
        try:
            work = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        if work is not None:
            assert together is not None
            together([work])


async def take_turns(steps: Joining[Work, Result], others: asyncio.Lock, tick: Tick[Work]) -> Result:
    """Run slices, and give the loop back between two of them.

    Args:
        steps: the work; work that fits into one slice never waits for longer work.
        others: held from the second slice on, so that each turn of the loop runs at most one slice of one list.
        tick: finishes what the steps yield.
    """
    try:
        work = next(steps)
        if work is not None:
            await tick.join(work)
            work = next(steps)
    except StopIteration as end:
        result: Result = end.value
        return result
    async with others:
        while True:
            await (asyncio.sleep(0) if work is None else tick.join(work))
            try:
                work = next(steps)
            except StopIteration as end:
                last: Result = end.value
                return last


def slice_rows(contract: Contract) -> int:
    """Return how many rows of a contract one slice holds."""
    return ROWS_AT_ONCE if contract.image is None else IMAGES_AT_ONCE
