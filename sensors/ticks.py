"""Do what every tick of a sensor for all products does: a cursor a product, a reason a product, one result.

Belongs here: the cursor's shape, and going on with the others when one product cannot be looked at. Does not belong
here: what any sensor looks for. A cursor is a hint that saves reading; whatever must not be lost is a record.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from platform_assets.problems import LedgerProblem
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.objects import first_line
from platform_assets.storage.problems import TableProblem

State = dict[str, Any]
"""What a sensor remembers of one product; JSON values."""


LOOK_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a sensor found out about one product in one tick.

    Attributes:
        state: what it remembers for the next tick.
        reason: what it did, or why it did nothing.
        requests: the runs it asks for.
    """

    state: State
    reason: str
    requests: tuple[dg.RunRequest, ...] = ()


def evaluate(
    context: dg.SensorEvaluationContext, specs: Iterable[ProductSpec], look: Callable[[ProductSpec, State], Seen]
) -> dg.SensorResult:
    """Look at each product and return the tick's result.

    A product whose store cannot be read keeps its state, says so, and does not hold up the others.

    Args:
        context: of the tick.
        specs: the products.
        look: `(product, its state) -> Seen`; a state is empty on the first tick.
    """
    states = read_cursor(context.cursor)
    problems = _store_problems()
    reasons: list[str] = []
    requests: list[dg.RunRequest] = []
    for spec in specs:
        try:
            seen = look(spec, dict(states.get(spec.name, {})))
        except problems as problem:
            told = f"could not be looked at: {type(problem).__name__}: {first_line(problem)}"
            context.log.error(f"{spec.name} {told}")
            reasons.append(f"{spec.name}: {told}")
            continue
        states[spec.name] = seen.state
        reasons.append(f"{spec.name}: {seen.reason}")
        requests.extend(seen.requests)
    cursor = json.dumps(states, sort_keys=True)
    if requests:
        for reason in reasons:
            context.log.info(reason)
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    return dg.SensorResult(skip_reason="\n".join(reasons) or "there are no products", cursor=cursor)


def patiently(look: Callable[[], dg.SensorResult], patience_s: float) -> dg.SensorResult:
    """Look again and again until there is a run to ask for or patience is over; return what was found last.

    The daemon evaluates sensors every 5 seconds, so what happens right after a tick would wait for most of that. Each
    look begins with the tick's own cursor, as if it were the only one.
    """
    began_s = time.perf_counter()
    while not (result := look()).run_requests and time.perf_counter() - began_s + LOOK_EVERY_S < patience_s:
        time.sleep(LOOK_EVERY_S)
    return result


def read_cursor(cursor: str | None) -> dict[str, State]:
    """Return what a cursor says of each product; a cursor of another shape says nothing."""
    try:
        read = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return {name: state for name, state in read.items() if isinstance(state, dict)} if isinstance(read, dict) else {}


def _store_problems() -> tuple[type[Exception], ...]:
    import obstore

    return (LedgerProblem, TableProblem, OSError, obstore.exceptions.BaseError)
