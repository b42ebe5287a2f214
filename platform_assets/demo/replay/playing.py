"""Play one key after the other: files, requests, labels, the clock, and the wait for what is decided."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from platform_assets.base.problems import Problem
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo.replay.callers import Answer, ask, requests
from platform_assets.demo.replay.deliveries import end_of, land_early, land_late, move_on
from platform_assets.demo.replay.recording import Reader
from platform_assets.demo.replay.waiting import Outcome, wait_for_decision, wait_for_outcome, wait_for_service
from platform_assets.monitoring import policy
from platform_assets.prediction_log import barrier
from platform_assets.serving.run.child import probes_of
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Decision

ANSWERED, REFUSED = 200, 422


class ReplayProblem(Problem, RuntimeError):
    """The service's answer is neither a prediction nor a refusal of the values sent."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Result of the requests of one key.

    Attributes:
        requests, answered, refused: counts; a request is refused (422) when a broken feed gave it broken values.
    """

    requests: int
    answered: int
    refused: int


class Player:
    """Plays the keys of one product, in order, with one service. A context: it builds the next key's requests ahead."""

    def __init__(self, product: ProductStore, address: str, *, check: Callable[[], None]) -> None:
        """Prepare.

        Args:
            product: one with a history, its faults injected; its landing folders and clock are written.
            address: of the service.
            check: called while waiting; raises when waiting has become useless.
        """
        self._product, self._address, self._check = product, address, check
        self._reader = Reader(product.spec)
        self._thread = ThreadPoolExecutor(1, "questions")
        self._built: dict[str, Future[list[RequestDocument]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def prepare(self, key: str) -> None:
        """Start building a key's requests in the background."""
        if key not in self._built:
            self._built[key] = self._thread.submit(self._questions, key)

    def ask(self, key: str, *, on_answer: Callable[[Answer], None] | None = None) -> Requests:
        """Land what was known before the key, and send requests about its entities, each at its moment.

        Args:
            on_answer: called with each answer.

        Raises:
            ReplayProblem: an answer that is neither 200 nor 422.
        """
        self.prepare(key)
        questions = self._built.pop(key).result()
        land_early(self._product, key, self._reader)
        counted = {ANSWERED: 0, REFUSED: 0}
        for answer in ask(self._product, questions, self._address, check=self._check):
            if answer.status not in counted:
                raise ReplayProblem(
                    f"{answer.request['entity']} was answered {answer.status}: {answer.body}; expected {ANSWERED}, or "
                    f"{REFUSED} for broken values. See the service's log."
                )
            counted[answer.status] += 1
            if on_answer is not None:
                on_answer(answer)
        return Requests(requests=len(questions), answered=counted[ANSWERED], refused=counted[REFUSED])

    def close(self, key: str, then: str | None = None) -> tuple[Decision, Outcome | None]:
        """End a key: move the clock to its end, land the rest, and wait for its decision and its result.

        The clock moves first: no run reads the last files of a key before the key is over.

        Args:
            then: the key that is played next; its requests are built meanwhile.
        """
        product = self._product
        if product.settings.environment == "cluster":
            # Segments do not say that the caller of a recording has asked everything, and the key waits for that.
            barrier.announce_end(product, key)
        move_on(product, end_of(product.spec, key, self._reader))
        land_late(product, key, self._reader)
        if then is not None:
            self.prepare(then)
        decision = wait_for_decision(product, key, check=self._check)
        outcome = None
        if decision.action == policy.RETRAIN and decision.cutoff is not None:
            outcome = wait_for_outcome(product, decision.cutoff, check=self._check)
            if outcome.release is not None:
                wait_for_service(probes_of(self._product.settings, self._address), outcome.release, check=self._check)
        return decision, outcome

    def _questions(self, key: str) -> list[RequestDocument]:
        spec = self._product.spec
        grain, lookback = spec.grain, spec.lookback
        self._reader.forget(grain.key_at(max(0, grain.index(key) - lookback - 1)))
        return requests(spec, key, self._reader)
