"""Define what can be replayed of a recording: its deliveries, and faults to inject into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from platform_assets.base import kinds
from platform_assets.base.problems import Problem


class RecordingMissing(Problem, ValueError):
    """A recording that is missing on this machine; the message says how to get it."""


Deliver = Callable[[str, str], bytes | None]
"""`(source name, key) -> bytes` of the landed file, or None when the source delivers nothing."""


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """One way in which an upstream system breaks, for demos and tests.

    Attributes:
        name: as in `dead_delay_feed`.
        description: one clause that says what was injected; shown at the end of a demo.
        source: the source that breaks, which an alert must name.
        check: the hard check that must name it.
        deliver: `(the sound deliveries, source, key) -> the broken file`; other sources pass through.
    """

    name: str
    description: str
    source: str
    check: str
    deliver: Callable[[Deliver, str, str], bytes | None]

    def __post_init__(self) -> None:
        kinds.check(self, "FaultKind.")


@dataclass(frozen=True, kw_only=True)
class History:
    """A recording, replayed as its upstream systems would have delivered it.

    Attributes:
        deliver: `(source name, key) -> bytes` of the landed file, or None when that source delivers nothing. The key
            of a slow source is `naming.UNPARTITIONED`.
        demo_first: first key that a demo lands before the first training.
        demo_last: last key that a demo lands before the first training; the cutoff is the key after it.
        demo_until: last key that a demo replays afterwards; None ends it after the first one.
        faults: ways to break deliveries; a demo draws one, and its keys, by seed.
    """

    deliver: Deliver
    demo_first: str
    demo_last: str
    demo_until: str | None = None
    faults: tuple[FaultKind, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.deliver):
            raise ValueError(f"History.deliver is {self.deliver!r}; expected a function.")
        kinds.check(self, "History.", FaultKind=FaultKind)
