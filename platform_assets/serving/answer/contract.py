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
    TEXT,
    TEXT_EXPECTATION,
    Between,
)
from platform_assets.store import artifacts

FORMAT = 3
DTYPES = ("float", "int", "bool", "category", "image")
FLOAT_MAX = 3.4028234663852886e38
"""The largest float32: a larger finite number would reach the model as infinity."""
CLOCK_S_MAX = 86_400 * 36_525
"""A hundred years; far more does not fit into a difference of two moments."""
_STEP: dict[type, float | None] = {int: None, float: 1}  # a float is whole if 1 divides it


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

    def type(self, whole: Any = int) -> Any:
        """Return the type by which msgspec decodes a value; an image becomes `bytes` afterwards.

        Args:
            whole: of whole numbers; float also takes them as 180.0 or 1.8e2, which JSON Schema counts among integers.
        """
        low, high = self.bounds if self.dtype in ("float", "int") else (0, 0)
        # typing returns an equal type that was made before, and 0 == 0.0: the text keeps such bounds apart.
        apart = {"bounds": f"{low} {high}"}
        kind: Any = {
            "float": Annotated[float, msgspec.Meta(ge=low, le=high, extra=apart)],
            "int": Annotated[whole, msgspec.Meta(ge=low, le=high, multiple_of=_STEP[whole], extra=apart)],
            "bool": bool,
            "category": TEXT,
            "image": None,
        }[self.dtype]
        if self.dtype == "image":
            level = Annotated[whole, msgspec.Meta(ge=0, le=255, multiple_of=_STEP[whole])]
            height, width = (msgspec.Meta(min_length=side, max_length=side) for side in self.sized)
            text = Annotated[str, msgspec.Meta(extra_json_schema=pictures.TEXT_SCHEMA)]
            kind = text | Annotated[list[Annotated[list[level], width]], height]
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


class _Between(msgspec.Struct, frozen=True):
    """The bounds of a moment."""

    begins: MOMENT = msgspec.field(name="from")
    ends: MOMENT = msgspec.field(name="before")


class _Document(msgspec.Struct, frozen=True):
    """A contract as stored."""

    format: int
    product: str
    title: str
    task: answers.Kind
    entity: str
    fields: tuple[ContractField, ...]
    max_rows: int
    max_body_bytes: int
    logs_features: bool
    service_time: _Between
    asked_at: _Between
    clock_within_s: Annotated[float, msgspec.Meta(ge=0, le=CLOCK_S_MAX)] | None


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
        except ValueError as problem:
            raise ContractProblem(
                f"the contract cannot be read: {problem}. Build the Bento from the bundle's commit."
            ) from None
        self.sha256, self.task = artifacts.sha256(artifacts.canonical(document)), content.task
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
        seconds, (service_time, asked_at) = content.clock_within_s, (content.service_time, content.asked_at)
        self.clock_within = None if seconds is None else timedelta(seconds=seconds)
        self.moments: Between = (service_time.begins, service_time.ends), (asked_at.begins, asked_at.ends)

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
        return self.struct(int)

    def struct(self, whole: Any) -> Any:
        """Return `features_type` for a type of whole numbers; see `ContractField.type`."""
        fields = (*self.numeric, *self.categorical, *(() if self.image is None else (self.image,)))
        members = [(item.name, item.type(whole)) for item in fields]
        # Rows hold no cycles, and the collector would look at every one of a list.
        return msgspec.defstruct("Features", members, forbid_unknown_fields=True, gc=False)

    def between(self, now: datetime | None) -> Between:
        """Return the bounds of `service_time` and `asked_at`, each from the first moment to before the second.

        Args:
            now: the server's clock, which a live product's moments must be close to; None skips that check.
        """
        if self.clock_within is None or now is None:
            return self.moments
        # Whatever lies far from the clock belongs to a key that is closed, or to none yet.
        near = now - self.clock_within, now + self.clock_within
        service_time, asked_at = ((max(begins, near[0]), min(ends, near[1])) for begins, ends in self.moments)
        return service_time, asked_at
