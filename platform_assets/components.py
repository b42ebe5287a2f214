"""Offer a product as a Dagster component: `dg scaffold defs driftline.ProductComponent churn`, in any Dagster project.

The scaffold writes `defs.yaml` and the product's file into the user's own package. A component defines its product's
assets and checks; the first one by module also defines what they share, and every product's jobs and schedules, because
Dagster requires sensors and their jobs to come from one place. Nothing else of the code location changes.

In this checkout the code location itself takes components' products with those of `platform_assets/products/`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Self

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel, PrivateAttr

from platform_assets import sensors
from platform_assets.automation import factory, placeholders
from platform_assets.automation.resources import defaults
from platform_assets.base import naming
from platform_assets.base.settings import is_validating
from platform_assets.engine import product_files
from platform_assets.engine.product_files import Broken
from platform_assets.product.spec import Product

OWN_FOLDER = f"{__package__}.defs"
FILE = "product.py"
PYTHON = """import dagster as dg
from driftline import ProductComponent


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> ProductComponent:
    return ProductComponent(module=f"{__package__}.product")
"""
PRODUCT = '''"""{title}: say in a sentence what is predicted, about what and when."""

import polars as pl
from driftline import DailyGrain, Field, LightGbm, Product, Source

MOMENT = pl.Datetime("us", "UTC")


def orders():  # a row that breaks it goes to quarantine, with a reason
    import pandera.polars as pa

    columns = {{"id": pa.Column(pl.String), "at": pa.Column(MOMENT), "amount": pa.Column(pl.Float64, nullable=True)}}
    return pa.DataFrameSchema(columns)


def outcomes():
    import pandera.polars as pa

    return pa.DataFrameSchema({{"id": pa.Column(pl.String), "label": pa.Column(pl.Int8), "at": pa.Column(MOMENT)}})


def features(tables, window):  # one row per entity, from what was known at `asked_at`
    rows = tables["orders"].filter(pl.col("key").is_in(window.keys)).sort("key", "id")
    moments = {{name: pl.col("at") for name in ("service_time", "asked_at")}}
    return rows.select("key", entity="id", **moments, amount="amount")


def label(rows):
    return rows.select("key", entity="id", label="label", known_at="at")


SPEC = Product(
    name="{name}",
    title="{title}",
    description="Say in a sentence what is predicted, about what and when.",
    grain=DailyGrain(start="2026-01-01", time_zone="UTC"),
    sources=(  # one file per day: landing/{name}/orders/2026-01-01.csv
        Source(name="orders", description="Orders.", schema=orders, known_at="at", partition_by="at"),
        Source(name="outcomes", description="What became of them.", schema=outcomes, known_at="at", is_label=True),
    ),
    lookback=0,
    features=features,
    fields=(Field(name="amount", dtype="float", description="of the order", is_nullable=True),),
    entity="order",
    label=label,
    label_delay=1,
    model=LightGbm(),
    holdout=14,
    min_keys=42,
    is_live=True,
)
'''


class ProductScaffolder(dg.Scaffolder):
    """Write the component of the product named like its folder, and a first file of that product next to it."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        name, folder = request.target_path.name, request.target_path
        naming.check_name(name, "the product's folder")
        if request.scaffold_format == "python":
            (folder / "component.py").write_text(PYTHON, encoding="utf-8")
        else:
            scaffold_component(request, {"automation": False})
        if not (folder / FILE).exists():
            text = PRODUCT.format(name=name, title=name.replace("_", " ").capitalize())
            (folder / FILE).write_text(text, encoding="utf-8")


@dg.scaffold_with(ProductScaffolder)
class ProductComponent(dg.Component, dg.Model, dg.Resolvable):
    """One Driftline product: its assets, checks, jobs and schedules, and the sensors of all products.

    Attributes:
        module: that defines the product; by default `product.py` next to the component's file.
        automation: whether its sensors and schedules run unless a person stops them. They are stopped otherwise, until
            a person starts them.
    """

    module: str | None = None
    automation: bool = False
    _module: str = PrivateAttr("")
    _conflict: Broken | None = PrivateAttr(None)

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Load the component of a YAML file."""
        component = super().load(attributes, context)
        component.place(context)
        return component

    def place(self, context: dg.ComponentLoadContext) -> None:
        """Note which module defines the product."""
        self._module = self.module or context.defs_relative_module_name(Path(FILE))

    @property
    def _place(self) -> str:
        """The module that defines the product; an instance in Python names it, and is placed last."""
        return self._module or str(self.module)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the product's definitions; the first of several products includes what all share.

        Raises:
            ValueError: definitions are being validated, and the product's file is broken; elsewhere it becomes one
                asset that says why.
        """
        if context.defs_module_name == OWN_FOLDER:
            # `definitions.py` takes its product.
            return dg.Definitions() if isinstance(self.loaded, Product) else self.built
        self.place(context)
        components = self._components(context)
        own = dg.Definitions(assets=self.built.assets, asset_checks=self.built.asset_checks)
        if components[0] is not self:
            return own
        # Where a component is automated, sensors run for those that are; elsewhere they are there for all, stopped.
        is_automatic = any(component.automation for component in components)
        specs = [one.spec for one in components if one.automation is is_automatic and one.spec]
        jobs = [job for component in components for job in component.built.jobs or ()]
        shared = dg.Definitions(
            sensors=sensors.build(specs, jobs, defaults(), prefix=naming.GUEST, is_automatic=is_automatic),
            jobs=jobs,
            schedules=[schedule for component in components for schedule in component.built.schedules or ()],
        )
        return dg.Definitions.merge(shared, own)

    @cached_property
    def loaded(self) -> Product | Broken:
        """The product, or why there is none."""
        try:
            return product_files.load_module(self._place)
        except ValueError as problem:
            return product_files.unloadable(self._place, problem)

    @cached_property
    def built(self) -> dg.Definitions:
        """The product's own definitions; built once, because Dagster compares jobs by identity."""
        broken = self._conflict or self.loaded
        if isinstance(broken, Product):
            try:
                return factory.product_definitions(broken, defaults(), is_automatic=self.automation)
            except Exception as problem:  # a file may raise anything
                broken = product_files.broken_by(broken.module, problem)
                if is_validating():
                    raise product_files.problem_of([broken]) from problem
        elif is_validating():
            raise product_files.problem_of([broken]) from broken.cause
        return placeholders.placeholder(broken)

    @property
    def spec(self) -> Product | None:
        """The product; None where its definitions could not be built."""
        return self.loaded if isinstance(self.loaded, Product) and self.built.jobs else None

    def check_with(self, others: tuple[Product, ...]) -> tuple[Product, ...]:
        """Return the products with this one, unless it is broken or contradicts one of them: then it becomes broken."""
        if not isinstance(self.loaded, Product):
            return others
        try:
            return product_files.check_together((*others, self.loaded))
        except ValueError as problem:
            self._conflict = product_files.unloadable(self._place, problem)
            return others

    def _components(self, context: dg.ComponentLoadContext) -> list[ProductComponent]:
        """Return the location's components by module; only this one where no folder is loaded."""
        tree, components = context.component_tree, [self]
        if isinstance(tree.defs_module, ModuleType):
            found = sorted(tree.get_all_components(ProductComponent), key=lambda component: component._place)
            components = found if any(component is self for component in found) else components
        specs: tuple[Product, ...] = ()
        for component in components:
            specs = component.check_with(specs)
        return components
