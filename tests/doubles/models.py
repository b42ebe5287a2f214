"""Small real bundles, one per kind of task, as ONNX, made without training.

A logistic model over a handful of fields, a softmax over the pixels of an image, and a mean with a spread.
"""

import contextlib
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import to_builtins
from onnx import TensorProto, helper, numpy_helper

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.evaluation.releases import next_release
from platform_assets.product.inputs import Inputs
from platform_assets.store import signatures
from platform_assets.store.artifacts import ArtifactStore, canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.training import golden as golden_rows
from tests.doubles import documents

PRODUCT = "tiny"
CARRIERS = ("AA", "UA", "日本")
ORIGINS = ("EWR", "JFK", "LGA")


def field(name: str, dtype: str, **changes: Any) -> dict[str, Any]:
    plain = {"description": f"The {name}.", "is_nullable": False, "low": None, "high": None, "shape": None}
    return {"name": name, "dtype": dtype, **plain, "unknown": "accept", **changes}


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


SHAPE = (4, 5)
CLASSES = ("top", "ankle_boot", "bag")
IMAGE_FIELDS = (field("photo", "image", shape=list(SHAPE)),)
MIXED_FIELDS = (field("weight", "float"), *IMAGE_FIELDS, field("carrier", "category", is_nullable=True))
"""An image among other fields."""
PIXELS = bytes((37 * place * place + 11 * place) % 256 for place in range(SHAPE[0] * SHAPE[1]))
REGRESSION_FIELDS = (field("temp", "float", is_nullable=True), field("carrier", "category"))
REGRESSION_FEATURES = {"temp": 12.5, "carrier": "UA"}


def binary(threshold: float = 0.5) -> dict[str, Any]:
    return {"kind": "binary", "threshold": threshold}


def contract(fields: tuple[dict[str, Any], ...] = FIELDS, **changes: Any) -> dict[str, Any]:
    """Return a contract document as `product.contract.contract_of` writes it."""
    document = {
        "format": 3,
        "product": PRODUCT,
        "title": "A tiny product",
        "task": binary(),
        "entity": "flight",
        "fields": list(fields),
        "max_rows": 16,
        "max_body_bytes": 100_000,
        "logs_features": True,
        "service_time": {"from": "1800-01-01T00:00:00Z", "before": "2200-01-01T00:00:00Z"},
        "asked_at": {"from": "1800-01-01T00:00:00Z", "before": "2200-01-01T00:00:00Z"},
        "clock_within_s": None,
    }
    return {**document, **changes}


def image_contract(fields: tuple[dict[str, Any], ...] = IMAGE_FIELDS, **changes: Any) -> dict[str, Any]:
    """Return the contract of a classification of an image of `SHAPE` among `CLASSES`."""
    return contract(fields, **{"task": {"kind": "multi_class", "classes": list(CLASSES)}, "entity": "item", **changes})


def regression_contract(**changes: Any) -> dict[str, Any]:
    return contract(REGRESSION_FIELDS, **{"task": {"kind": "regression", "unit": "deg F"}, **changes})


def rows_of(pixels: bytes = PIXELS) -> list[list[int]]:
    """Return an image of `SHAPE` as lists of grey levels, as JSON holds it."""
    height, width = SHAPE
    return [list(pixels[start : start + width]) for start in range(0, height * width, width)]


def image_row(photo: Any = None, entity: str = "item-1", **changes: Any) -> dict[str, Any]:
    return {**row(entity, **changes), "features": {"photo": rows_of() if photo is None else photo}}


