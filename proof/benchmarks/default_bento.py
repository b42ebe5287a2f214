"""The same model as a Bento that leaves every setting at BentoML's default: `bentoml serve default_bento:Default`.

Pydantic's types of the contract, as BentoML's documentation recommends; the folder of the contest is in the
environment, because a service's class is imported.
"""

import os
import uuid
from pathlib import Path
from typing import Annotated, Any

import bentoml
import pydantic
from pydantic import Field

from proof.benchmarks.serving_peers import load, row_type, score

MODEL = load(Path(os.environ["CONTEST"]))
Row: Any = row_type(MODEL.contract)
Rows: Any = Annotated[list[Row], Field(min_length=1, max_length=MODEL.contract.max_rows)]


class Answer(pydantic.BaseModel):
    """The same answer as ours."""

    prediction_id: str
    digest: str
    entity: str
    probability: float
    is_positive: bool


def answers(rows: list[Any]) -> list[Answer]:
    """Score rows and build their answers."""
    outputs = score(MODEL, [list(row.features.__dict__.values()) for row in rows])
    threshold = MODEL.contract.task.threshold  # type: ignore[attr-defined]  # flights are binary
    return [
        Answer(
            prediction_id=uuid.uuid4().hex,
            digest=MODEL.digest,
            entity=row.entity,
            probability=output,
            is_positive=output >= threshold,
        )
        for row, output in zip(rows, outputs, strict=True)
    ]


@bentoml.service
class Default:
    """Answers in threads, as a `def` does by default."""

    @bentoml.api
    def predict(self, row: Row, /) -> Answer:
        """Answer a row."""
        return answers([row])[0]

    @bentoml.api
    def predict_rows(self, rows: Rows, /) -> list[Answer]:
        """Answer a list."""
        return answers(rows)


@bentoml.service
class Coroutine:
    """Answers in the event loop, which costs less where the work is short."""

    @bentoml.api
    async def predict(self, row: Row, /) -> Answer:
        """Answer a row."""
        return answers([row])[0]

    @bentoml.api
    async def predict_rows(self, rows: Rows, /) -> list[Answer]:
        """Answer a list."""
        return answers(rows)
