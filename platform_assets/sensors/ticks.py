"""Shared sensor loop: evaluate every product, keep one typed cursor and one skip reason per product.

One product that cannot be read does not stop the others. A cursor is a hint that saves reading; whatever must not be
lost is a record.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg
import msgspec

from platform_assets.alerts.resource import AlertsResource
from platform_assets.automation.resources import Resources, defaults
from platform_assets.base import clock, naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.engine.store_resource import StoreResource
from platform_assets.monitoring.alert_kinds import Alert
from platform_assets.product.spec import Product
from platform_assets.sensors.late_looks import Context, LateLooks
from platform_assets.sensors.under_way import UnderWay
from platform_assets.store.history.reader import History
from platform_assets.store.objects import first_line
from platform_assets.store.problems import TableProblem
from platform_assets.store.product_store import ProductStore

LOOK_EVERY_S = 0.25
BUDGET_S = 5.0
"""How long one tick may look at products: Dagster evaluates a deployment's sensors in turn and stops one after 60 s."""
LOOKS_AT_ONCE = 32
"""Products that one tick looks at together. They wait: for a cloud's store five times 20 ms each, and for sources."""
_NEXT = ""
"""Name in a cursor of the product with which the next tick begins; no product has it."""

C = TypeVar("C")
S = TypeVar("S", bound=msgspec.Struct)
L = TypeVar("L")
L_contra = TypeVar("L_contra", contravariant=True)


class _NotYet(Exception):
    """A product cannot be looked at yet; the message is the tick's reason."""


