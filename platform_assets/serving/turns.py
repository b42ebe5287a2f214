"""Work in turns: long work gives the event loop back between slices.

Work in slices is a generator: it yields where another request may run, and returns its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

ROWS_AT_ONCE, IMAGES_AT_ONCE = 16, 4
"""Rows per slice. The costliest rows that a contract allows then take 8 ms of CPU: `make bench ROWS=P12`."""
BYTES_AT_ONCE = 32_768
"""JSON bytes per slice. The slowest to decode, numbers of 20 digits with an exponent, cost 0.2 us per byte."""


def finish(steps: Steps[Result]) -> Result:
    """Run all slices without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def take_turns(steps: Steps[Result], others: asyncio.Lock) -> Result:
    """Run slices, and give the loop back between two of them.

    Args:
        steps: the work; work that fits into one slice never waits.
        others: held from the second slice on, so that each turn of the loop runs at most one slice of one list.
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
