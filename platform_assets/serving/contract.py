"""Read a contract and decode requests by it: the fast path.

Belongs here: what a request may hold, as types that msgspec checks in one pass over the bytes. Does not belong
here: telling a caller what is wrong (`diagnosis`, after a failure only), or scoring.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

import msgspec

from platform_assets.storage import artifacts

FORMAT = 1
TEXT_MAX = 256
"""The longest entity, category or idempotency key, in code points."""
FLOAT_MAX = 3.4028234663852886e38
"""The largest float32: above it a finite number would reach the model as infinity."""
INTEGER_MAX = 2**53
"""Up to here every JSON reader agrees about whole numbers."""
ROW_FIELDS = ("entity", "service_time", "asked_at", "features", "idempotency_key")


class ContractProblem(Exception):
    """A contract that this code cannot serve."""


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: the HTTP status.
        sentence: what came, what was expected.
        field: the dotted path of the field to mend (`[3].features.temp`), or None.
    """

    def __init__(self, status: int, sentence: str, field: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.field = status, sentence, field


@dataclass(frozen=True, kw_only=True)
class ContractField:
    """One input of the model; see `Field` in the specs for the meaning."""

    name: str
    dtype: str
    description: str
    is_nullable: bool
    low: float | None
    high: float | None
    unknown: str

    @property
    def bounds(self) -> tuple[float, float]:
        """The range that a number must lie in, ends included: the declared one within what the model can hold."""
        widest = INTEGER_MAX if self.dtype == "int" else FLOAT_MAX
        low = -widest if self.low is None else max(self.low, -widest)
        high = widest if self.high is None else min(self.high, widest)
        return (math.ceil(low), math.floor(high)) if self.dtype == "int" else (float(low), float(high))

    @property
    def type(self) -> Any:
        """The type by which msgspec decodes a value."""
        low, high = self.bounds if self.dtype in ("float", "int") else (0, 0)
        kind: Any = {
            "float": Annotated[float, msgspec.Meta(ge=low, le=high)],
            "int": Annotated[int, msgspec.Meta(ge=low, le=high)],
            "bool": bool,
            "category": Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)],
        }[self.dtype]
        return kind | None if self.is_nullable else kind


@dataclass(frozen=True)
class Request:
    """A decoded body: rows in order, and whether the caller sent a list."""

    rows: list[Any]
    is_list: bool


class Contract:
    """A product's contract and the decoder made from it.

    Attributes:
        sha256: of the contract's canonical bytes; a model with another one needs another Bento.
        numeric, categorical: the fields behind the graph's two inputs, in the order of their columns.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        if document.get("format") != FORMAT or document.get("task") != "binary":
            raise ContractProblem(
                f"the contract has format={document.get('format')!r} and task={document.get('task')!r}; "
                f"this service reads format {FORMAT} and task 'binary'. Build the Bento from the bundle's commit."
            )
        self.document = document
        self.sha256 = artifacts.sha256(artifacts.canonical(document))
        self.product: str = document["product"]
        self.title: str = document["title"]
        self.entity: str = document["entity"]
        self.operating_threshold: float = document["operating_threshold"]
        self.max_rows: int = document["max_rows"]
        self.max_body_bytes: int = document["max_body_bytes"]
        self.logs_features: bool = document["logs_features"]
        self.fields = tuple(ContractField(**item) for item in document["fields"])
        self.numeric = tuple(item for item in self.fields if item.dtype != "category")
        self.categorical = tuple(item for item in self.fields if item.dtype == "category")
        self._decoder = msgspec.json.Decoder(self.row_type | Annotated[list[self.row_type], self._length])  # type: ignore[name-defined]  # made at run time
        self._quotes_a_row = 2 * (len(self.fields) + 4 + 3)

    @staticmethod
    def from_bytes(data: bytes) -> Contract:
        """Read a contract's JSON; raise `ContractProblem` when this code does not know its format."""
        return Contract(json.loads(data))

    @cached_property
    def row_type(self) -> Any:
        """The struct of one row; its `features` struct holds the numeric fields first, then the categorical ones."""
        features = msgspec.defstruct(
            "Features",
            [(item.name, item.type) for item in (*self.numeric, *self.categorical)],
            forbid_unknown_fields=True,
            gc=False,
        )
        text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
        moment = Annotated[datetime, msgspec.Meta(tz=True)]
        return msgspec.defstruct(
            "Row",
            [
                ("entity", text),
                ("service_time", moment),
                ("asked_at", moment),
                ("features", features),
                ("idempotency_key", text | msgspec.UnsetType | None, msgspec.UNSET),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )

    @property
    def _length(self) -> msgspec.Meta:
        return msgspec.Meta(min_length=1, max_length=self.max_rows)

    def decode(self, body: bytes | bytearray) -> Request:
        """Return the rows of a body, or raise `Refused` naming the first field to mend.

        Every value that comes out is what the contract allows: no NaN or infinity, no text or boolean for a
        number, no key twice. Costs one pass; the precise reason is looked for only after a failure.
        """
        try:
            decoded = self._decoder.decode(body)
            is_list = isinstance(decoded, list)
            rows = decoded if is_list else [decoded]
            if self._is_plain(body, rows):
                return Request(rows, is_list)
            reason = ""
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            rows, is_list, reason = None, False, str(problem)
        from platform_assets.serving.diagnosis import diagnose

        found = diagnose(self, bytes(body))
        if found is not None:
            raise found
        if rows is None:
            raise Refused(422, f"the body does not follow the contract: {reason}.")
        return Request(rows, is_list)

    def _is_plain(self, body: bytes | bytearray, rows: list[Any]) -> bool:
        """Tell in a microsecond whether nothing is left to look at: no key twice, times in UTC.

        msgspec takes the last of two equal keys. Every key is required, so a body without escapes and without
        duplicates has a known number of quotes; anything else goes to the diagnosis, which looks properly.
        """
        if b"\\" in body:
            return False
        first_category = len(self.numeric)
        quotes = self._quotes_a_row * len(rows)
        for row in rows:
            if row.service_time.tzinfo is not UTC or row.asked_at.tzinfo is not UTC:
                return False
            if row.idempotency_key is not msgspec.UNSET:
                quotes += 2 if row.idempotency_key is None else 4
            categories = msgspec.structs.astuple(row.features)[first_category:]
            quotes += 2 * (len(categories) - categories.count(None))
        return body.count(b'"') == quotes
