"""Build the rows of features, and put those aside whose values the fields do not declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import declared
from platform_assets.compute.windows import FeatureTables, Tables, Window
from platform_assets.makers.parts import Made, by_key

if TYPE_CHECKING:
    from platform_assets.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.specs.base import ProductSpec

ABOUT_A_ROW = {
    "entity": "what one prediction is about",
    "service_time": "when the entity is served; its key follows from it (UTC)",
    "asked_at": "the moment of the question: nothing known later is seen (UTC)",
}


@dataclass(frozen=True, kw_only=True)
class Building:
    """Builds features; see `ProductSpec` for what it is made of.

    Attributes:
        product: its name, for messages.
        label: the source that brings the labels, which no feature may read.
    """

    product: str
    features: Callable[[Tables, Window], pl.DataFrame]
    fields: tuple[Field, ...]
    grain: Grain
    label: str

    @staticmethod
    def of(spec: ProductSpec) -> Building:
        """Return what builds the features of a product."""
        return Building(
            product=spec.name,
            features=spec.features,
            fields=spec.bare_fields,
            grain=spec.grain,
            label=spec.label_source.name,
        )

    def make(self, run: tuple[str, ...], rows: Mapping[str, pl.DataFrame], nulled: Mapping[str, str]) -> Made:
        """Return the features of a contiguous run of keys.

        Args:
            run: the keys.
            rows: validated rows by source, of these keys and of those that they look back on.
            nulled: by key, the source whose rows of that key are left out.

        Raises:
            ValueError: other columns than the product's fields, or other keys.
        """
        tables = dict(rows)
        for key, source in nulled.items():
            tables[source] = tables[source].filter(pl.col("key") != key)
        built = self.features(FeatureTables(self.product, self.label, tables), Window(grain=self.grain, keys=run))
        expected = ["key", *ABOUT_A_ROW, *(item.name for item in self.fields)]
        if built.columns != expected:
            raise ValueError(
                f"features of {self.product} returned columns {built.columns}; expected {expected}. "
                "Mend `features` or `fields` in the product's file."
            )
        frames: dict[str, pl.DataFrame] = {}
        notes: dict[str, declared.PutAside] = {}
        for key, part in by_key(built, run, f"features of {self.product}").items():
            frames[key], reasons = declared.split(part, self.fields)
            notes[key] = declared.notes(reasons)
        return Made(frames=frames, notes=notes)
