"""Offer a product as a Dagster component, so that a project which installs Driftline adds it with a few lines of YAML.

Our own code location finds products by their files and needs no YAML: there, a component in `platform_assets/defs/`
adds nothing, so nothing is defined twice. In other projects each component defines its product's assets and checks. The
first one by name also defines what is shared, and every product's jobs and schedules, because Dagster requires sensors
and their jobs to come from one place.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import ModuleType

import click
import dagster as dg
from dagster.components.component_scaffolding import scaffold_component

from platform_assets import products
from platform_assets.automation import factory
from platform_assets.engine import product_files
from platform_assets.product.spec import Product

OWN_FOLDER = f"{__package__}.defs"
"""Where products found by the factory are not defined again."""
PYTHON = """import dagster as dg

from platform_assets.components import ProductComponent


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> ProductComponent:
    return ProductComponent(product="{product}")
"""


class ProductScaffolder(dg.Scaffolder):
    """Write the component of the product named like its folder."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        product = request.target_path.name
        if request.scaffold_format == "python":
            (request.target_path / "component.py").write_text(PYTHON.format(product=product), encoding="utf-8")
        else:
            scaffold_component(request, {"product": product})
        if product not in product_files.names():
            file = Path(products.__path__[0]) / f"{product}.py"
            click.echo(f"There is no product {product!r} yet: write {file}, see docs/add_a_product.md of Driftline.")


@dg.scaffold_with(ProductScaffolder)
class ProductComponent(dg.Component, dg.Model, dg.Resolvable):
    """One Driftline product: its assets, checks, jobs and schedules, with the sensors and resources they need.

    Attributes:
        product: the name of its file in `platform_assets/products/`.
    """

    product: str

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the product's definitions; the first of several products includes what all share.

        Raises:
            ValueError: there is no such product, or its file is broken.
        """
        if context.defs_module_name == OWN_FOLDER and self.product in product_files.names():
            return dg.Definitions()
        components = self._components(context)
        own_definitions = dg.Definitions(assets=self.built.assets, asset_checks=self.built.asset_checks)
        if components[0] is not self:
            return own_definitions
        specs = product_files.check_together(tuple(component.spec for component in components))
        built = [component.built for component in components]
        jobs_and_schedules = [dg.Definitions(jobs=item.jobs, schedules=item.schedules) for item in built]
        return dg.Definitions.merge(factory.shared_definitions(specs, built, {}), *jobs_and_schedules, own_definitions)

    @cached_property
    def spec(self) -> Product:
        """The product's spec."""
        return product_files.load(self.product)

    @cached_property
    def built(self) -> dg.Definitions:
        """The product's own definitions; built once, because Dagster compares jobs by identity."""
        return factory.product_definitions(self.spec)

    def _components(self, context: dg.ComponentLoadContext) -> list[ProductComponent]:
        """Return the project's components by name; only this one where no folder is loaded, or it is not among them."""
        tree, components = context.component_tree, []
        if isinstance(tree.defs_module, ModuleType):
            components = sorted(tree.get_all_components(ProductComponent), key=lambda component: component.product)
        return components if any(component is self for component in components) else [self]
