"""Answer a body: decode, score, log, encode. The hot path, in slices between which other requests may run."""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from platform_assets.serving import files
from platform_assets.serving.follow import Live
from platform_assets.serving.idempotency import Answers, keyed_id
from platform_assets.serving.model import Model
from platform_assets.serving.prediction_log import LogProblem, PredictionLog
from platform_assets.serving.records import UNKNOWN, Answer, Origin, Record
from platform_assets.serving.requests import Refused, Row
from platform_assets.serving.sealed import ModelProblem
from platform_assets.serving.turns import Steps, finish, slice_rows

MARGIN = timedelta(seconds=1)
"""A request has its time a moment before it is known to be under way."""


class Predictor:
    """Answers bodies with a live model."""

    def __init__(self, log: PredictionLog, answers: Answers | None = None) -> None:
        self.log = log
        self._answers = Answers() if answers is None else answers
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
        return finish(self.steps(live, body, started_s, query))

    def steps(
        self,
        live: Live | None,
        body: bytes | bytearray,
        started_s: float,
        query: bytes | None = None,
        origin: Origin = UNKNOWN,
    ) -> Steps[tuple[int, bytes, int]]:
        """Return (status, JSON bytes, rows answered) for a body; the records are in the log before this returns.

        Works in slices; a single row is one slice. One model answers all rows, whatever is swapped meanwhile.

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
                raise Refused(503, "no model is loaded yet; see /readyz.")
            contract, now = live.model.contract, datetime.now(UTC)
            self._underway[number] = now
            if query is None:
                request = yield from contract.decoding.steps(body, now)
            else:
                request = files.decode(contract, body, query, now)
            answers = yield from self._answer_rows(live, request.rows, request.is_list, started_s, origin)
        except Refused as refused:
            return refused.status, refused.body, 0
        finally:
            self._underway.pop(number, None)
        return 200, self._encoder.encode(answers if request.is_list else answers[0]), len(answers)

    def _answer_rows(
        self, live: Live, rows: list[Row[Any]], is_list: bool, started_s: float, origin: Origin
    ) -> Steps[list[Answer]]:
        caller = origin[0]
        results: dict[int, Answer] = {}
        firsts: dict[str, int] = {}
        fresh: list[int] = []
        ids: list[str] = []
        at_once = slice_rows(live.model.contract)
        for index, row in enumerate(rows):
            if index and index % at_once == 0:
                yield
            key = row.key
            ids.append(keyed_id(row, caller) if key else f"{self._id_prefix}{next(self._count):012x}")
            first = self._first_answer(rows, ids, index, is_list, caller)
            if first is not None:
                results[index] = first
            elif key is None or firsts.setdefault(key, index) == index:
                fresh.append(index)
            elif ids[firsts[key]] != ids[index]:
                path = _path(index, is_list, "idempotency_key")
                raise Refused(422, f"{path} appears in this list with another request; expected a new key.", path)
        answers, lines = yield from self._score(live, rows, ids, fresh, is_list, started_s, origin)
        # From here on nothing yields: a key is looked up again, logged and stored in one turn of the loop.
        logged = bytearray()
        for index, answer, line in zip(fresh, answers, lines, strict=True):
            first = self._first_answer(rows, ids, index, is_list, caller)
            results[index] = answer if first is None else first
            if first is None:
                logged += line
        if logged:
            try:
                self.log.append(logged)
            except LogProblem as problem:
                raise Refused(503, f"the prediction could not be logged, so it is not returned: {problem}") from problem
        for index in fresh:
            if key := rows[index].key:
                self._answers.add(key, results[index], caller)
        return [
            results[index] if index in results else results[firsts[rows[index].key or ""]] for index in range(len(rows))
        ]

    def _first_answer(
        self, rows: list[Row[Any]], ids: list[str], index: int, is_list: bool, caller: str | None
    ) -> Answer | None:
        """Return the first answer of a row's key, or None; raise `Refused` if the key was used for another request."""
        key = rows[index].key
        if not key:
            return None
        return self._answers.find(key, ids[index], _path(index, is_list, "idempotency_key"), caller)

    def _score(
        self,
        live: Live,
        rows: list[Row[Any]],
        ids: list[str],
        fresh: list[int],
        is_list: bool,
        started_s: float,
        origin: Origin,
    ) -> Steps[tuple[list[Answer], list[bytes]]]:
        """Score the rows at the indices `fresh`; return the answer and the log line of each.

        Raises:
            Refused: (503) the model fails.
        """
        answers, lines, outputs, at_once = [], [], [], slice_rows(live.model.contract)
        for start in range(0, len(fresh), at_once):
            if start:
                yield
            outputs += _run_graph(
                live.model, [rows[index] for index in fresh[start : start + at_once]], fresh, start, is_list
            )
        now = datetime.now(UTC)
        latency_us = int((perf_counter() - started_s) * 1e6)
        for count, (index, output) in enumerate(zip(fresh, outputs, strict=True)):
            if count and count % at_once == 0:
                yield
            answer, record = _build(live, rows[index], ids[index], now, latency_us, output, origin)
            answers.append(answer)
            lines.append(self._encoder.encode(record) + b"\n")
        return answers, lines


def _build(
    live: Live, row: Row[Any], prediction_id: str, now: datetime, latency_us: int, output: Any, origin: Origin
) -> tuple[Answer, Record]:
    """Return a row's answer and record; raise `Refused` (503) for an invalid output."""
    contract, digest = live.model.contract, live.model.digest
    if not contract.task.is_sound(output):
        raise Refused(
            503, f"model {digest} gave no valid {contract.task.kind} answer for {row.entity!r}; nothing was answered."
        )
    head = (prediction_id, digest, live.release, row.entity, row.service_time, row.asked_at, row.key, now, latency_us)
    return contract.task.build(head, output, row.features if contract.logs_features else None, origin)


def _run_graph(model: Model, rows: list[Row[Any]], fresh: list[int], start: int, is_list: bool) -> list[Any]:
    """Return the graph's output for the rows of one slice, which begins at `fresh[start]`.

    Raises:
        Refused: (422) a category did not occur in training; (503) the model fails.
    """
    contract = model.contract
    values = [msgspec.structs.astuple(row.features) for row in rows]
    width = len(contract.numeric)
    numeric = np.array([value[:width] for value in values], dtype=np.float32)
    end = width + len(contract.categorical)
    texts = [["" if text is None else text for text in value[width:end]] for value in values]
    if model.vocabularies:
        _check_vocabularies(model.vocabularies, contract.categorical, texts, fresh[start:], is_list)
    categorical = np.array(texts, dtype=object)
    image = None
    if contract.image is not None:
        grey = b"".join([value[end] for value in values])
        image = np.frombuffer(grey, np.uint8).reshape(len(values), *contract.image.sized)
    try:
        outputs: list[Any] = model.predict(numeric, categorical, image).tolist()
    except ModelProblem as problem:
        raise Refused(503, f"{problem}; nothing was answered.") from problem
    return outputs


def _check_vocabularies(
    vocabularies: dict[int, frozenset[str]], fields: Any, texts: list[list[str]], indices: list[int], is_list: bool
) -> None:
    for index, row in zip(indices, texts, strict=False):
        for column, vocabulary in vocabularies.items():
            if row[column] and row[column] not in vocabulary:
                path = _path(index, is_list, f"features.{fields[column].name}")
                raise Refused(
                    422, f"{path} is {row[column]!r}, which did not occur in training; expected a value that did.", path
                )


def _path(index: int, is_list: bool, name: str) -> str:
    return f"[{index}].{name}" if is_list else name
