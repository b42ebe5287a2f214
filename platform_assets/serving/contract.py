"""Read a contract: what a request may hold.

Belongs here: fields, bounds and the types that msgspec checks in one pass over the bytes. Does not belong here:
decoding by them (`decoding`), telling a caller what is wrong (`diagnosis`), or scoring.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

import msgspec

from platform_assets.keys import EARLIEST, LATEST
from platform_assets.problems import Problem
from platform_assets.serving import answers
from platform_assets.serving.decoding import Decoding
from platform_assets.serving.requests import INTEGER_MAX, MOMENT, MOMENTS, TEXT_MAX, Between, Request
from platform_assets.serving.turns import finish
from platform_assets.storage import artifacts

FORMAT, OLDER_FORMAT = 3, 2
DTYPES = ("float", "int", "bool", "category", "image")
FLOAT_MAX = 3.4028234663852886e38
"""The largest float32: above it a finite number would reach the model as infinity."""


class ContractProblem(Problem):
    """A contract that this code cannot serve."""


@dataclass(frozen=True, kw_only=True)
class ContractField:
    """One input of the model; see `Field` in the specs for the meaning."""

    name: str
    dtype: str
    description: str
    is_nullable: bool
    low: float | None
    high: float | None
    shape: tuple[int, int] | None
    unknown: str

    @property
    def sized(self) -> tuple[int, int]:
        """The shape of an image."""
        assert self.shape is not None, self.name
        return self.shape

    @property
    def bounds(self) -> tuple[float, float]:
        """The range that a number must lie in, ends included: the declared one within what the model can hold."""
        widest = INTEGER_MAX if self.dtype == "int" else FLOAT_MAX
        low = -widest if self.low is None else max(self.low, -widest)
        high = widest if self.high is None else min(self.high, widest)
        return (math.ceil(low), math.floor(high)) if self.dtype == "int" else (float(low), float(high))

    @property
    def type(self) -> Any:
        """The type by which msgspec decodes a value; an image becomes `bytes` afterwards."""
        if self.dtype == "image":
            level = Annotated[int, msgspec.Meta(ge=0, le=255)]
            height, width = (msgspec.Meta(min_length=side, max_length=side) for side in self.sized)
            return str | Annotated[list[Annotated[list[level], width]], height]
        low, high = self.bounds if self.dtype in ("float", "int") else (0, 0)
        kind: Any = {
            "float": Annotated[float, msgspec.Meta(ge=low, le=high)],
            "int": Annotated[int, msgspec.Meta(ge=low, le=high)],
            "bool": bool,
            "category": Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)],
        }[self.dtype]
        return kind | None if self.is_nullable else kind


class Contract:
    """A product's contract and the decoder made from it.

    Attributes:
        sha256: of the contract's canonical bytes; a model with another one needs another Bento.
        task: what makes answers and log records of what the graph says.
        numeric, categorical: the fields behind the graph's two inputs, in the order of their columns.
        image: the field behind the graph's third input, or None.
        moments: the bounds of `service_time` and `asked_at`.
        clock_within: how far both may be from the server's clock; None for a recording.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        if document.get("format") not in (OLDER_FORMAT, FORMAT):
            raise ContractProblem(
                f"the contract has format={document.get('format')!r}; this service reads formats {OLDER_FORMAT} and "
                f"{FORMAT}. "
                "Build the Bento from the bundle's commit."
            )
        try:
            self.task = answers.kind_of(document.get("task"))
        except ValueError as problem:
            raise ContractProblem(f"the contract's {problem}. Build the Bento from the bundle's commit.") from None
        self.document = document
        self.sha256 = artifacts.sha256(artifacts.canonical(document))
        self.product: str = document["product"]
        self.title: str = document["title"]
        self.entity: str = document["entity"]
        self.max_rows: int = document["max_rows"]
        self.max_body_bytes: int = document["max_body_bytes"]
        self.logs_features: bool = document["logs_features"]
        self.fields = tuple(_field(item) for item in document["fields"])
        self.numeric = tuple(item for item in self.fields if item.dtype not in ("category", "image"))
        self.categorical = tuple(item for item in self.fields if item.dtype == "category")
        images = [item for item in self.fields if item.dtype == "image"]
        if len(images) > 1:
            raise ContractProblem(
                f"the contract has {len(images)} images, {', '.join(item.name for item in images)}; expected at most "
                "one. Mend `fields` in the product's file."
            )
        self.image = images[0] if images else None
        self.moments, self.clock_within = _bounds(document)

    @staticmethod
    def from_bytes(data: bytes) -> Contract:
        """Read a contract's JSON; raise `ContractProblem` when this code does not know its format."""
        return Contract(json.loads(data))

    @property
    def takes_files(self) -> bool:
        """Whether a body may be an image file: its only field is an image."""
        return self.image is not None and len(self.fields) == 1

    @cached_property
    def features_type(self) -> Any:
        """The struct of a row's features: the numeric fields first, then the categorical ones, then the image."""
        images = () if self.image is None else (self.image,)
        return msgspec.defstruct(
            "Features",
            [(item.name, item.type) for item in (*self.numeric, *self.categorical, *images)],
            forbid_unknown_fields=True,
            gc=False,
        )

    @cached_property
    def row_type(self) -> Any:
        """The struct of one row."""
        text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
        return msgspec.defstruct(
            "Row",
            [
                ("entity", text),
                ("service_time", MOMENT),
                ("asked_at", MOMENT),
                ("features", self.features_type),
                ("idempotency_key", text | msgspec.UnsetType | None, msgspec.UNSET),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )

    def between(self, now: datetime | None) -> Between:
        """Return the bounds of `service_time` and `asked_at`: from the first, before the second.

        Args:
            now: by the server's clock, to which a live product's moments must be near; None leaves that out.
        """
        if self.clock_within is None or now is None:
            return self.moments
        near = now - self.clock_within, now + self.clock_within
        service_time, asked_at = ((max(begins, near[0]), min(ends, near[1])) for begins, ends in self.moments)
        return service_time, asked_at

    def decode(self, body: bytes | bytearray, now: datetime | None = None) -> Request:
        """Return the rows of a body, or raise `Refused` naming the first field to mend.

        Every value that comes out is what the contract allows: no NaN or infinity, no text or boolean for a
        number, no key twice, no moment out of bounds. An image is the `bytes` of its grey levels, row by row, in
        whatever form it came. Costs one pass; the precise reason is looked for only after a failure.

        Args:
            body: as received.
            now: as in `between`.
        """
        return finish(self.decoding.steps(body, now))

    @cached_property
    def decoding(self) -> Decoding:
        """The decoders, which work in slices."""
        return Decoding(self, TEXT_MAX)


def _bounds(document: Mapping[str, Any]) -> tuple[Between, timedelta | None]:
    """Read the bounds of moments; an older contract states none, and gets the widest that a log can be read by."""
    if document["format"] == OLDER_FORMAT:
        return ((EARLIEST, LATEST), (EARLIEST, LATEST)), None
    try:
        service_time, asked_at = (
            (msgspec.convert(document[name]["from"], MOMENT), msgspec.convert(document[name]["before"], MOMENT))
            for name in MOMENTS
        )
        seconds = document["clock_within_s"]
        return (service_time, asked_at), None if seconds is None else timedelta(seconds=seconds)
    except (KeyError, TypeError, OverflowError, msgspec.ValidationError) as problem:
        shown = {name: document.get(name) for name in (*MOMENTS, "clock_within_s")}
        raise ContractProblem(
            f"the contract has {shown}; expected an object with `from` and `before` for each moment, and seconds or "
            "null. Build the Bento from the bundle's commit."
        ) from problem


def _field(document: dict[str, Any]) -> ContractField:
    """Read one of the contract's fields."""
    name, dtype, shape = document["name"], document["dtype"], document["shape"]
    if dtype not in DTYPES:
        raise ContractProblem(
            f"the contract's field {name!r} has dtype {dtype!r}; this service reads {', '.join(DTYPES)}. "
            "Build the Bento from the bundle's commit."
        )
    if (dtype == "image") != (shape is not None) or (dtype == "image" and document["is_nullable"]):
        raise ContractProblem(
            f"the contract's field {name!r} has dtype {dtype!r}, shape={shape} and "
            f"is_nullable={document['is_nullable']}; expected a shape for an image alone, which cannot be null. "
            "Mend `fields` in the product's file."
        )
    return ContractField(**{**document, "shape": None if shape is None else (shape[0], shape[1])})
