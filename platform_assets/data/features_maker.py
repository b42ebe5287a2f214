"""Build feature rows, and set aside the rows whose values violate the declared fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from platform_assets.data import declared
from platform_assets.data.stage_inputs import read_together
from platform_assets.engine.outputs import RowMaker, StageOutput, by_key, contiguous
from platform_assets.product.windows import FeatureTables, Tables, Window

if TYPE_CHECKING:
    from platform_assets.base.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.product.spec import Product

ABOUT_A_ROW = {
    "entity": "what one prediction is about",
    "service_time": "when the entity is served; its key follows from it (UTC)",
    "asked_at": "the moment of the question: nothing known later is seen (UTC)",
}


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Deliveries in a key's lookback that cannot be read.

    Attributes:
        awaits: keys by source; the key gets no rows until they are delivered again or settled.
        gaps: keys by source; the key's rows are built without them.
    """

    awaits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    gaps: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Building(RowMaker):
    """Builds a product's features; see `Product`.

    Attributes:
        product: its name, for messages.
        label: the source that delivers the labels, which no feature may read.
    """

    NUMBER: ClassVar[int] = 1
    CARRIERS: ClassVar[tuple[object, ...]] = (read_together,)

    product: str
    features: Callable[[Tables, Window], pl.DataFrame]
    fields: tuple[Field, ...]
    grain: Grain
    label: str

    @staticmethod
    def for_product(spec: Product) -> Building:
        """Return the maker for a product."""
        return Building(
            product=spec.name,
            features=spec.features,
            fields=spec.bare_fields,
            grain=spec.grain,
            label=spec.label_source.name,
        )

    def own(self) -> dict[str, Any]:
        """Return the members; when the product's keys end affects no row."""
        return {**super().own(), "grain": self.grain.endless}

    def runs(self, snapshots: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
        """Group keys into contiguous runs that are built with the same snapshots of slow tables.

        Args:
            snapshots: names by key, in the order of the keys.
        """
        groups: dict[tuple[str, ...], list[str]] = {}
        for key, names in snapshots.items():
            groups.setdefault(tuple(names), []).append(key)
        return [run for group in groups.values() for run in contiguous(self.grain, group)]

    def make_all(
        self,
        rows: Mapping[tuple[str, ...], Mapping[str, pl.DataFrame]],
        nulled: Mapping[str, str],
        unread: Mapping[str, Unread],
    ) -> StageOutput:
        """Build the features of several runs.

        Args:
            rows: as `make` takes them, by run.
            nulled: as in `make`.
            unread: by key.
        """
        frames, notes = dict[str, pl.DataFrame](), dict[str, Mapping[str, Any]]()
        for run in rows:
            part = self.make(run, rows[run], nulled)
            frames |= part.frames
            notes |= part.notes
        for key, missing in unread.items():
            if missing.awaits:
                frames[key], notes[key] = frames[key].clear(), {"awaits": missing.awaits}
            elif missing.gaps:
                notes[key] = {**notes[key], "gaps": missing.gaps}
        return StageOutput(frames=frames, notes=notes)

    def make(self, run: tuple[str, ...], rows: Mapping[str, pl.DataFrame], nulled: Mapping[str, str]) -> StageOutput:
        """Build the features of a contiguous run of keys.

        Args:
            run: the keys.
            rows: validated rows per source, of these keys and of the keys they look back on.
            nulled: key -> the source whose rows of that key are left out.

        Raises:
            ValueError: the columns are not the product's fields, or rows belong to other keys.
        """
        tables = dict(rows)
        for key, source in nulled.items():
            tables[source] = tables[source].filter(pl.col("key") != key)
        built = self.features(FeatureTables(self.product, self.label, tables), Window(grain=self.grain, keys=run))
        expected = ["key", *ABOUT_A_ROW, *(item.name for item in self.fields)]
        if set(built.columns) != set(expected):
            raise ValueError(
                f"features of {self.product} returned columns {built.columns}; expected {expected}. "
                "Fix `features` or `fields` in the product's file."
            )
        built = built.select(expected)
        frames: dict[str, pl.DataFrame] = {}
        notes: dict[str, declared.PutAside] = {}
        for key, part in by_key(built, run, f"features of {self.product}").items():
            # Set aside, not refused: a failed step would stop a broken key before its judgement, which alerts a person.
            frames[key], reasons = declared.split(part, self.fields)
            notes[key] = declared.notes(reasons)
        return StageOutput(frames=frames, notes=notes)
