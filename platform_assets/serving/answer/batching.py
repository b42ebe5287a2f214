"""Carry decoded requests through the graph: several share one run, and a bad row concerns its own request only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from platform_assets.serving.answer.answer_records import UNKNOWN, Origin
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.requests import Refused, Row
from platform_assets.serving.answer.slices_of_work import Steps, slice_rows
from platform_assets.training.sealed import ModelProblem

if TYPE_CHECKING:
    from platform_assets.serving.answer.answer_records import Answer, Record
    from platform_assets.serving.answer.live import Live


class Unanswered(Refused):
    """(503) The model gave no valid answer."""


@dataclass(slots=True)
class Work:
    """A decoded request on its way through the model and the log.

    Attributes:
        live: the model that answers all rows, whatever is swapped meanwhile.
        started_s: `perf_counter()` when the body had arrived.
        origin: of the request.
        ids: prediction ids, one per row.
        fresh: places of the rows to score; every other row repeats a key.
        outputs: of the graph, per row of `fresh` so far.
        answers, records: per row of `fresh` so far; a record is for the log.
        results: the answers by place, of repeated keys too.
        refused: why nothing is answered.
    """

    live: Live
    rows: list[Row[Any]]
    is_list: bool
    started_s: float
    origin: Origin = UNKNOWN
    at_once: int = 0
    ids: list[str] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    results: dict[int, Answer] = field(default_factory=dict)
    refused: Refused | None = None

    def __post_init__(self) -> None:
        self.at_once = slice_rows(self.live.model.contract)

    @property
    def caller(self) -> str | None:
        """Whose request it is, where callers are known."""
        return self.origin[0]

    def path(self, place: int, name: str) -> str:
        """Return the dotted path of a row's field."""
        return f"[{place}].{name}" if self.is_list else name

    def values(self, places: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the features of some rows, in the contract's order.

        Raises:
            Refused: (422) a category did not occur in training.
        """
        values = [msgspec.structs.astuple(self.rows[place].features) for place in places]
        contract = self.live.model.contract
        for place, row in zip(places, values, strict=True):
            for column, vocabulary in self.live.model.vocabularies.items():
                text = row[len(contract.numeric) + column]
                if text and text not in vocabulary:
                    path = self.path(place, f"features.{contract.categorical[column].name}")
                    raise Refused(
                        422, f"{path} is {text!r}, which did not occur in training; expected a value that did.", path
                    )
        return values

    def score(self) -> Steps[None]:
        """Score the fresh rows slice by slice."""
        for start in range(0, len(self.fresh), self.at_once):
            if start:
                yield
            self.outputs += run_graph(self.live.model, self.values(self.fresh[start : start + self.at_once]))

    def build(self) -> Steps[None]:
        """Build answers and records from the outputs, slice by slice.

        Raises:
            Unanswered: an output is not valid.
        """
        stamp = datetime.now(UTC), int((perf_counter() - self.started_s) * 1e6)
        for count, (place, output) in enumerate(zip(self.fresh, self.outputs, strict=True)):
            if count and count % self.at_once == 0:
                yield
            answer, record = build_row(self, place, output, stamp)
            self.answers.append(answer)
            self.records.append(record)


def build_row(work: Work, place: int, output: Any, stamp: tuple[datetime, int]) -> tuple[Answer, Record]:
    """Return a row's answer and log record.

    Args:
        output: of the graph.
        stamp: the time of the answer, and microseconds since the body had arrived.

    Raises:
        Unanswered: the output is not valid.
    """
    row, model = work.rows[place], work.live.model
    contract, digest = model.contract, model.digest
    if not contract.task.is_sound(output):
        raise Unanswered(
            503, f"model {digest} gave no valid {contract.task.kind} answer for {row.entity!r}; nothing was answered."
        )
    moments = (row.service_time, row.asked_at)
    head = (work.ids[place], digest, work.live.release, row.entity, *moments, row.key, *stamp)
    return contract.task.build(head, output, row.features if contract.logs_features else None, work.origin)


def score_together(works: Sequence[Work]) -> None:
    """Add the outputs of all fresh rows by one run of each model; note in a work why it is refused."""
    by_model: dict[str, list[tuple[Work, list[tuple[Any, ...]]]]] = {}
    for work in works:
        try:
            values = work.values(work.fresh)
        except Refused as refused:
            work.refused = refused
        else:
            if values:
                by_model.setdefault(work.live.model.digest, []).append((work, values))
    for sharing in by_model.values():
        _share_run(sharing)


def run_graph(model: Model, values: list[tuple[Any, ...]]) -> list[Any]:
    """Return the graph's output per row.

    Args:
        values: features in the contract's order.

    Raises:
        Unanswered: the model fails.
    """
    contract = model.contract
    width = len(contract.numeric)
    numeric = np.array([value[:width] for value in values], dtype=np.float32)  # numpy makes NaN of None
    end = width + len(contract.categorical)
    # Graphs know no null: an empty text stands for it, which no caller may send.
    texts = [["" if text is None else text for text in value[width:end]] for value in values]
    categorical = np.array(texts, dtype=object)
    image = None
    if contract.image is not None:
        grey = b"".join([value[end] for value in values])
        image = np.frombuffer(grey, np.uint8).reshape(len(values), *contract.image.sized)
    try:
        outputs: list[Any] = model.predict(numeric, categorical, image).tolist()
    except ModelProblem as problem:
        raise Unanswered(503, f"{problem}; nothing was answered.") from problem
    return outputs


def _share_run(sharing: Sequence[tuple[Work, list[tuple[Any, ...]]]]) -> None:
    """Score the rows of several works by one run; if it fails, by one run per work."""
    try:
        outputs = run_graph(sharing[0][0].live.model, [row for _, values in sharing for row in values])
    except Refused as refused:
        if len(sharing) == 1:
            sharing[0][0].refused = refused
            return
        for item in sharing:  # a row of one caller must not cost the others their answers
            _share_run([item])
        return
    begin = 0
    for work, values in sharing:
        work.outputs = outputs[begin : begin + len(values)]
        begin += len(values)
