"""What stages ask of the rooms around the core: what to show, what money allows, who runs steps, who tracks runs.

The core imports none of those rooms. `automation.factory` says what stands behind the classes; by themselves nothing
costs anything and nothing is tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.base.wording import counted
from platform_assets.engine.balance import NOTHING, Balance
from platform_assets.engine.metadata import Metadata

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl

    from platform_assets.product.sources import Source
    from platform_assets.product.spec import Product
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.records.attempts import Overspending
    from platform_assets.store.tables import PartitionRecord


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What there is to show of one key of a table, or of a cutoff.

    Attributes:
        table: its bare name.
        source: of a table with one asset per source.
        record: the key's; None where nothing has landed, and for stages without keys.
        facts: what else the stage found out, of a type of its own.
    """

    spec: Product
    table: str
    source: Source | None = None
    record: PartitionRecord | None = None
    facts: Any = None


View = Callable[[Shown], tuple[str, Metadata | None]]
"""Return the sentence that heads the page in Dagster, and its metadata; None for the notes of the record."""


def plain(shown: Shown) -> tuple[str, Metadata | None]:
    """View a key as its number of rows."""
    if shown.record is None:
        return "no file has landed for this key", None
    return counted(shown.record.rows, "row"), None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a try at a step is for: names its ledger records, and identifies a try that is under way.

    Attributes:
        step: `train`, `export`, `backtest` for a training of a backtest, or `trial` for one of a search.
        fingerprint: hexadecimal; equal fingerprints mean equal results.
        owner: of the product, whom its cost is attributed to; None if not known.
    """

    product: str
    step: str
    cutoff: str
    fingerprint: str
    owner: str | None = None


class Size(Protocol):
    """What a step runs on, as far as its result depends on it."""

    @property
    def device(self) -> str:
        """Of torch: `cpu`, `cuda` or another."""

    @property
    def precision(self) -> str:
        """Of a training: `float32`, `bfloat16` or `tf32`."""

    @property
    def name(self) -> str:
        """Of the profile."""

    @property
    def world_size(self) -> int:
        """How many processes share a training."""


class Launcher(Protocol):
    """Runs steps outside of Dagster, on a machine of a profile's size: the resource `launcher`."""

    def size(self, profile: str) -> Size:
        """Return what a step of this profile runs on."""

    def libraries(self, size: Any) -> dict[str, str]:
        """Return the versions of the libraries that determine a step's bytes, where a step of this size would run."""

    def run(
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        extras: object,
        profile: Any,
        work: Work | None,
        is_shared: bool = False,
    ) -> object:
        """Run a step's module, shared by the profile's processes or in one; return its result as JSON values."""


class Budget:
    """Says what trainings cost, and which are not launched for that; this one has no prices."""

    def check(self, spec: Product) -> None:
        """Raise `ValueError` for a product whose statements about cost cannot be."""

    def balance(self, spec: Product, attempts: pl.DataFrame, month: str) -> Balance:
        """Return what a month's attempts have cost, and what a training more would."""
        return NOTHING

    def usd_of(self, cpu_s: float) -> float:
        """Return what CPU seconds cost."""
        return 0.0

    def allow(
        self, product: ProductStore, *, cutoff: str, fingerprint: str, reason: str, run_id: str
    ) -> Overspending | None:
        """Return normally when a training may be launched, with the record of a person's override, if it took one."""
        return None


# A protocol, because what stands behind it is a module.
class Tracking(Protocol):
    """Copies what a training left to a server that tracks runs."""

    def export(self, product: ProductStore, fingerprint: str, warn: Callable[[str], None]) -> None:
        """Copy a training that ended."""

    def attach(self, product: ProductStore, checkpoint: str, bundle: str, warn: Callable[[str], None]) -> None:
        """Add the graph of a bundle to its training."""


class Untracked:
    """Tracks nothing."""

    def export(self, product: ProductStore, fingerprint: str, warn: Callable[[str], None]) -> None:
        """Do nothing."""

    def attach(self, product: ProductStore, checkpoint: str, bundle: str, warn: Callable[[str], None]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What stands behind these classes.

    Attributes:
        views: what Dagster shows of each table; `plain` of those that have none.
        resources: what assets are bound to, by key, so that they need nothing of their code location; those that are
            missing are asked of it.
    """

    views: Mapping[str, View] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    tracking: Tracking = field(default_factory=Untracked)
    resources: Mapping[str, dg.ResourceDefinition] = field(default_factory=dict)


ALONE = Outside()