def regression_row(features: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {**row(**changes), "features": {**REGRESSION_FEATURES, **(features or {})}}


def row(entity: str = "2013-03-01_UA_1_EWR", features: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a request that the contract of `FIELDS` allows, with these changes."""
    return {
        "entity": entity,
        "service_time": "2013-03-01T14:00:00Z",
        "asked_at": "2013-03-01T12:00:00Z",
        "features": {**FEATURES, **(features or {})},
        **changes,
    }


def write_bundle(
    store: ArtifactStore,
    *,
    bias: float = 0.0,
    document: dict[str, Any] | None = None,
    graph: bytes | None = None,
    golden: bytes | None = None,
) -> str:
    """Store a bundle whose model is the graph of its contract's kind: `logistic`, `softmax` or `normal`."""
    document = contract() if document is None else document
    names = [item["name"] for item in document["fields"] if item["dtype"] == "category"]
    learned = {"categorical": [{"name": name, "vocabulary": [*CARRIERS, *ORIGINS]} for name in names]}
    blobs = {
        "model.onnx": graph_of(document, bias) if graph is None else graph,
        "weights.safetensors": b"",
        "learned.json": canonical(learned),
        "baselines.json": canonical({}),
        "contract.json": canonical(document),
        "sketch.json": canonical({}),
        "config.json": canonical({"bias": bias}),
        "golden.json": golden_of(document, bias) if golden is None else golden,
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


def release(root: str, digest: str, **changes: Any) -> int:
    """Record a passing verdict on a bundle and its release, as the platform does; return the release's number."""
    ledgers = Ledgers(root, PRODUCT)
    with contextlib.suppress(RecordExists):
        ledgers.create(naming.VERDICTS, digest, documents.verdict(digest))
    number = ledgers.newest_number(naming.RELEASES) + 1
    ledgers.create_number(naming.RELEASES, number, release_record(number, digest, **changes))
    return number


def signed_release(root: str, digest: str, key: Ed25519PrivateKey, **changes: Any) -> int:
    """Record a signed passing verdict on a bundle and its signed release; return the release's number."""
    ledgers = Ledgers(root, PRODUCT)
    with contextlib.suppress(RecordExists):
        verdict = documents.verdict(digest, product=PRODUCT)
        ledgers.create(naming.VERDICTS, digest, signed(naming.VERDICTS, verdict, key))
    number = ledgers.newest_number(naming.RELEASES) + 1
    record = chained(ledgers, release_record(number, digest), **changes)
    ledgers.create_number(naming.RELEASES, number, signed(naming.RELEASES, record, key))
    return number


def chained(ledgers: Ledgers, record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a release record with the hashes of the record before it and of its verdict, and these changes."""
    before = ledgers.stored(naming.RELEASES, f"{record['previous'] or 0:08d}")
    verdict = ledgers.stored(naming.VERDICTS, record["channels"]["live"]["digest"])
    hashes = {"previous_sha256": before, "verdict_sha256": verdict}
    return {**record, **{name: None if data is None else sha256(data) for name, data in hashes.items()}, **changes}


def signed(ledger: str, record: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    return {**record, "signed": to_builtins(signatures.sign(ledger, record, key))}


def release_record(number: int, digest: str, **changes: Any) -> dict[str, Any]:
    """Return the release record of a bundle with the contract of `FIELDS`, with these changes."""
    record = next_release(
        product=PRODUCT,
        digest=digest,
        contract_sha256=sha256(canonical(contract())),
        cutoff="2013-03-01",
        reason="passed",
        author="test",
        at=datetime(2013, 3, 1, tzinfo=UTC),
        previous=number - 1 or None,
    )
    return {**record.document(), **changes}


def expected(bias: float, features: dict[str, Any] = FEATURES) -> float:
    numbers = [float(features[item["name"]] or 0) for item in FIELDS if item["dtype"] != "category"]
    texts = [features[item["name"]] for item in FIELDS if item["dtype"] == "category"]
    code = {text: index / 10 for index, text in enumerate((*CARRIERS, *ORIGINS))}
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
            values_floats=[index / 10 for index in range(len(CARRIERS) + len(ORIGINS))],
            default_float=-0.5,
        ),
        helper.make_node("ReduceSum", ["codes", "axis"], ["coded"], keepdims=1),
        helper.make_node("Sum", ["weighted", "coded", "bias"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["answer"]),
    ]
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", numeric]),
        helper.make_tensor_value_info("categorical", TensorProto.STRING, ["N", categorical]),
    ]
    return _model("logistic", nodes, inputs, ["N"], constants)


def endless(document: dict[str, Any]) -> bytes:
    """Return the graph of `logistic` followed by a loop of 2**62 iterations over the same number."""
    model = onnx.load_from_string(logistic(document, 0.0))
    body = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"]), helper.make_node("Mul", ["before", "one"], ["after"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["N"]),
        ],
    )
    constants = {"turns": np.array(2**62, np.int64), "go": np.array(True), "one": np.array(1, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(helper.make_node("Loop", ["turns", "go", "once"], ["answer"], body=body))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def takes_4_gb(document: dict[str, Any]) -> bytes:
    """Return the graph of `logistic` times the largest of 2**30 ones."""
    constants = {"size": np.array([2**30], np.int64)}
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceMax", ["ones"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["once", "largest"], ["answer"]),
    ]
    return _continued(document, nodes, constants)


def divides_by_minus_one(document: dict[str, Any]) -> bytes:
    """Return a graph that ends a process by SIGFPE while it is loaded: a constant that no int64 holds is folded."""
    constants = {"least": np.array(-(2**63), np.int64), "minus": np.array(-1, np.int64)}
    nodes = [
        helper.make_node("Div", ["least", "minus"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["once", "number"], ["answer"]),
    ]
    return _continued(document, nodes, constants)


def deep_tree(document: dict[str, Any], depth: int = 40_000) -> bytes:
    """Return a graph that ends a process by SIGSEGV while it is loaded: ONNX Runtime descends a tree by recursion."""
    count = 2 * depth + 1
    branches = [place % 2 == 0 and place < 2 * depth for place in range(count)]
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["numeric"],
        ["scores"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_values=[0.5] * count,
        nodes_modes=["BRANCH_LEQ" if is_branch else "LEAF" for is_branch in branches],
        nodes_truenodeids=[place + 1 if is_branch else 0 for place, is_branch in enumerate(branches)],
        nodes_falsenodeids=[place + 2 if is_branch else 0 for place, is_branch in enumerate(branches)],
        target_treeids=[0],
        target_nodeids=[1],
        target_ids=[0],
        target_weights=[1.0],
        n_targets=1,
    )
    nodes = [
        helper.make_node("Squeeze", ["scores", "axis"], ["score"]),
        helper.make_node("Add", ["once", "score"], ["answer"]),
    ]
    return _continued(document, [tree, *nodes], {})


TEMP, SEATS = 0, 3
"""Columns of the numeric fields of `FIELDS`."""


def not_a_number(document: dict[str, Any], above: float = 40.0) -> bytes:
    """Return the graph of `logistic`, which answers NaN where it is hotter than `above`."""
    nodes = [
        _value(),
        helper.make_node("Sub", ["limit", "value"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["nothing"]),
        helper.make_node("Add", ["once", "nothing"], ["answer"]),
    ]
    return _continued(document, nodes, {"limit": np.array(above, np.float32), "place": np.array(TEMP, np.int64)})


def divides_by_minus_one_for(document: dict[str, Any], seats: int = 181) -> bytes:
    """Return the graph of `logistic`, which ends a process by SIGFPE for one number of seats."""
    constants = {
        "seats": np.array(seats, np.int64),
        "place": np.array(SEATS, np.int64),
        "least": np.array(-(2**63), np.int64),
        "minus": np.array(-1, np.int64),
        "plus": np.array(1, np.int64),
    }
    nodes = [
        _value(),
        helper.make_node("Cast", ["value"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Equal", ["whole", "seats"], ["is_fatal"]),
        helper.make_node("Where", ["is_fatal", "minus", "plus"], ["divisor"]),
        helper.make_node("Div", ["least", "divisor"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Add", ["once", "nothing"], ["answer"]),
    ]
    return _continued(document, nodes, constants)


def takes_2_gb_for_ten(document: dict[str, Any]) -> bytes:
    """Return the graph of `logistic` times the largest of 500 N^6 ones: 2 GB for ten rows, 235 MB for seven."""
    constants = {
        "first": np.array([0], np.int64),
        "power": np.array(6, np.int64),
        "factor": np.array(500, np.int64),
    }
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Shape", ["numeric"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Pow", ["rows", "power"], ["powered"]),
        helper.make_node("Mul", ["powered", "factor"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceMax", ["ones"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["once", "largest"], ["answer"]),
    ]
    return _continued(document, nodes, constants)


def slow(document: dict[str, Any], turns: int, seats: int = 181) -> bytes:
    """Return the graph of `logistic`, which goes round a loop so many times for one number of seats."""
    model = onnx.load_from_string(endless(document))
    (turns_of_all,) = [item for item in model.graph.initializer if item.name == "turns"]
    model.graph.initializer.remove(turns_of_all)
    constants = {
        "seats": np.array(seats, np.int64),
        "place": np.array(SEATS, np.int64),
        "many": np.array(turns, np.int64),
        "few": np.array(0, np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        _value(),
        helper.make_node("Cast", ["value"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Equal", ["whole", "seats"], ["is_slow"]),
        helper.make_node("Where", ["is_slow", "many", "few"], ["turns_by_row"]),
        helper.make_node("ReduceMax", ["turns_by_row"], ["turns"], keepdims=0),
    ]
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _value() -> Any:
    """Return the node that takes `value`, null as 0, from the numeric column whose place is the constant `place`."""
    return helper.make_node("Gather", ["filled", "place"], ["value"], axis=1)


def endless_to_load(document: dict[str, Any]) -> bytes:
    """Return a graph that ONNX Runtime does not finish loading: the shape of an equation with fifty ellipses."""
    nodes = [
        helper.make_node("Einsum", ["numeric"], ["summed"], equation="..." * 50 + "->"),
        helper.make_node("Add", ["once", "summed"], ["answer"]),
    ]
    return _continued(document, nodes, {}, is_checked=False)


def golden_of(document: dict[str, Any], bias: float = 0.0, graph: bytes | None = None) -> bytes:
    """Return golden rows of a graph, by default that of the contract's kind: two plain ones, with its answers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph or graph_of(document, bias), providers=["CPUExecutionProvider"])
    kinds = [item["dtype"] for item in document["fields"]]
    numeric = np.array([[1.0] * sum(kind not in ("category", "image") for kind in kinds)] * 2, np.float32)
    numeric[1:] = np.nan
    categorical = np.full((2, kinds.count("category")), "AA", object)
    names = {item.name for item in session.get_inputs()}
    shape = next((item["shape"] for item in document["fields"] if item["dtype"] == "image"), SHAPE)
    image = np.resize(np.frombuffer(PIXELS, np.uint8), (2, *shape)) if "image" in names else None
    feed = {"numeric": numeric, "categorical": categorical, "image": image}
    answers = session.run(["answer"], {name: feed[name] for name in names})[0]
    rows = golden_rows.seal(Inputs(numeric=numeric, categorical=categorical, image=image), answers, 1.0)
    return canonical(to_builtins(rows))


def _continued(
    document: dict[str, Any], nodes: list[Any], constants: dict[str, np.ndarray], *, is_checked: bool = True
) -> bytes:
    """Return the graph of `logistic`, whose answer is called `once`, with further nodes up to `answer`."""
    model = onnx.load_from_string(logistic(document, 0.0))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node[-1].output[0] = "once"
    model.graph.node.extend(nodes)
    if is_checked:
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def expected_classes(pixels: bytes = PIXELS, bias: float = 0.0) -> list[float]:
    z = np.frombuffer(pixels, np.uint8) / 255 @ _layer(len(pixels), len(CLASSES)) + _biases(bias, len(CLASSES))
    powers = np.exp(z - z.max())
    return [float(power) for power in powers / powers.sum()]


def softmax(document: dict[str, Any], bias: float) -> bytes:
    (height, width), classes = document["fields"][0]["shape"] or SHAPE, len(document["task"]["classes"])
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "weights": _layer(height * width, classes).astype(np.float32),
        "bias": _biases(bias, classes).astype(np.float32),
        "flat": np.array([-1, height * width], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["levels", "flat"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "scale"], ["shares"]),
        helper.make_node("MatMul", ["shares", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["z"]),
        helper.make_node("Softmax", ["z"], ["answer"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width])
    return _model("softmax", nodes, [image], ["N", classes], constants)


def expected_normal(temp: float | None = 12.5, bias: float = 0.0) -> tuple[float, float]:
    return (60.0 if temp is None else 60 + temp / 10) + bias, 2.0


def normal(document: dict[str, Any], bias: float, spread: float = 2.0) -> bytes:
    """Return the graph: 60 + a tenth of the first number + bias, with a constant spread."""
    numeric = sum(item["dtype"] not in ("category", "image") for item in document["fields"])
    weights = np.zeros((numeric, 2), np.float32)
    weights[0, 0] = 0.1
    constants = {
        "zero": np.zeros((), np.float32),
        "weights": weights,
        "offset": np.array([[60 + bias, spread]], np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["is_null"]),
        helper.make_node("Where", ["is_null", "zero", "numeric"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "offset"], ["answer"]),
    ]
    inputs = [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", numeric])]
    return _model("normal", nodes, inputs, ["N", 2], constants)


def graph_of(document: dict[str, Any], bias: float) -> bytes:
    return {"binary": logistic, "multi_class": softmax, "regression": normal}[document["task"]["kind"]](document, bias)


def _layer(pixels: int, classes: int) -> np.ndarray:
    return np.sin(np.arange(pixels * classes).reshape(-1, classes) * 0.7)


def _biases(bias: float, classes: int) -> np.ndarray:
    return np.array([bias, *[0.0] * (classes - 1)])


def _model(
    name: str, nodes: list[Any], inputs: list[Any], shape: list[str | int], constants: dict[str, np.ndarray]
) -> bytes:
    outputs = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
