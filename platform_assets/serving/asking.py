"""Ask the live model about a file or a table, without a server and without a log."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

import msgspec

from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model, ModelProblem
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.answer.requests import MOMENTS
from platform_assets.serving.log.prediction_log import Unlogged
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.product_store import ProductStore

IMAGES = (".png", ".jpg", ".jpeg")
TABLES = (".parquet", ".csv")
_HEAD = ("entity", *MOMENTS)
_KEY = "idempotency_key"
Answered = dict[str, str | float | bool | dict[str, float]]
"""An answer with the members of `BinaryAnswer`, `MultiClassAnswer` or `RegressionAnswer`, without `prediction_id`."""
_TYPES: Mapping[str, type] = {"float": float, "int": int, "bool": bool}


@dataclass(frozen=True)
class About:
    """What a picture file does not say; None for the file's name as entity, and for now as both moments."""

    entity: str | None = None
    service_time: str | None = None
    asked_at: str | None = None


def answers(product: ProductStore, file: Path, about: About | None = None) -> Iterator[Answered]:
    """Return the live model's answers to a file's rows, in their order and without an id, which no log would know.

    Args:
        product: with a release.
        file: `.json` (a row or a list, as for `/predict`), `.parquet` or `.csv` (a column per field), or a picture.
        about: the rest of a picture's row.

    Raises:
        ValueError: nothing is released, or the file cannot be read or does not follow the contract.
        ArtifactProblem: the model is damaged.
    """
    model = live(product)
    yield from _answered(model, _bodies(model.model.contract, file, about or About()), str(file), file.parent)


def table_answers(model: Live, columns: Mapping[str, Sequence[Any]], title: str, folder: Path) -> Iterator[Answered]:
    """Return a model's answers to rows; see `answers`.

    Args:
        columns: values by column, all equally many; those that the contract does not name are left out.
        title: what messages call the rows.
        folder: where a log would be.
    """
    bodies = ((body, None) for body in _table_bodies(model.model.contract, columns, title))
    yield from _answered(model, bodies, title, folder)


def live(product: ProductStore) -> Live:
    """Load the live model.

    Raises:
        ValueError: nothing is released, or this code cannot load it.
        ArtifactProblem: the model is damaged.
    """
    newest = product.history.live()
    if newest is None:
        raise ValueError(f"{product.name} has no release in {product.settings.root}: there is no model to ask yet.")
    number, release = newest
    try:
        return Live(Model.load(ArtifactStore(product.settings.root), release.digest), number, "release")
    except ModelProblem as problem:
        raise ValueError(f"release {number} of {product.name} cannot be loaded: {problem}") from problem


def _answered(
    model: Live, bodies: Iterable[tuple[bytes, bytes | None]], title: str, folder: Path
) -> Iterator[Answered]:
    predictor, first = Predictor(Unlogged(folder)), 0
    for body, query in bodies:
        status, answer, rows = predictor.answer(model, body, perf_counter(), query)
        if status != 200:
            problem = msgspec.json.decode(answer)["error"]
            raise ValueError(f"{title}, rows from {first}: {problem}" if first else f"{title}: {problem}")
        decoded = msgspec.json.decode(answer)
        for one in decoded if isinstance(decoded, list) else [decoded]:
            del one["prediction_id"]
            yield one
        first += rows


def _bodies(contract: Contract, file: Path, about: About) -> Iterator[tuple[bytes, bytes | None]]:
    """Return bodies as callers send them, each with its query if it is a picture."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        data = file.read_bytes()
        if not data.lstrip().startswith(b"["):
            yield data, None
            return
        try:
            rows = msgspec.json.decode(data, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise ValueError(f"{file} is not JSON: {problem}.") from problem
        if not rows:
            raise ValueError(f"{file} has no rows.")
        yield from ((body, None) for body in _lists(contract, [bytes(row) for row in rows]))
    elif suffix in TABLES:
        import polars as pl

        try:
            table = pl.read_parquet(file) if suffix == ".parquet" else pl.read_csv(file, infer_schema=False)
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as problem:
            raise ValueError(f"{file} cannot be read as {suffix[1:]}: {problem}.") from problem
        if table.is_empty():
            raise ValueError(f"{file} has no rows.")
        columns = table.to_dict(as_series=False)
        yield from ((body, None) for body in _table_bodies(contract, columns, str(file)))
    elif suffix in IMAGES:
        now = datetime.now(UTC).isoformat()
        head = (about.entity or file.stem, about.service_time or now, about.asked_at or now)
        yield file.read_bytes(), urlencode(dict(zip(_HEAD, head, strict=True))).encode()
    else:
        expected = ", ".join((".json", *TABLES, *IMAGES))
        raise ValueError(f"{file} is not a file that can be asked about; expected one of {expected}.")


def _lists(contract: Contract, rows: list[bytes]) -> Iterator[bytes]:
    """Return lists that are no longer than the contract allows."""
    for start in range(0, len(rows), contract.max_rows):
        yield b"[" + b",".join(rows[start : start + contract.max_rows]) + b"]"


def _table_bodies(contract: Contract, columns: Mapping[str, Sequence[Any]], title: str) -> Iterator[bytes]:
    """Return a table's rows as requests. Columns that the contract does not name are left out."""
    fields = {item.name: item for item in contract.fields}
    missing = [name for name in (*_HEAD, *fields) if name not in columns]
    if missing:
        raise ValueError(f"{title} has no column {', '.join(missing)}; expected {', '.join((*_HEAD, *fields))}.")
    cells = {name: _cells(name, columns[name], item.dtype, title) for name, item in fields.items()}
    head = (*_HEAD, _KEY) if _KEY in columns else _HEAD
    heads = {name: _cells(name, columns[name], "category", title) for name in head}
    rows = []
    for index in range(len(heads["entity"])):
        row = {name: values[index] for name, values in heads.items()}
        features = {name: values[index] for name, values in cells.items()}
        rows.append(msgspec.json.encode({**row, "features": features}))
    yield from _lists(contract, rows)


def _cells(name: str, column: Sequence[Any], dtype: str, title: str) -> list[Any]:
    """Return a column's cells as a request's values of a field's type; a cell of a CSV file is text."""
    values = []
    for index, cell in enumerate(column):
        try:
            values.append(None if cell is None else _value(cell, dtype))
        except ValueError as problem:
            raise ValueError(f"{title}, row {index} (counted from 0): {name} is {cell!r}; {problem}.") from problem
    return values


def _value(cell: Any, dtype: str) -> Any:
    if dtype == "image":  # a PNG or JPEG file, or its text
        return base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell
    if dtype == "category":
        return cell.isoformat() if isinstance(cell, datetime) else str(cell)
    value: object = msgspec.convert(cell, _TYPES[dtype], strict=False)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isinf(value):  # in JSON it would become null
        raise ValueError("expected a finite number")
    return None  # NaN: in a table both mean that there is none
