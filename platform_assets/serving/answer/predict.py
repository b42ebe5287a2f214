"""Answer a body: decode, score, log, encode. The hot path.

A request that fits into one slice is scored and logged at the end of the event loop's turn, with all others of that
turn: one run of the graph, one write of the log. A longer list is worked off in slices of its own.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from platform_assets.serving.answer import image_files
from platform_assets.serving.answer.answer_records import UNKNOWN, Answer, Origin
from platform_assets.serving.answer.batching import Unanswered, Work, score_together
from platform_assets.serving.answer.idempotency import Answers, keyed_id
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.requests import Refused
from platform_assets.serving.answer.slices_of_work import Joining, Steps, Tick, finish
from platform_assets.serving.follow.model_faults import ModelFaults
from platform_assets.serving.log.prediction_log import LogProblem, PredictionLog

MARGIN = timedelta(seconds=1)
"""A request has its time a moment before it is known to be under way."""


class Predictor:
    """Answers bodies with a live model.

    Attributes:
        tick: finishes the requests of one turn of the event loop together.
        faults: what speaks against the model.
    """

    def __init__(self, log: PredictionLog, faults: ModelFaults | None = None) -> None:
        self.log = log
        self.faults = ModelFaults() if faults is None else faults
        self.tick = Tick(self.finish)
        self._answers = Answers()
        self._encoder = msgspec.json.Encoder()
        self._id_prefix = secrets.token_hex(10)
        self._count = itertools.count(1)
        self._underway: dict[int, datetime] = {}
        self._requests = itertools.count(1)

    def answered_before(self) -> datetime:
        """Return a moment before which every answer is in the log, by our clock; for another thread."""
        # Read in this order: a request that begins between the two calls does so after `now`.
        now = datetime.now(UTC) - MARGIN
        return min([now, *list(self._underway.values())])

    def answer(
        self, live: Live | None, body: bytes | bytearray, started_s: float, query: bytes | None = None
    ) -> tuple[int, bytes, int]:
        """Answer a body without pauses; see `steps`."""
        return finish(self.steps(live, body, started_s, query), self.finish)

    def steps(
        self,
        live: Live | None,
        body: bytes | bytearray,
        started_s: float,
        query: bytes | None = None,
        origin: Origin = UNKNOWN,
    ) -> Joining[Work, tuple[int, bytes, int]]:
        """Return (status, JSON bytes, rows answered) for a body; the records are in the log before this returns.

        Works in slices. One model answers all rows, whatever is swapped meanwhile. Yields the work of a request that
        fits into one slice, which must have been finished by `finish` before the next step.

        Args:
            live: the model to answer with; None gives 503.
            body: as received.
            started_s: `perf_counter()` when the body had arrived.
            query: the URL's query string if the body is an image file, None if it is JSON.
            origin: of the request, for its records.
        """
        number = next(self._requests)
        try:
            if live is None:
                raise Refused(503, "no model is loaded yet; /readyz on the port of probes says why.")
            now = datetime.now(UTC)
            self._underway[number] = now
            if query is None:
                request = yield from live.model.decoding.steps(body, now)
            else:
                request = image_files.decode(live.model.contract, body, query, now)
            work = Work(live, request.rows, request.is_list, started_s, origin)
            firsts = yield from self._begin(work)
            if len(work.fresh) <= work.at_once:
                yield work
            else:
                yield from work.score()
                yield from work.build()
                self._log([work])
            if work.refused is not None:
                raise work.refused
            # A key that is repeated within the list has the answer of its first row.
            results = work.results
            answers = [
                results[place] if place in results else results[firsts[row.key or ""]]
                for place, row in enumerate(work.rows)
            ]
        except Refused as refused:
            if live is not None and isinstance(refused, Unanswered):
                self.faults.count(live)
            return refused.status, refused.body, 0
        finally:
            self._underway.pop(number, None)
        return 200, self._encoder.encode(answers if request.is_list else answers[0]), len(answers)

    def finish(self, works: Sequence[Work]) -> None:
        """Score works by one run of the graph, and log them by one write; a refused work concerns no other."""
        score_together(works)
        for work in works:
            if work.refused is None:
                try:
                    finish(work.build())
                except Refused as refused:
                    work.refused = refused
        self._log(works)

    def _begin(self, work: Work) -> Steps[dict[str, int]]:
        """Give every row its id, and find the rows to score; return the first place of each key."""
        firsts: dict[str, int] = {}
        for place, row in enumerate(work.rows):
            if place and place % work.at_once == 0:
                yield
            key = row.key
            if key is None:
                work.ids.append(f"{self._id_prefix}{next(self._count):012x}")
                work.fresh.append(place)
                continue
            work.ids.append(keyed_id(row, work.caller))
            first = self._first_answer(work, place)
            if first is not None:
                work.results[place] = first
            elif firsts.setdefault(key, place) == place:
                work.fresh.append(place)
            elif work.ids[firsts[key]] != work.ids[place]:
                path = work.path(place, "idempotency_key")
                raise Refused(422, f"{path} appears in this list with another request; expected a new key.", path)
        return firsts

    def _log(self, works: Sequence[Work]) -> None:
        """Log what was built, by one write, and remember its keys; note in a work why it is refused.

        Nothing here yields, so no other request with one of these keys comes between the last look and the log.
        """
        new = [(work, place) for work in works if work.refused is None for place in self._settle(work)]
        if not new:
            return
        try:
            self.log.append(self._encoder.encode_lines([work.records[place] for work, place in new]))
        except LogProblem as problem:
            for work, place in new:
                self._answers.forget(work.rows[work.fresh[place]].key, work.caller)
            for work in works:
                if work.fresh and work.refused is None:
                    work.refused = Refused(503, f"the prediction could not be logged, so it is not returned: {problem}")

    def _settle(self, work: Work) -> list[int]:
        """Complete a work's results and remember its keys; return the positions in `fresh` of answers to log."""
        try:
            firsts = [self._first_answer(work, place) for place in work.fresh]
        except Refused as refused:
            work.refused = refused
            return []
        new = []
        for position, (place, first) in enumerate(zip(work.fresh, firsts, strict=True)):
            work.results[place] = first or work.answers[position]
            if first is None:
                new.append(position)
                if key := work.rows[place].key:
                    self._answers.add(key, work.answers[position], work.caller)
        return new

    def _first_answer(self, work: Work, place: int) -> Answer | None:
        """Return the first answer of a row's key, or None; raise `Refused` if the key was used for another request."""
        key = work.rows[place].key
        if not key:
            return None
        return self._answers.find(key, work.ids[place], work.path(place, "idempotency_key"), work.caller)
