"""Keep the models of several products in one process within a limit of memory: the least recently used one goes first.

A model that was dropped is loaded again when it is asked for, once for all who wait for it. One that answers is dropped
only after the answer. All bookkeeping happens in the event loop; graphs are loaded in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from platform_assets.base.problems import Problem
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.requests import Refused
from platform_assets.serving.follow.freed_memory import trim
from platform_assets.training.sealed import ModelProblem

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

    from platform_assets.serving.answer.live import Live

LOAD_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
Result = TypeVar("Result")
log = logging.getLogger("bentoml.driftline")


class TooLarge(ModelProblem):
    """A model that alone needs more memory than all models together may have."""


class Follows(Protocol):
    """What says which model answers now: a `Follower`."""

    live: Live | None


class Shelved(Model):
    """A model whose graph can be dropped and loaded again; digest, contract and vocabularies stay."""

    def __init__(self, model: Model) -> None:
        self.digest, self.contract, self.vocabularies = model.digest, model.contract, model.vocabularies
        self._model: Model | None = model

    def predict(
        self,
        numeric: NDArray[np.float32],
        categorical: NDArray[Any],
        image: NDArray[np.uint8] | None = None,
        options: onnxruntime.RunOptions | None = None,
    ) -> NDArray[np.float32]:
        """Return the answer to each row; see `Model.predict`. The caller holds the model."""
        assert self._model is not None, self.digest
        return self._model.predict(numeric, categorical, image, options)

    def drop(self) -> None:
        """Drop the graph."""
        self._model = None

    def put(self, model: Model) -> None:
        """Take the graph of the same bundle, loaded again."""
        assert model.digest == self.digest, (model.digest, self.digest)
        self._model = model


class Place:
    """The place of one model.

    Attributes:
        name: under which requests ask for the model.
        size: bytes of memory that its graph takes.
        again: loads its bundle; runs in a thread.
        state: of the graph; `leaving`: nobody new uses it.
        users: requests that use the graph.
        waiting: requests that wait for it to be loaded.
        is_retired: whether another model answers under the name by now.
    """

    def __init__(self, name: str, model: Shelved, size: int, again: Callable[[], Model]) -> None:
        self.name, self.model, self.size, self.again = name, model, size, again
        self.state: Literal["in", "leaving", "out", "loading"] = "in"
        self.users = self.waiting = 0
        self.is_retired = False
        self.task: asyncio.Task[None] | None = None


class _Retired(Problem):
    """Whoever waited for this model asks the one that took its name."""


class Shelf:
    """The models of a process.

    Attributes:
        bytes_max: the limit.
        used: bytes of the models that are loaded or being loaded.
    """

    def __init__(self, bytes_max: int, wait_s: float, names: int) -> None:
        """Prepare; `start` comes before the first model.

        Args:
            bytes_max: of memory for all models.
            wait_s: how long a request waits for its model.
            names: how many models are served, of which all may be loading at the same time.
        """
        self.bytes_max, self.used = bytes_max, 0
        self._wait_s = wait_s
        self._places: dict[Model, Place] = {}  # the least recently used first
        self._threads = ThreadPoolExecutor(names, "load")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._making_room, self._changed = asyncio.Lock(), asyncio.Event()
        self.registry = CollectorRegistry()
        Gauge("driftline_models_limit_bytes", "Memory that models may take.", registry=self.registry).set(bytes_max)
        self._bytes = Gauge("driftline_models_bytes", "Memory that models take.", registry=self.registry)
        self._loaded = Gauge("driftline_model_loaded", "1 while a model is loaded.", ["name"], registry=self.registry)
        self._drops = Counter(
            "driftline_model_drops", "How often a model was dropped for another.", ["name"], registry=self.registry
        )
        self._seconds = Histogram(
            "driftline_model_load_seconds",
            "Time to load a model again.",
            ["name"],
            registry=self.registry,
            buckets=LOAD_BUCKETS_S,
        )

    def start(self) -> None:
        """Take the running event loop."""
        self._loop = asyncio.get_running_loop()

    def loads(self, name: str) -> int:
        """Return how often the model of a name was loaded again."""
        return int(self.registry.get_sample_value("driftline_model_load_seconds_count", {"name": name}) or 0)

    def check(self, digest: str, size: int) -> None:
        """Raise `TooLarge` if a model needs more than the limit alone."""
        if size > self.bytes_max:
            raise TooLarge(
                f"bundle {digest} takes {size / 2**20:.1f} MB of memory, and all models together may take "
                f"{self.bytes_max / 2**20:.1f}: raise --memory-mb, or serve the product alone."
            )

    def add(self, name: str, size: int, load: Callable[[], Model], again: Callable[[], Model]) -> Model:
        """Make room, load a model, and keep it; called in another thread than the loop's.

        Args:
            size: bytes of memory that the model takes.
            load: returns the model.
            again: the same, after the model was dropped.

        Raises:
            TooLarge: it does not fit.
            Problem: what `load` raises.
        """
        self._in_loop(self._reserve(size))
        try:
            model = Shelved(load())
        except BaseException:
            self._in_loop(self._release(size))
            raise
        self._in_loop(self._enter(Place(name, model, size, again)))
        return model

    def remove(self, model: Model) -> None:
        """Forget a model that no request asks for any more, after its last answer; called in another thread."""
        self._in_loop(self._retire(model))

    async def hold(self, follower: Follows) -> tuple[Place, Live]:
        """Return the model that answers, loaded; it stays so until `leave`.

        Raises:
            Refused: (503) there is none, or it was not loaded in time, or cannot be.
        """
        deadline = perf_counter() + self._wait_s
        while True:
            live = follower.live
            if live is None:
                raise Refused(503, "no model is loaded yet; /readyz on the port of probes says why.")
            place = self._places[live.model]
            if place.state == "in":
                place.users += 1
                self._places[live.model] = self._places.pop(live.model)
                return place, live
            try:
                await self._wait_for(place, deadline - perf_counter())
            except _Retired:
                continue
            return place, live

    def leave(self, place: Place) -> None:
        """End what `hold` began."""
        place.users -= 1
        if place.users == 0 and place.state == "leaving":
            self._changed.set()

    async def _wait_for(self, place: Place, seconds: float) -> None:
        """Wait until a model is loaded; its loader counts all who wait as users at once."""
        if place.task is None:
            place.task = asyncio.get_running_loop().create_task(self._bring(place))
            place.task.add_done_callback(asyncio.Task.exception)  # all who waited may have left
        task = place.task
        place.waiting += 1
        try:
            await asyncio.wait_for(asyncio.shield(task), max(0.0, seconds))
        except (Exception, asyncio.CancelledError) as problem:
            if not task.done():
                place.waiting -= 1
            elif task.exception() is None:
                self.leave(place)
            if isinstance(problem, _Retired | asyncio.CancelledError):
                raise
            if isinstance(problem, TimeoutError):
                raise Refused(503, f"the model was not loaded within {self._wait_s:g} s; ask again.") from None
            log.warning("%s cannot be loaded again: %s", place.name, problem)
            raise Refused(503, "the model was dropped from memory and cannot be loaded again.") from problem

    async def _bring(self, place: Place) -> None:
        """Load a model again."""
        begin_s, is_reserved = perf_counter(), False
        try:
            async with self._making_room:
                if place.is_retired:
                    raise _Retired(place.name)
                await self._make_room(place.size)
                is_reserved, place.state = True, "loading"
            model = await asyncio.get_running_loop().run_in_executor(self._threads, place.again)
        except BaseException:
            place.state, place.waiting = "out", 0
            if is_reserved:
                self._give_back(place.size)
            raise
        else:
            place.model.put(model)
            place.state, place.users, place.waiting = "in", place.waiting, 0
            self._places[place.model] = self._places.pop(place.model)
            self._seconds.labels(place.name).observe(perf_counter() - begin_s)
            self._loaded.labels(place.name).set(1)
        finally:
            place.task = None
            self._changed.set()

    async def _make_room(self, size: int) -> None:
        """Count a model's bytes, after others were dropped for it. The caller holds the lock."""
        while self.used + size > self.bytes_max:
            oldest = next((place for place in self._places.values() if place.state == "in"), None)
            if oldest is None:
                await self._change()  # others are being loaded
                continue
            await self._drop(oldest)
            self._drops.labels(oldest.name).inc()
        self.used += size
        self._bytes.set(self.used)

    async def _drop(self, place: Place) -> None:
        place.state = "leaving"
        while place.users:
            await self._change()
        place.model.drop()
        place.state = "out"
        self._loaded.labels(place.name).set(0)
        trim()
        self._give_back(place.size)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _give_back(self, size: int) -> None:
        self.used -= size
        self._bytes.set(self.used)
        self._changed.set()

    async def _reserve(self, size: int) -> None:
        async with self._making_room:
            await self._make_room(size)

    async def _release(self, size: int) -> None:
        self._give_back(size)

    async def _enter(self, place: Place) -> None:
        self._places[place.model] = place
        self._loaded.labels(place.name).set(1)
        for counts in (self._drops, self._seconds):
            counts.labels(place.name)  # at zero from the start
        self._changed.set()

    async def _retire(self, model: Model) -> None:
        place = self._places[model]
        place.is_retired = True
        async with self._making_room:
            while place.state == "loading":
                await self._change()
            if place.state == "in":
                await self._drop(place)
            del self._places[model]

    def _in_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None, "start was not called"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
