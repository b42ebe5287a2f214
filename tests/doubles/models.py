"""Make small real bundles: a logistic model over a handful of fields, as ONNX, without training anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from platform_assets.storage.artifacts import ArtifactStore, canonical, sha256

PRODUCT = "tiny"
CARRIERS = ("AA", "UA", "日本")
ORIGINS = ("EWR", "JFK", "LGA")


def field(name: str, dtype: str, **changes: Any) -> dict[str, Any]:
    plain = {"description": f"The {name}.", "is_nullable": False, "low": None, "high": None, "unknown": "accept"}
    return {"name": name, "dtype": dtype, **plain, **changes}


FIELDS = (
    field("temp", "float", is_nullable=True, low=-60.0, high=60.0),
    field("carrier", "category"),
    field("wind", "float", low=0.0),
    field("pressure", "float"),
    field("seats", "int", low=0.0, high=900.0),
    field("stops", "int", is_nullable=True),
    field("origin", "category", is_nullable=True, unknown="reject"),
    field("is_holiday", "bool", is_nullable=True),
)
FEATURES = {
    "temp": 12.5,
    "carrier": "UA",
    "wind": 3.25,
    "pressure": 1013.0,
    "seats": 180,
    "stops": None,
    "origin": "JFK",
    "is_holiday": False,
}


def contract(fields: tuple[dict[str, Any], ...] = FIELDS, **changes: Any) -> dict[str, Any]:
    """Return a contract document as `specs.contract.contract_of` writes it."""
    document = {
        "format": 1,
        "product": PRODUCT,
        "title": "A tiny product",
        "task": "binary",
        "entity": "flight",
        "fields": list(fields),
        "operating_threshold": 0.5,
        "max_rows": 16,
        "max_body_bytes": 100_000,
        "logs_features": True,
    }
    return {**document, **changes}


def row(entity: str = "2013-03-01_UA_1_EWR", features: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a request that the contract of `FIELDS` allows, changed as asked."""
    return {
        "entity": entity,
        "service_time": "2013-03-01T14:00:00Z",
        "asked_at": "2013-03-01T12:00:00Z",
        "features": {**FEATURES, **(features or {})},
        **changes,
    }


def write_bundle(
    store: ArtifactStore, *, bias: float = 0.0, document: dict[str, Any] | None = None, graph: bytes | None = None
) -> str:
    """Store a bundle whose model is sigmoid(bias + mean of the numbers / 1000 + a little for each category)."""
    document = contract() if document is None else document
    names = [item["name"] for item in document["fields"] if item["dtype"] == "category"]
    learned = {"categorical": [{"name": name, "vocabulary": [*CARRIERS, *ORIGINS]} for name in names]}
    blobs = {
        "model.onnx": logistic(document, bias) if graph is None else graph,
        "weights.safetensors": b"",
        "learned.json": canonical(learned),
        "baselines.json": canonical({}),
        "contract.json": canonical(document),
        "sketch.json": canonical({}),
        "config.json": canonical({"bias": bias}),
    }
    facts = {
        "product": document["product"],
        "cutoff": "2013-03-01",
        "contract_sha256": sha256(canonical(document)),
        "data": {"features": {}, "outcomes": {}},
        "training_keys": [],
        "holdout_keys": [],
    }
    return store.write_bundle(blobs, facts)


def expected(bias: float, features: dict[str, Any] = FEATURES) -> float:
    """Return what `logistic` answers for a row of the contract of `FIELDS`."""
    numbers = [float(features[item["name"]] or 0) for item in FIELDS if item["dtype"] != "category"]
    texts = [features[item["name"]] for item in FIELDS if item["dtype"] == "category"]
    code = {text: place / 10 for place, text in enumerate((*CARRIERS, *ORIGINS))}
    z = bias + sum(numbers) / len(numbers) / 1000 + sum(code.get(text, -0.5) for text in texts)
    return 1 / (1 + math.exp(-z))


def logistic(document: dict[str, Any], bias: float) -> bytes:
    """Return the graph: null numbers count as 0, unknown and null categories as -0.5."""
    numeric = sum(item["dtype"] != "category" for item in document["fields"])
    categorical = len(document["fields"]) - numeric
    constants = {
        "zero": np.zeros((), np.float32),
        "weights": np.full((numeric, 1), 1 / numeric / 1000, np.float32),
        "bias": np.array([[bias]], np.float32),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["is_null"]),
        helper.make_node("Where", ["is_null", "zero", "numeric"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["weighted"]),
        helper.make_node(
            "LabelEncoder",
            ["categorical"],
            ["codes"],
            domain="ai.onnx.ml",
            keys_strings=[*CARRIERS, *ORIGINS],
            values_floats=[place / 10 for place in range(len(CARRIERS) + len(ORIGINS))],
            default_float=-0.5,
        ),
        helper.make_node("ReduceSum", ["codes", "axis"], ["coded"], keepdims=1),
        helper.make_node("Sum", ["weighted", "coded", "bias"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", numeric]),
            helper.make_tensor_value_info("categorical", TensorProto.STRING, ["N", categorical]),
        ],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
