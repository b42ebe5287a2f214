"""Answer a body: decode, score, log, encode. The hot path, without a wait in it.

Belongs here: everything between the bytes of a request and the bytes of its answer. Does not belong here: HTTP
(`middleware`), which model is live (`follow`). Nothing here awaits, so a swap of the model falls between requests.
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
from platform_assets.serving.contract import Refused
from platform_assets.serving.follow import Live
from platform_assets.serving.idempotency import Answers, keyed_id
from platform_assets.serving.model import ModelProblem
from platform_assets.serving.prediction_log import LogProblem, PredictionLog
from platform_assets.serving.records import Answer


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
        """Return (status, JSON bytes, rows answered) for a body; the records are in the log before this returns.

        Args:
            live: the model to answer with; None gives 503.
            body: as received.
            started_s: `perf_counter()` when the body had arrived.
            query: the URL's query string when the body is an image file, None when it is JSON.
        """
        try:
            if live is None:
                raise Refused(503, "no model is loaded yet; see /readyz.")
            contract = live.model.contract
            request = contract.decode(body) if query is None else files.decode(contract, body, query)
            answers = self._answer_rows(live, request.rows, request.is_list, started_s)
        except Refused as refused:
            return refused.status, self._encoder.encode({"error": refused.sentence, "field": refused.field}), 0
        return 200, self._encoder.encode(answers if request.is_list else answers[0]), len(answers)

    def _answer_rows(self, live: Live, rows: list[Any], is_list: bool, started_s: float) -> list[Answer]:
        if not any(row.idempotency_key for row in rows):
            return self._score(
                live, rows, [f"{self._id_prefix}{next(self._count):012x}" for _ in rows], is_list, started_s
            )
        known: dict[int, Answer] = {}
        firsts: dict[str, int] = {}
        fresh: list[int] = []
        ids: list[str] = []
        for place, row in enumerate(rows):
            key = row.idempotency_key or None
            ids.append(keyed_id(row) if key else f"{self._id_prefix}{next(self._count):012x}")
            path = f"[{place}].idempotency_key" if is_list else "idempotency_key"
            found = self._answers.find(key, ids[place], path) if key else None
            if found is not None:
                known[place] = found
            elif key is None or firsts.setdefault(key, place) == place:
                fresh.append(place)
            elif ids[firsts[key]] != ids[place]:
                raise Refused(422, f"{path} stands in this list with another request; expected a key of its own.", path)
        scored = self._score(
            live, [rows[place] for place in fresh], [ids[place] for place in fresh], is_list, started_s
        )
        known.update(zip(fresh, scored, strict=True))
        for place in fresh:
            if rows[place].idempotency_key:
                self._answers.keep(rows[place].idempotency_key, known[place])
        return [
            known[place] if place in known else known[firsts[rows[place].idempotency_key]] for place in range(len(rows))
        ]

    def _score(self, live: Live, rows: list[Any], ids: list[str], is_list: bool, started_s: float) -> list[Answer]:
        """Score rows and log them; raise `Refused` (503) when the model or the log fails."""
        if not rows:
            return []
        model, contract = live.model, live.model.contract
        astuple = msgspec.structs.astuple
        values = [astuple(row.features) for row in rows]
        width = len(contract.numeric)
        numeric = np.array([value[:width] for value in values], dtype=np.float32)
        end = width + len(contract.categorical)
        texts = [["" if text is None else text for text in value[width:end]] for value in values]
        if model.vocabularies:
            _check_known(model.vocabularies, contract.categorical, texts, is_list)
        categorical = np.array(texts, dtype=object)
        image = None
        if contract.image is not None:
            grey = b"".join([value[end] for value in values])
            image = np.frombuffer(grey, np.uint8).reshape(len(values), *contract.image.sized)
        try:
            said = model.predict(numeric, categorical, image).tolist()
        except ModelProblem as problem:
            raise Refused(503, f"{problem}; nothing was answered.") from problem
        task, digest = contract.task, model.digest
        answers = []
        lines = bytearray()
        now = datetime.now(UTC)
        latency_us = int((perf_counter() - started_s) * 1e6)
        for row, prediction_id, one in zip(rows, ids, said, strict=True):
            if not task.is_sound(one):
                raise Refused(
                    503, f"model {digest} answered {row.entity!r} with no {task.kind} answer; nothing was answered."
                )
            features = row.features if contract.logs_features else None
            answer, record = task.made(row, prediction_id, digest, live.release, now, latency_us, one, features)
            answers.append(answer)
            self._encoder.encode_into(record, lines, -1)
            lines += b"\n"
        try:
            self.log.append(lines)
        except LogProblem as problem:
            raise Refused(503, f"the prediction could not be logged and is not given: {problem}") from problem
        return answers


def _check_known(vocabularies: dict[int, frozenset[str]], fields: Any, texts: list[list[str]], is_list: bool) -> None:
    for place, row in enumerate(texts):
        for column, vocabulary in vocabularies.items():
            if row[column] and row[column] not in vocabulary:
                path = f"[{place}].features.{fields[column].name}" if is_list else f"features.{fields[column].name}"
                raise Refused(
                    422, f"{path} is {row[column]!r}, which training never saw; expected a known value.", path
                )
