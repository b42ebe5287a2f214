"""Answer a body: decode, score, log, encode. The hot path, in slices between which other requests may go first.

Belongs here: everything between the bytes of a request and the bytes of its answer. Does not belong here: HTTP
(`middleware`), which model is live (`follow`).
"""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from platform_assets.serving import files
from platform_assets.serving.follow import Live
from platform_assets.serving.idempotency import Answers, keyed_id
from platform_assets.serving.model import Model, ModelProblem
from platform_assets.serving.prediction_log import LogProblem, PredictionLog
from platform_assets.serving.records import Answer, Record
from platform_assets.serving.requests import Refused, Row
from platform_assets.serving.turns import Steps, finish, slice_rows


class Predictor:
    """Answers bodies with the live model it is given."""

    def __init__(self, log: PredictionLog, answers: Answers | None = None) -> None:
        self.log = log
        self._answers = Answers() if answers is None else answers
        self._encoder = msgspec.json.Encoder()
        self._id_prefix = secrets.token_hex(10)
        self._count = itertools.count(1)

    def answer(
        self, live: Live | None, body: bytes | bytearray, started_s: float, query: bytes | None = None
    ) -> tuple[int, bytes, int]:
        """Answer a body without a pause; see `steps`."""
        return finish(self.steps(live, body, started_s, query))

    def steps(
        self, live: Live | None, body: bytes | bytearray, started_s: float, query: bytes | None = None
    ) -> Steps[tuple[int, bytes, int]]:
        """Return (status, JSON bytes, rows answered) for a body; the records are in the log before this returns.

        Works in slices, of which one row is a single one. One model answers all rows, whatever is swapped meanwhile.

        Args:
            live: the model to answer with; None gives 503.
            body: as received.
            started_s: `perf_counter()` when the body had arrived.
            query: the URL's query string when the body is an image file, None when it is JSON.
        """
        try:
            if live is None:
                raise Refused(503, "no model is loaded yet; see /readyz.")
            contract, now = live.model.contract, datetime.now(UTC)
            if query is None:
                request = yield from contract.decoding.steps(body, now)
            else:
                request = files.decode(contract, body, query, now)
            answers = yield from self._answer_rows(live, request.rows, request.is_list, started_s)
        except Refused as refused:
            return refused.status, refused.body, 0
        return 200, self._encoder.encode(answers if request.is_list else answers[0]), len(answers)

    def _answer_rows(self, live: Live, rows: list[Row[Any]], is_list: bool, started_s: float) -> Steps[list[Answer]]:
        known: dict[int, Answer] = {}
        firsts: dict[str, int] = {}
        fresh: list[int] = []
        ids: list[str] = []
        at_once = slice_rows(live.model.contract)
        for place, row in enumerate(rows):
            if place and place % at_once == 0:
                yield
            key = row.key
            ids.append(keyed_id(row) if key else f"{self._id_prefix}{next(self._count):012x}")
            found = self._found(rows, ids, place, is_list)
            if found is not None:
                known[place] = found
            elif key is None or firsts.setdefault(key, place) == place:
                fresh.append(place)
            elif ids[firsts[key]] != ids[place]:
                path = _path(place, is_list, "idempotency_key")
                raise Refused(422, f"{path} stands in this list with another request; expected a key of its own.", path)
        answers, lines = yield from self._score(live, rows, ids, fresh, is_list, started_s)
        # From here on nothing yields: a key is looked up again, logged and kept in one turn of the loop.
        logged = bytearray()
        for place, answer, line in zip(fresh, answers, lines, strict=True):
            found = self._found(rows, ids, place, is_list)
            known[place] = answer if found is None else found
            if found is None:
                logged += line
        if logged:
            try:
                self.log.append(logged)
            except LogProblem as problem:
                raise Refused(503, f"the prediction could not be logged and is not given: {problem}") from problem
        for place in fresh:
            if key := rows[place].key:
                self._answers.keep(key, known[place])
        return [known[place] if place in known else known[firsts[rows[place].key or ""]] for place in range(len(rows))]

    def _found(self, rows: list[Row[Any]], ids: list[str], place: int, is_list: bool) -> Answer | None:
        """Return the first answer of a row's key, or None; raise `Refused` when the key came with another request."""
        key = rows[place].key
        return self._answers.find(key, ids[place], _path(place, is_list, "idempotency_key")) if key else None

    def _score(
        self, live: Live, rows: list[Row[Any]], ids: list[str], fresh: list[int], is_list: bool, started_s: float
    ) -> Steps[tuple[list[Answer], list[bytes]]]:
        """Score the rows at the places `fresh`; return the answer and the line of the log of each.

        Raises:
            Refused: (503) the model fails.
        """
        answers, lines, said, at_once = [], [], [], slice_rows(live.model.contract)
        for start in range(0, len(fresh), at_once):
            if start:
                yield
            said += _said(live.model, [rows[place] for place in fresh[start : start + at_once]], fresh, start, is_list)
        now = datetime.now(UTC)
        latency_us = int((perf_counter() - started_s) * 1e6)
        for count, (place, one) in enumerate(zip(fresh, said, strict=True)):
            if count and count % at_once == 0:
                yield
            answer, record = _line(live, rows[place], ids[place], now, latency_us, one)
            answers.append(answer)
            lines.append(self._encoder.encode(record) + b"\n")
        return answers, lines


