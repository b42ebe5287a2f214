"""Show a product whose file is broken as one asset, so that the others go on and a person sees why this one does not.

Belongs here: that asset. Does not belong here: finding broken files (`specs`), or who may show them (`settings`).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

import dagster as dg

from platform_assets import naming, specs
from platform_assets.settings import shows_broken_products
from platform_assets.specs import Broken
from platform_assets.specs.base import ProductSpec

NAME = "broken_file"
"""What the asset is called, below its product's name."""


def build_all(
    build: Callable[[ProductSpec], dg.Definitions],
) -> tuple[list[ProductSpec], list[dg.Definitions], list[Broken]]:
    """Return the products that load and can be built, what was built of them, and the files that are broken.

    Raises:
        ValueError: a file is broken and this process is no server that shows it; the sentence names every such file.
    """
    loaded, found = specs.load_each()
    broken, kept, built = list(found), [], []
    for spec in loaded:
        try:
            built.append(build(spec))
        except Exception as problem:  # noqa: BLE001 - a file's values may be of any kind; it is told, or raised below
            broken.append(specs.broken_by(spec.name, problem))
        else:
            kept.append(spec)
    if broken and not shows_broken_products():
        raise specs.problem_of(broken) from broken[0].cause
    return kept, built, broken


def placeholder(broken: Broken) -> dg.Definitions:
    """Return the asset that stands for a broken file. Materialising it fails with the file's error."""
    name = re.sub("[^A-Za-z0-9_]", lambda found: f"_x{ord(found[0]):x}_", broken.name)
    told = dg.MetadataValue.md("```\n{}\n```".format("".join(traceback.format_exception(broken.cause))))
    dg.get_dagster_logger().error(broken.error)

    @dg.asset(
        key=[name, NAME],
        group_name=name,
        kinds={"broken"},
        owners=[naming.OWNER_DEFAULT],
        description=f"This product's file is broken, so it has no assets and no sensor looks at it. {broken.error} "
        "What it has stored stays. Fix the file and reload the code location.",
        metadata={"file": dg.MetadataValue.path(broken.file), "error": broken.error, "traceback": told},
    )
    def broken_file() -> None:
        raise dg.Failure(description=broken.error, metadata={"traceback": told}, allow_retries=False)

    return dg.Definitions(assets=[broken_file])
