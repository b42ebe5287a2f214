"""Show a product with a broken file as one asset, so that other products keep working and a person sees the error."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.settings import only_product, shows_broken_products
from platform_assets.base.wording import one_line
from platform_assets.engine import product_files
from platform_assets.engine.product_files import Broken
from platform_assets.product.spec import Product

NAME = "broken_file"
"""The asset's name, below its product's name."""


def build_all(
    build: Callable[[Product], dg.Definitions],
) -> tuple[list[Product], list[dg.Definitions], list[Broken]]:
    """Return the products that load and can be built, their definitions, and the broken files.

    Raises:
        ValueError: a file is broken and this process is not a server that shows it; the message names every such file.
    """
    only = only_product()
    loaded, unloadable = product_files.load_each(None if only is None else (only,))
    broken, products, built = list(unloadable), [], []
    for spec in loaded:
        try:
            built.append(build(spec))
        except Exception as problem:  # noqa: BLE001 - a file may raise anything; shown in its asset, or raised below
            broken.append(product_files.broken_by(spec.module, problem))
        else:
            products.append(spec)
    if broken and not shows_broken_products():
        raise product_files.problem_of(broken) from broken[0].cause
    return products, built, broken


def placeholder(broken: Broken) -> dg.Definitions:
    """Return an asset for a broken file. Materialising it fails with the file's error."""
    # A file may be called two-words.py, and Dagster's names take no dash; its code keeps two names apart.
    name = re.sub("[^A-Za-z0-9_]", lambda match: f"_x{ord(match[0]):x}_", broken.name)
    error_text = dg.MetadataValue.md("```\n{}\n```".format("".join(traceback.format_exception(broken.cause))))
    dg.get_dagster_logger().error(broken.error)

    @dg.asset(
        key=[name, NAME],
        group_name=naming.shortened(name),
        kinds={"broken"},
        owners=[naming.OWNER_DEFAULT],
        # A list shows some fifty characters.
        description=f"{type(broken.cause).__name__}: {one_line(str(broken.cause))}.\n\n{broken.error} "
        "So this product has no assets and no sensor looks at it. Its stored data is unchanged. Fix the file and "
        "reload the code location.",
        metadata={"file": dg.MetadataValue.path(broken.file), "error": broken.error, "traceback": error_text},
    )
    def broken_file() -> None:
        raise dg.Failure(description=broken.error, metadata={"traceback": error_text}, allow_retries=False)

    return dg.Definitions(assets=[broken_file])
