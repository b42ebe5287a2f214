"""The arguments of a product's `features`: a run of keys, and the tables it may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.base.keys import Grain

Tables = Mapping[str, "pl.DataFrame"]
"""Validated rows by source name; each frame has the column `key` (slow sources: `all`)."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A contiguous run of keys for which `features` builds rows.

    Attributes:
        grain: of the product.
        keys: in order, without a gap.
    """

    grain: Grain
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.keys or self.grain.span(self.keys[0], self.keys[-1]) != self.keys:
            raise ValueError(f"keys are {self.keys!r}; expected a contiguous, full run of {self.grain.describe()}.")


class FeatureTables(dict[str, "pl.DataFrame"]):
    """The tables `features` may read; reading any other is an error with an explanation."""

    def __init__(self, product: str, label: str, tables: Mapping[str, pl.DataFrame]) -> None:
        """Hold `tables` for a product whose labels come from the source `label`."""
        super().__init__(tables)
        self._product, self._label = product, label

    def __missing__(self, name: str) -> pl.DataFrame:
        if name == self._label:
            raise ValueError(
                f"features of {self._product} reads {name!r}, which delivers the labels; a feature may not read the "
                "label, because it does not exist yet when the model is asked. Fix `features` in the product's file."
            )
        names = ", ".join(self)
        raise ValueError(f"features of {self._product} reads {name!r}, which is not a source; the sources are {names}.")
