"""Offer a product as a Dagster component, so that a project that installs Driftline has it by a few lines of YAML.

Belongs here: the component and its scaffolder. Does not belong here: what it defines (`platform_assets.factory`).

Our own code location finds products by their files and needs no YAML: there, a component of `platform_assets/defs/`
adds nothing, so nothing is defined twice. In other projects each component defines its product's assets and checks.
The first of them by name also has what is shared, and every product's jobs and schedules, because Dagster wants a
sensor and the jobs that it asks for from one place.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import ModuleType

import click
import dagster as dg
from dagster.components.component_scaffolding import scaffold_component

from platform_assets import factory, specs
from platform_assets.specs.base import ProductSpec

OWN_FOLDER = f"{__package__}.defs"
"""Where products that the factory has found are not defined again."""
PYTHON = """import dagster as dg

from platform_assets.components import ProductComponent


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> ProductComponent:
    return ProductComponent(product="{product}")
"""


class ProductScaffolder(dg.Scaffolder):
    """Write the component of the product that is named like its folder."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        product = request.target_path.name
        if request.scaffold_format == "python":
            (request.target_path / "component.py").write_text(PYTHON.format(product=product), encoding="utf-8")
        else:
            scaffold_component(request, {"product": product})
        if product not in specs.names():
            file = Path(specs.__path__[0]) / f"{product}.py"
            click.echo(
                f"There is no product {product!r} yet: write {file}, as docs/add_a_product.md of Driftline tells."
            )


@dg.scaffold_with(ProductScaffolder)
class ProductComponent(dg.Component, dg.Model, dg.Resolvable):
    """One product of Driftline: its assets, checks, jobs and schedules, with the sensors and resources they need.

    Attributes:
        product: the name of its file in `platform_assets/specs/`.
    """

    product: str

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the product's definitions; of several products the first has what all share.

        Raises:
            ValueError: there is no such product, or its file is broken.
        """
        if context.defs_module_name == OWN_FOLDER and self.product in specs.names():
            return dg.Definitions()
        together = self._together(context)
        own = dg.Definitions(assets=self.built.assets, asset_checks=self.built.asset_checks)
        if together[0] is not self:
            return own
        found, built = specs.check_together(tuple(each.spec for each in together)), [each.built for each in together]
        asked = [dg.Definitions(jobs=each.jobs, schedules=each.schedules) for each in built]
        return dg.Definitions.merge(factory.shared_definitions(found, built, {}), *asked, own)

    @cached_property
    def spec(self) -> ProductSpec:
        """The product as its file states it."""
        return specs.load(self.product)

    @cached_property
    def built(self) -> dg.Definitions:
        """What is the product's alone; made once, because Dagster compares jobs by identity."""
        return factory.product_definitions(self.spec)

    def _together(self, context: dg.ComponentLoadContext) -> list[ProductComponent]:
        """Return the project's products by name; this one alone where no folder was read, or not with it."""
        tree, found = context.component_tree, []
        if isinstance(tree.defs_module, ModuleType):
            found = sorted(tree.get_all_components(ProductComponent), key=lambda each: each.product)
        return found if any(each is self for each in found) else [self]
