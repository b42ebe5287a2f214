"""Work in turns: what may take long gives the event loop back between slices.

Belongs here: how large a slice is, and the two ways to carry slices out. Work in slices is a generator: it yields where
another request may go first, and returns its result. Does not belong here: the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

ROWS_AT_ONCE, IMAGES_AT_ONCE = 16, 4
"""Rows of one slice. The costliest rows that a contract allows take 8 ms of CPU then: `make bench ROWS=P12`."""
BYTES_AT_ONCE = 32_768
"""Of JSON in one slice: what a decoder is slowest at, numbers of 20 digits with an exponent, costs 0.2 us per byte."""


def finish(steps: Steps[Result]) -> Result:
    """Carry out all slices without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def take_turns(steps: Steps[Result], others: asyncio.Lock) -> Result:
    """Carry out slices, and give the loop back between two of them.

    Args:
        steps: the work; what fits into one slice never waits.
        others: held from the second slice on, so that in each turn of the loop at most one slice of one list is done.
    """
    try:
        next(steps)
    except StopIteration as end:
        result: Result = end.value
        return result
    async with others:
        while True:
            await asyncio.sleep(0)
            try:
                next(steps)
            except StopIteration as end:
                last: Result = end.value
                return last


def slice_rows(contract: Any) -> int:
    """Return how many rows of a contract one slice holds."""
    return ROWS_AT_ONCE if contract.image is None else IMAGES_AT_ONCE