@dataclass(frozen=True, kw_only=True)
class Result(Generic[C]):
    """Result of evaluating one product, or all of them.

    Attributes:
        state: what is remembered for the next tick.
        reason: what was done, or why nothing was.
        requests: the runs to launch.
        is_complete: whether the look came to its end; otherwise the next tick goes on with it.
    """

    state: C
    reason: str
    requests: tuple[dg.RunRequest, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One evaluation of a sensor.

    Attributes:
        at_s: its moment by the wall clock, in Unix seconds. Pauses are measured by it, never in ticks.
        until_s: of `time.perf_counter`, when it must be over.
    """

    context: Context
    resources: Resources
    specs: tuple[Product, ...]
    at_s: float
    until_s: float

    @property
    def products(self) -> tuple[str, ...]:
        """The names of the products."""
        return tuple(spec.name for spec in self.specs)

    @property
    def store(self) -> StoreResource:
        """The store."""
        return self.resources.store

    @property
    def alerts(self) -> AlertsResource:
        """The alerts."""
        return self.resources.alerts


@dataclass(frozen=True, kw_only=True)
class ProductTick(Tick):
    """The part of a tick that looks at one product.

    Attributes:
        product: in its store.
        history: the reader of the product's records.
        runs: those under way, of all products.
    """

    spec: Product
    product: ProductStore
    history: History
    runs: UnderWay

    @cached_property
    def now(self) -> datetime:
        """The product's moment.

        Raises:
            _NotYet: the clock of a recording is not set.
        """
        try:
            return self.product.now
        except LookupError as problem:
            raise _NotYet(str(problem)) from None

    def job(self, verb: str) -> str:
        """Return the name of one of the product's jobs."""
        return naming.job(verb, self.spec.name)

    def under_way(self, *verbs: str) -> dg.DagsterRun | None:
        """Return a run of one of the product's jobs that is under way or will be."""
        return self.runs.newest_of([self.job(verb) for verb in verbs])

    def raise_alert(self, alert: Alert) -> None:
        """Raise an alert at the product's moment, once per id."""
        self.alerts.record(self.spec.name, alert, self.now)

    def end_alert(self, alert_id: str) -> bool:
        """Record that an alert's episode is over at the product's moment; return whether there is such an alert."""
        return self.alerts.end(self.spec.name, alert_id, self.now)


class Cursor(Protocol[L_contra]):
    """How a cursor is read before a sensor's function and written after it."""

    def evaluate(self, tick: Tick, look: L_contra) -> dg.SensorResult: ...


@dataclass(frozen=True)
class PerProduct(Generic[S]):
    """A cursor with one state per product. A product that is gone keeps its state."""

    state: type[S]

    def evaluate(self, tick: Tick, look: Callable[[ProductTick, S], Result[S]]) -> dg.SensorResult:
        """Look at each product. One whose store cannot be read keeps its state and does not stop the others.

        A tick that is over before all were looked at leaves the others to the next one, which begins with them.
        """
        # Before a thread imports a part of it: that left a package without content for as long as the server lived.
        import obstore

        problems = (LedgerProblem, TableProblem, OSError, obstore.exceptions.BaseError)
        context = tick.context
        documents = _decoded(context.cursor, dict[str, msgspec.Raw], {})
        # In turn from one product on; from the first on when it is gone.
        following = _decoded(documents.pop(_NEXT, None), dict[str, str], {}).get(_NEXT)
        start = next((place for place, spec in enumerate(tick.specs) if spec.name == following), 0)
        specs = tick.specs[start:] + tick.specs[:start]
        runs = UnderWay(lambda: context.instance)

        def attempt(spec: Product) -> Result[S] | str | None:
            if spec is not specs[0] and time.perf_counter() > tick.until_s:
                return None
            state = _decoded(documents.get(spec.name), self.state, self.state())
            try:
                product = ProductStore(spec, tick.store.settings)
                mine = ProductTick(**vars(tick), spec=spec, product=product, history=product.history, runs=runs)
                return look(mine, state)
            except _NotYet as problem:
                return Result(state=state, reason=str(problem))
            except problems as problem:
                return f"could not be read: {type(problem).__name__}: {first_line(problem)}"

        # Most of a look is waiting for answers of the store.
        with ThreadPoolExecutor(max_workers=min(LOOKS_AT_ONCE, len(specs) or 1)) as pool:
            results = list(map(attempt, specs) if len(specs) < 2 else pool.map(attempt, specs))
        reasons, requests = dict[str, str](), list[dg.RunRequest]()
        unlooked, incomplete = list[str](), list[str]()
        for spec, result in zip(specs, results, strict=True):
            if result is None:
                unlooked.append(spec.name)
                reasons[spec.name] = "is looked at in the next tick; this one was over before"
            elif isinstance(result, str):
                context.log.error(f"{spec.name} {result}")
                reasons[spec.name] = result
            else:
                incomplete += [] if result.is_complete else [spec.name]
                documents[spec.name] = msgspec.Raw(msgspec.json.encode(result.state))
                reasons[spec.name] = result.reason
                requests.extend(result.requests)
        if first := next(iter([*unlooked, *incomplete]), None):
            documents[_NEXT] = msgspec.Raw(msgspec.json.encode({_NEXT: first}))
        cursor = msgspec.json.encode(documents, order="sorted").decode()
        lines = [f"{spec.name}: {reasons[spec.name]}" for spec in tick.specs]
        if requests:
            for line in lines:
                context.log.info(line)
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        return dg.SensorResult(skip_reason="\n".join(lines) or "there are no products", cursor=cursor)


@dataclass(frozen=True)
class Whole(Generic[C]):
    """A cursor with one state for all products, `first` before the first tick. An unchanged state is not rewritten."""

    type: type[C]
    first: C

    def evaluate(self, tick: Tick, look: Callable[[Tick, C], Result[C]]) -> dg.SensorResult:
        """Evaluate all products at once."""
        before = tick.context.cursor
        state = _decoded(before, self.type, self.first)
        result = look(tick, state)
        cursor = before if result.state is state else msgspec.json.encode(result.state).decode()
        return dg.SensorResult(skip_reason=result.reason, cursor=cursor)


NO_CURSOR: Whole[None] = Whole(type(None), None)
"""For a sensor that remembers nothing."""


@dataclass(frozen=True)
class Sensor(Generic[L]):
    """Declares the function that it decorates, `(tick, state) -> Result`, as a sensor for all products.

    Attributes:
        name: of the sensor in Dagster.
        cursor: `PerProduct` or `Whole`, with the type of the state.
        every_s: minimum seconds between two ticks.
        jobs: the verb of the jobs that it launches.
        is_running: whether it runs unless a person stops it.
        is_patient: whether a tick that has no run to launch looks again for `DRIFTLINE_SENSOR_PATIENCE_S`.
        decides: the sensor's description; empty for the first lines of its module.
        look: the function.
    """

    name: str
    cursor: Cursor[L]
    _: KW_ONLY
    every_s: int = 10
    jobs: str | None = None
    is_running: bool = True
    is_patient: bool = False
    decides: str = ""
    look: L | None = None

    def __call__(self, look: L) -> "Sensor[L]":
        """Return the sensor with its function."""
        return replace(self, look=look)

    def build(
        self,
        specs: Iterable[Product],
        jobs: Sequence[Any] = (),
        resources: Resources | None = None,
        *,
        prefix: str = "",
        is_automatic: bool = True,
    ) -> dg.SensorDefinition:
        """Return Dagster's sensor.

        Args:
            jobs: the code location's jobs.
            resources: instead of the defaults.
            prefix: of its name in Dagster, where others have sensors too.
            is_automatic: False: it runs only once a person starts it.
        """
        shared = defaults() if resources is None else resources
        look, products, looks = self.look, tuple(specs), LateLooks()
        assert look is not None  # it decorates one
        names = {naming.job(self.jobs, spec.name) for spec in products} if self.jobs else set[str]()

        def evaluate_all(context: Context) -> dg.SensorResult:
            began_s, at_s = time.perf_counter(), clock.wall().timestamp()
            tick = Tick(context=context, resources=shared, specs=products, at_s=at_s, until_s=began_s + BUDGET_S)
            # The daemon evaluates sensors every 5 seconds, so what happens right after a tick would wait for most of
            # that time. Each look starts with the tick's own cursor, as if it were the only one.
            while not (result := self.cursor.evaluate(tick, look)).run_requests:
                patience_s = shared.store.settings.sensor_patience_s if self.is_patient else 0.0
                if time.perf_counter() - began_s + LOOK_EVERY_S >= patience_s:
                    break
                time.sleep(LOOK_EVERY_S)
            return result

        def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
            # In a host, whose own sensors wait for ours; an instance in memory has no other way to be opened.
            return looks.tick(context, evaluate_all) if prefix and context.instance_ref else evaluate_all(context)

        about = self.decides or (sys.modules[look.__module__].__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        if self.is_running and not is_automatic:
            about += " Stopped until a person starts it, or a component says `automation: true`."
        is_running = self.is_running and is_automatic
        return dg.sensor(
            name=prefix + self.name,
            jobs=[job for job in jobs if job.name in names] if self.jobs else None,
            minimum_interval_seconds=self.every_s,
            default_status=dg.DefaultSensorStatus.RUNNING if is_running else dg.DefaultSensorStatus.STOPPED,
            description=about,
        )(evaluate)


def _decoded(document: str | msgspec.Raw | None, shape: type[C], otherwise: C) -> C:
    """Return what a cursor holds; one of another shape counts as none."""
    try:
        return otherwise if document is None else msgspec.json.decode(document, type=shape)
    except msgspec.DecodeError:
        return otherwise
