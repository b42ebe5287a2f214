"""The peers of row R3: a product's graph behind `@bentoml.api`, and behind FastAPI, as their documentations show.

`R3_PEER` names a folder with `contract.json` and `model.onnx`. They do less than ours: they log nothing.
"""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

import bentoml
import numpy as np
import onnxruntime
from pydantic import BaseModel, Field, create_model

FOLDER = Path(os.environ["R3_PEER"])
FIELDS = json.loads((FOLDER / "contract.json").read_bytes())["fields"]
TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "category": str, "image": list[list[int]]}


def declared(item: dict[str, Any]) -> Any:
    kind = TYPES[item["dtype"]]
    return (Optional[kind] if item["is_nullable"] else kind, Field(ge=item["low"], le=item["high"]))  # noqa: UP045


Features = create_model("Features", **{item["name"]: declared(item) for item in FIELDS})


class Row(BaseModel):
    """A row of a request."""

    entity: str
    service_time: datetime
    asked_at: datetime
    features: Features  # type: ignore[valid-type]  # made at run time
    idempotency_key: Optional[str] = None  # noqa: UP045


@bentoml.service(name="peer", workers=1)
class Peer:
    """Answers with the graph's output."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(FOLDER / "model.onnx")

    @bentoml.api(route="/predict")
    def predict(self, rows: list[Row], /) -> list[Any]:
        """Answer each row with the numbers of the graph."""
        return outputs(self._session, rows)


def fastapi() -> Any:
    """Return FastAPI's application, for uvicorn."""
    import fastapi as library

    app, session = library.FastAPI(), onnxruntime.InferenceSession(FOLDER / "model.onnx")

    def predict(rows: list[Row]) -> list[Any]:
        return outputs(session, rows)

    app.post("/predict")(predict)
    return app


def outputs(session: onnxruntime.InferenceSession, rows: list[Row]) -> list[Any]:
    """Return the numbers of the graph per row."""
    columns = {
        kind: [
            item["name"]
            for item in FIELDS
            if {"category": "categorical", "image": "image"}.get(item["dtype"], "numeric") == kind
        ]
        for kind in ("numeric", "categorical", "image")
    }
    values = {
        kind: [[getattr(row.features, name) for name in names] for row in rows] for kind, names in columns.items()
    }
    feeds = {
        "numeric": np.array(values["numeric"], dtype=np.float32).reshape(len(rows), -1),
        "categorical": np.array([[text or "" for text in texts] for texts in values["categorical"]], dtype=object),
        "image": np.array([images[0] for images in values["image"] if images], dtype=np.uint8),
    }
    expected = {item.name for item in session.get_inputs()}
    answer = session.run(None, {name: feed for name, feed in feeds.items() if name in expected})[0]
    return list(answer.tolist())
