"""Define `Field`, one input of the model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from platform_assets.base import kinds, naming, wording
from platform_assets.base.naming import RESERVED
from platform_assets.product.left_out import LATER

MOST_FIELDS = 1_000
"""Per product. More fields are an image, or a table that nobody has reviewed; both have better representations."""
MOST_PIXELS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input of the model, as a caller sends it.

    Attributes:
        name: of the input, in requests and in the columns of `features`.
        dtype: `float` and `int` are sent as numbers, `bool` as true or false, `category` as text, `image` as the base64
            text of a PNG or JPEG file, or as rows of grey levels. In tables an image is the bytes of its rows.
        description: what the value means; shown in the service's OpenAPI page. By default the name, in words.
        is_nullable: whether null is a valid value.
        low (the field's own): smallest valid value; a request below it is refused.
        high (the field's own): largest valid value; a request above it is refused.
        shape: (height, width) of an image in pixels; grey levels from 0 to 255.
        unknown: what happens to a category that training never saw: `accept` maps it to "unknown", `reject` refuses
            the request.
    """

    name: str
    dtype: Literal["float", "int", "bool", "category", "image"]
    description: str = LATER
    is_nullable: bool = False
    low: float | None = None
    high: float | None = None
    shape: tuple[int, int] | None = None
    unknown: Literal["accept", "reject"] = "accept"

    @property
    def bare(self) -> Field:
        """The field without its description, which affects no row and no weight."""
        bare = copy.copy(self)  # already validated, so skip __post_init__
        object.__setattr__(bare, "description", "")
        return bare

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Field.name")
        if self.description is LATER:
            object.__setattr__(self, "description", wording.in_words(self.name))
        kinds.check(self, f"field {self.name!r}: ")
        if self.name in RESERVED:
            raise ValueError(
                f"a field is called {self.name!r}, which has another meaning next to the fields; reserved names are "
                f"{', '.join(RESERVED)}. Rename it in `fields` and `features`; a feature may not read the label."
            )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"field {self.name!r} has low={self.low} above high={self.high}.")
        if self.dtype in ("bool", "category", "image") and (self.low is not None or self.high is not None):
            raise ValueError(f"field {self.name!r} is a {self.dtype} and takes no range.")
        if (self.dtype == "image") != (self.shape is not None):
            raise ValueError(
                f"field {self.name!r} has dtype={self.dtype!r} and shape={self.shape}; an image has a shape "
                "(height, width), and nothing else has."
            )
        if self.shape is not None and (min(self.shape) < 1 or self.shape[0] * self.shape[1] > MOST_PIXELS):
            raise ValueError(f"field {self.name!r} has shape={self.shape}; expected 1 to {MOST_PIXELS:,} pixels.")
        if self.dtype == "image" and self.is_nullable:
            raise ValueError(f"field {self.name!r} is an image and cannot be null: a model cannot read nothing.")
