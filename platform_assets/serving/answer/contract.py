"""Read a contract: the fields, bounds and types that a request must match. `decoding` reads requests by it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

import msgspec

from platform_assets.base.problems import Problem
from platform_assets.serving.answer import answers, pictures
from platform_assets.serving.answer.requests import (
    INTEGER_MAX,
    MOMENT,
    MOMENTS,
    TEXT,
    TEXT_EXPECTATION,
    Between,
)
from platform_assets.store import artifacts

FORMAT = 3
DTYPES = ("float", "int", "bool", "category", "image")
FLOAT_MAX = 3.4028234663852886e38
"""The largest float32: a larger finite number would reach the model as infinity."""
_STEP: dict[type, float | None] = {int: None, float: 1}


class ContractProblem(Problem):
    """A contract that this code cannot serve."""


class ContractField(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the model; the specs' `Field` explains the attributes."""

    name: str
    dtype: str
    description: str
    is_nullable: bool
    low: int | float | None  # as written in the contract, because the OpenAPI document repeats it
    high: int | float | None
    shape: tuple[int, int] | None
    unknown: str

    def check(self) -> None:
        """Raise `ContractProblem` if this code cannot serve the field."""
        if self.dtype not in DTYPES:
            raise ContractProblem(
                f"the contract's field {self.name!r} has dtype {self.dtype!r}; this service reads {', '.join(DTYPES)}. "
                "Build the Bento from the bundle's commit."
            )
        is_image, shape = self.dtype == "image", None if self.shape is None else list(self.shape)
        if is_image != (shape is not None) or (is_image and self.is_nullable):
            raise ContractProblem(
                f"the contract's field {self.name!r} has dtype {self.dtype!r}, shape={shape} and "
                f"is_nullable={self.is_nullable}; expected a shape for images only, and no nullable images. "
                "Fix `fields` in the product's file."
            )

    @property
    def sized(self) -> tuple[int, int]:
        """The shape of an image."""
        assert self.shape is not None, self.name
        return self.shape

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of a number, ends included: the declared one, limited to what the model can represent."""
        widest = INTEGER_MAX if self.dtype == "int" else FLOAT_MAX
        low = -widest if self.low is None else max(self.low, -widest)
        high = widest if self.high is None else min(self.high, widest)
        return (math.ceil(low), math.floor(high)) if self.dtype == "int" else (float(low), float(high))

    @property
    def type(self) -> Any:
        """The type by which msgspec decodes a value; an image becomes `bytes` afterwards."""
        return self._type(int)

    @property
    def lenient_type(self) -> Any:
        """The same, with whole numbers also as 180.0 or 1.8e2, which JSON Schema counts among integers."""
        return self._type(float)

    def _type(self, whole: Any) -> Any:
        low, high = self.bounds if self.dtype in ("float", "int") else (0, 0)
        kind: Any = {
            "float": Annotated[float, msgspec.Meta(ge=low, le=high)],
            "int": Annotated[whole, msgspec.Meta(ge=low, le=high, multiple_of=_STEP[whole])],
            "bool": bool,
            "category": TEXT,
            "image": self.dtype == "image" and _image_type(self.sized, whole),
        }[self.dtype]
        kind = kind | None if self.is_nullable else kind
        return Annotated[kind, msgspec.Meta(description=f"{self.description} ({self.expectation})")]

    @property
    def expectation(self) -> str:
        """What the field accepts: `a whole number from 0 to 59, or null`."""
        if self.dtype == "category":
            text = TEXT_EXPECTATION
        elif self.dtype == "image":
            text = pictures.expectation(self.sized)
        elif self.dtype == "bool":
            text = "true or false"
        else:
            text = "a whole number" if self.dtype == "int" else "a number"
            low, high = self.bounds
            if self.low is not None and self.high is not None:
                text += f" from {low:.15g} to {high:.15g}"
            elif self.low is not None:
                text += f" of at least {low:.15g}"
            elif self.high is not None:
                text += f" of at most {high:.15g}"
            else:
                text += f" within ±{INTEGER_MAX}" if self.dtype == "int" else " that a float32 can hold"
        return text + (", or null" if self.is_nullable else "")


def _image_type(shape: tuple[int, int], whole: Any) -> Any:
    level = Annotated[whole, msgspec.Meta(ge=0, le=255, multiple_of=_STEP[whole])]
    height, width = (msgspec.Meta(min_length=side, max_length=side) for side in shape)
    text = Annotated[str, msgspec.Meta(extra_json_schema=pictures.TEXT_SCHEMA)]
    return text | Annotated[list[Annotated[list[level], width]], height]


class _Between(msgspec.Struct, frozen=True):
    """The bounds of a moment."""

    begins: MOMENT = msgspec.field(name="from")
    ends: MOMENT = msgspec.field(name="before")


class _Document(msgspec.Struct, frozen=True):
    """A contract as stored."""

    format: int
    product: str
    title: str
    task: Any
    entity: str
    fields: tuple[ContractField, ...]
    max_rows: int
    max_body_bytes: int
    logs_features: bool
    service_time: Any
    asked_at: Any
    clock_within_s: Any


class Contract:
    """A product's contract.

    Attributes:
        sha256: of the contract's canonical bytes; a model with another contract needs another Bento.
        task: builds answers and log records from the graph's output.
        numeric, categorical: the fields of the graph's first two inputs, in column order.
        image: the field of the graph's third input, or None.
        moments: the bounds of `service_time` and `asked_at`.
        clock_within: how far both may be from the server's clock; None for a recording.
    """

    def __init__(self, document: object) -> None:
        """Read a contract's JSON values; raise `ContractProblem` if this code cannot serve it."""
        version = document.get("format") if isinstance(document, Mapping) else None
        if version != FORMAT:
            raise ContractProblem(
                f"the contract has format={version!r}; this service reads format {FORMAT}. "
                "Build the Bento from the bundle's commit."
            )
        try:
            content = msgspec.convert(document, _Document)
            self.task = answers.kind_of(content.task)
        except ValueError as problem:
            raise ContractProblem(f"the contract's {problem}. Build the Bento from the bundle's commit.") from None
        self.sha256 = artifacts.sha256(artifacts.canonical(document))
        self.product, self.title, self.entity = content.product, content.title, content.entity
        self.max_rows, self.max_body_bytes = content.max_rows, content.max_body_bytes
        self.logs_features, self.fields = content.logs_features, content.fields
        for item in self.fields:
            item.check()
        self.numeric = tuple(item for item in self.fields if item.dtype not in ("category", "image"))
        self.categorical = tuple(item for item in self.fields if item.dtype == "category")
        images = [item for item in self.fields if item.dtype == "image"]
        if len(images) > 1:
            raise ContractProblem(
                f"the contract has {len(images)} images, {', '.join(item.name for item in images)}; expected at most "
                "one. Fix `fields` in the product's file."
            )
        self.image = images[0] if images else None
        self.moments, self.clock_within = _bounds(content)

    @staticmethod
    def from_bytes(data: bytes) -> Contract:
        """Read a contract's JSON; raise `ContractProblem` if this code cannot serve it."""
        return Contract(json.loads(data))

    @property
    def takes_files(self) -> bool:
        """Whether a body may be an image file: the only field is an image."""
        return self.image is not None and len(self.fields) == 1

    @cached_property
    def features_type(self) -> Any:
        """The struct of a row's features: the numeric fields first, then the categorical ones, then the image."""
        return self._struct({item.name: item.type for item in self.fields})

    @cached_property
    def lenient_type(self) -> Any:
        """The same struct with `ContractField.lenient_type`."""
        return self._struct({item.name: item.lenient_type for item in self.fields})

    def _struct(self, types: dict[str, Any]) -> Any:
        images = () if self.image is None else (self.image,)
        names = [item.name for item in (*self.numeric, *self.categorical, *images)]
        members = [(name, types[name]) for name in names]
        return msgspec.defstruct("Features", members, forbid_unknown_fields=True, gc=False)

    def between(self, now: datetime | None) -> Between:
        """Return the bounds of `service_time` and `asked_at`, each from the first moment to before the second.

        Args:
            now: the server's clock, which a live product's moments must be close to; None skips that check.
        """
        if self.clock_within is None or now is None:
            return self.moments
        near = now - self.clock_within, now + self.clock_within
        service_time, asked_at = ((max(begins, near[0]), min(ends, near[1])) for begins, ends in self.moments)
        return service_time, asked_at


def _bounds(document: _Document) -> tuple[Between, timedelta | None]:
    """Return the bounds of moments."""
    moments, seconds = (document.service_time, document.asked_at), document.clock_within_s
    try:
        service_time, asked_at = msgspec.convert(moments, tuple[_Between, _Between])
        clock_within = None if seconds is None else timedelta(seconds=seconds)
    except (TypeError, OverflowError, msgspec.ValidationError) as problem:
        values = {name: getattr(document, name) for name in (*MOMENTS, "clock_within_s")}
        raise ContractProblem(
            f"the contract has {values}; expected an object with `from` and `before` for each moment, and seconds or "
            "null for clock_within_s. Build the Bento from the bundle's commit."
        ) from problem
    return ((service_time.begins, service_time.ends), (asked_at.begins, asked_at.ends)), clock_within
