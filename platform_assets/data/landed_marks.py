"""Look for landed files, with a bounded number of requests and in bounded time per tick.

A mark changes when another file replaces a landed one under the same name. `store.landing` finds deliveries.
A look at a product that runs out of time goes on in the next tick: what it has learned is kept until it is complete.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.data import closed_keys, source_calls
from platform_assets.product.channel_sites import ChannelProblem
from platform_assets.product.channels import Channel, Landed
from platform_assets.product.spec import Source
from platform_assets.store.landing import LandedFiles
from platform_assets.store.objects import first_line
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.sources import SLOW_SOURCES, SlowSource, SlowSources

T = TypeVar("T")

KEYS_PER_CALL = 100
SLOW_S = 1.0
"""A source for which one look waits longer is slow: a tick has 5 s for all products."""
LEAST_S = 0.5
"""How long a look may wait for sources at least, even when the tick is over before it begins: each one gets further."""

Question = tuple[str, str, str]
"""Source, key and suffix."""
_KEPT: dict[tuple[str, str, str], dict[Question, str | None]] = {}
"""Marks of looks that are not complete, by sensor, storage root and product."""


@dataclass
class Waited:
    """How long a look waited for one source, and for how many calls."""

    seconds: float = 0.0
    calls: int = 0


class Marks:
    """One look at a product's landed files, for one tick: marks and listings are kept. A `Mark`.

    Attributes:
        problems: by source, why it could not be asked.
        obstacles: what is in the place of a file and is not a file.
        waited: by source.
    """

    def __init__(self, product: ProductStore, until_s: float = math.inf, sensor: str = "") -> None:
        """Start a look, or go on with one of the same sensor that ran out of time.

        Args:
            until_s: of `time.perf_counter`, when the tick must be over.
        """
        self.problems: dict[str, str] = {}
        self.obstacles: list[str] = []
        self.waited: dict[str, Waited] = {}
        self._name = (sensor, product.settings.root, product.name)
        self._product, self._opened = product, product.channels
        self._until_s = max(until_s, time.perf_counter() + LEAST_S)
        self._channels: dict[str, Channel] = {}
        self._marks = _KEPT.pop(self._name, {})

    def __call__(self, source: Source, key: str, suffix: str = "") -> str | None:
        """Return the mark of a landed file, None when there is none.

        Raises:
            source_calls.SourceProblem: the source does not answer, or its own channel failed.
            source_calls.OutOfTime: the tick must go on.
            obstore.exceptions.BaseError, OSError: the store cannot be read.
        """
        question = (source.name, key, suffix)
        if question not in self._marks:
            marks, obstacle = self._ask(source, ("mark", key, suffix), lambda: self._look(source, key, suffix))
            self._marks.update({(source.name, other, suffix): mark for other, mark in marks.items()})
            self.obstacles += [obstacle] if obstacle else []
        return self._marks[question]

    def is_absent(self, source: Source, key: str) -> bool:
        """Tell whether this look asked for a file and found none."""
        return self._marks.get((source.name, key, ""), "") is None

    def fetch(self, source: Source, key: str, *suffixes: str) -> list[Landed]:
        """Return a landed file and those next to it; raises what `__call__` does, and `FileNotFoundError`."""

        def read() -> list[Landed]:
            return [self._channel(source).fetch(key, suffix) for suffix in suffixes]

        return self._ask(source, ("files", key, *suffixes), read)

    def clauses(self, besides: str) -> list[str]:
        """Return what a person should know about the sources, unless another clause says so."""
        clauses = [*(f"{name} {problem}" for name, problem in self.problems.items()), *self.obstacles]
        return [clause for clause in clauses if clause not in besides]

    def note_slow(self, before: Mapping[str, bool], at: datetime, warn: Callable[[str], None]) -> dict[str, bool]:
        """Return which sources are slow, and whether each did not answer at all, once this look is over.

        When that has changed, `driftline status` gets a file that says so.

        Args:
            before: what the look before returned.
            at: the product's moment.
            warn: takes a line when the file cannot be written: it is a hint, and keeps no key open.
        """
        now = {
            name: name in self.problems
            for name, waited in sorted(self.waited.items())
            if waited.seconds >= SLOW_S or name in self.problems
        }
        if now == before:
            return now
        sources = [
            SlowSource(
                source=name,
                problem=self.problems.get(name),
                seconds=round(self.waited[name].seconds, 1),
                calls=self.waited[name].calls,
                at_utc=at.isoformat(),
            )
            for name in now
        ]
        try:
            self._product.ledgers.of(SLOW_SOURCES).overwrite(SLOW_SOURCES.ledger, SlowSources(sources=sources))
        except LedgerProblem as problem:
            warn(f"{problem}")
            return dict(before)
        return now

    def _ask(self, source: Source, question: source_calls.Question, call: Callable[[], T]) -> T:
        waited, began_s = self.waited.setdefault(source.name, Waited()), time.perf_counter()
        try:
            return source_calls.ask(*self._name[1:], source.name, question, call, self._until_s)
        except source_calls.OutOfTime as problem:
            _KEPT[self._name] = self._marks  # the next look goes on where this one stopped
            raise source_calls.OutOfTime(f"{source.name}: {problem}") from None
        except FileNotFoundError:
            raise
        except source_calls.SourceProblem as problem:
            # What the source answered before is kept, so that one that answers late gets further with each tick.
            own = {question: mark for question, mark in self._marks.items() if question[0] == source.name}
            _KEPT.setdefault(self._name, {}).update(own)
            self.problems[source.name] = str(problem)
            raise
        except Exception as error:
            # A channel of a product's own may raise anything, and must not end the look at the other sources.
            if source.channel is None:
                raise
            name = "" if isinstance(error, ChannelProblem) else f"{type(error).__name__}: "
            self.problems[source.name] = f"cannot be asked: {name}{first_line(error)}"
            raise source_calls.SourceProblem(self.problems[source.name]) from error
        finally:
            waited.seconds += time.perf_counter() - began_s
            waited.calls += 1

    def _look(self, source: Source, key: str, suffix: str) -> tuple[Mapping[str, str | None], str | None]:
        channel = self._channel(source)
        if type(channel).marks is not Channel.marks and key != naming.UNPARTITIONED:
            keys = (key, *closed_keys.following(self._product.spec.grain, key, KEYS_PER_CALL - 1))
            marks = channel.marks(keys, suffix)
            return {key: marks.get(key) for key in keys}, None
        mark = channel.probe(key, suffix)
        if mark is None and isinstance(channel, LandedFiles):
            return {key: None}, channel.obstacle(key, suffix)
        return {key: mark}, None

    def _channel(self, source: Source) -> Channel:
        if source.name not in self._channels:
            self._channels[source.name] = self._opened[source.name].for_tick()
        return self._channels[source.name]
