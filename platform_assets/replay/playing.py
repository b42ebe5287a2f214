"""Play one key after the other: files, questions, outcomes, the clock, and the wait for what is decided.

Belongs here: the order of things within a key. Does not belong here: showing it, or judging it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from platform_assets.compute import policy
from platform_assets.handle import Product
from platform_assets.problems import Problem
from platform_assets.product.contract import RequestDocument
from platform_assets.records.decisions import Decision
from platform_assets.replay.callers import Answer, Reader, ask, requests
from platform_assets.replay.deliveries import end_of, land_early, land_late, move_on
from platform_assets.replay.waiting import Outcome, wait_for_decision, wait_for_outcome, wait_for_service

ANSWERED, REFUSED = 200, 422
Told = Callable[[str, int, int], None]
"""`(what goes on, how much of it is done, of how much)`, for whoever shows it."""


class ReplayProblem(Problem, RuntimeError):
    """The service answered with what is neither an answer nor a refusal of the values asked with."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of the questions of one key.

    Attributes:
        requests, answered, refused: how many; a question is refused (422) when a broken feed gave it broken values.
        latency_s: of each, in order.
        first: the first answer.
    """

    requests: int
    answered: int
    refused: int
    latency_s: tuple[float, ...]
    first: Answer | None


@dataclass(frozen=True, kw_only=True)
class Played:
    """One key from its first file to its decision.

    Attributes:
        asked: None when the questions had been asked before.
        decision: the record.
        outcome: of the training, when that was decided.
    """

    key: str
    asked: Asked | None
    decision: Decision
    outcome: Outcome | None


class Player:
    """Plays the keys of one product, in order, at one service. A context: it builds the next key's questions ahead."""

    def __init__(
        self,
        product: Product,
        address: str,
        *,
        check: Callable[[], None],
        told: Told | None = None,
    ) -> None:
        """Prepare.

        Args:
            product: one with a history, its faults injected; its landing places and clock are written.
            address: of the service.
            check: called while waiting; raises when that has become useless.
            told: is told what goes on.
        """
        self._product, self._address, self._check = product, address, check
        self._told = told
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
        """Begin to build a key's questions, beside whatever else goes on."""
        if key not in self._built:
            self._built[key] = self._thread.submit(self._questions, key)

    def ask(self, key: str, *, heard: Callable[[Answer], None] | None = None) -> Asked:
        """Land what was known before the key, and ask about its entities, each at its moment.

        Args:
            heard: is given each answer.

        Raises:
            ReplayProblem: an answer that is neither 200 nor 422.
        """
        self.prepare(key)
        questions = self._built.pop(key).result()
        land_early(self._product, key, self._reader)
        counted = {ANSWERED: 0, REFUSED: 0}
        latency_s = []
        first = None
        for answer in ask(self._product, questions, self._address, check=self._check):
            if answer.status not in counted:
                raise ReplayProblem(f"{answer.request['entity']} was answered {answer.status}: {answer.body}")
            counted[answer.status] += 1
            latency_s.append(answer.latency_s)
            if first is None and answer.status == ANSWERED:
                first = answer
            self._tell(f"{key}: asking", len(latency_s), len(questions))
            if heard is not None:
                heard(answer)
        return Asked(
            requests=len(questions),
            answered=counted[ANSWERED],
            refused=counted[REFUSED],
            latency_s=tuple(latency_s),
            first=first,
        )

    def close(self, key: str, then: str | None = None) -> tuple[Decision, Outcome | None]:
        """End a key: move the clock to its end, land the rest, and wait for its decision and what comes of it.

        The clock moves first: nobody sees the last files of a key while it is not over.

        Args:
            then: the key that is played next; its questions are built meanwhile.
        """
        product = self._product
        move_on(product, end_of(product.spec, key, self._reader))
        land_late(product, key, self._reader)
        if then is not None:
            self.prepare(then)
        self._tell(f"{key}: waiting for its decision", 0, 1)
        decision = wait_for_decision(product, key, check=self._check)
        outcome = None
        if decision.action == policy.RETRAIN and decision.cutoff is not None:
            self._tell(f"{key}: training for cutoff {decision.cutoff}", 0, 1)
            outcome = wait_for_outcome(product, decision.cutoff, check=self._check)
            if outcome.release is not None:
                wait_for_service(self._address, outcome.release, check=self._check)
        return decision, outcome

    def play(self, key: str, then: str | None = None, *, is_asked: bool = False) -> Played:
        """Ask about a key and close it; see `ask` and `close`.

        Args:
            is_asked: its questions were asked before.
        """
        asked = None if is_asked else self.ask(key)
        decision, outcome = self.close(key, then)
        return Played(key=key, asked=asked, decision=decision, outcome=outcome)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._told is not None:
            self._told(what, done, total)

    def _questions(self, key: str) -> list[RequestDocument]:
        spec = self._product.spec
        grain, lookback = spec.grain, spec.lookback
        self._reader.forget(grain.key_at(max(0, grain.index(key) - lookback - 1)))
        return requests(spec, key, self._reader)