def _line(
    live: Live, row: Row[Any], prediction_id: str, now: datetime, latency_us: int, said: Any
) -> tuple[Answer, Record]:
    """Return a row's answer and record; raise `Refused` (503) for what is no answer."""
    contract, digest = live.model.contract, live.model.digest
    if not contract.task.is_sound(said):
        raise Refused(
            503, f"model {digest} answered {row.entity!r} with no {contract.task.kind} answer; nothing was answered."
        )
    head = (prediction_id, digest, live.release, row.entity, row.service_time, row.asked_at, row.key, now, latency_us)
    return contract.task.made(head, said, row.features if contract.logs_features else None)


def _said(model: Model, rows: list[Row[Any]], fresh: list[int], start: int, is_list: bool) -> list[Any]:
    """Return what the graph says to rows of one slice, which begins at `fresh[start]`.

    Raises:
        Refused: (422) a category that training never saw; (503) the model fails.
    """
    contract = model.contract
    values = [msgspec.structs.astuple(row.features) for row in rows]
    width = len(contract.numeric)
    numeric = np.array([value[:width] for value in values], dtype=np.float32)
    end = width + len(contract.categorical)
    texts = [["" if text is None else text for text in value[width:end]] for value in values]
    if model.vocabularies:
        _check_known(model.vocabularies, contract.categorical, texts, fresh[start:], is_list)
    categorical = np.array(texts, dtype=object)
    image = None
    if contract.image is not None:
        grey = b"".join([value[end] for value in values])
        image = np.frombuffer(grey, np.uint8).reshape(len(values), *contract.image.sized)
    try:
        said: list[Any] = model.predict(numeric, categorical, image).tolist()
    except ModelProblem as problem:
        raise Refused(503, f"{problem}; nothing was answered.") from problem
    return said


def _check_known(
    vocabularies: dict[int, frozenset[str]], fields: Any, texts: list[list[str]], places: list[int], is_list: bool
) -> None:
    for place, row in zip(places, texts, strict=False):
        for column, vocabulary in vocabularies.items():
            if row[column] and row[column] not in vocabulary:
                path = _path(place, is_list, f"features.{fields[column].name}")
                raise Refused(
                    422, f"{path} is {row[column]!r}, which training never saw; expected a known value.", path
                )


def _path(place: int, is_list: bool, name: str) -> str:
    return f"[{place}].{name}" if is_list else name
