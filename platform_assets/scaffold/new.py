"""Write a first product's file where products of this project lie, and check it: the command `driftline new`."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any, cast

from platform_assets.base import naming
from platform_assets.base.wording import counted
from platform_assets.engine import product_files, project
from platform_assets.scaffold import guess as guessing
from platform_assets.scaffold import writing
from platform_assets.scaffold.guess import NoGuess
from platform_assets.scaffold.reading import Given

TYPE = "driftline.ProductComponent"
PRODUCTS = "products"
"""Folder of a checkout's product files, next to that of its components."""


def write(name: str, given: Given, *, label: str) -> tuple[Path, str]:
    """Look at a table and write the product's file; return its path and what it was guessed from.

    Raises:
        ValueError: the product exists, or cannot be guessed; nothing was written.
    """
    naming.check_name(name, "the product's name")
    place = place_of(name)
    # Of the project; a channel of a product's file begins relative paths there.
    folder = next((one for one in place.parents if (one / "pyproject.toml").is_file()), place.parent)
    rows = given.rows(folder)
    guess = guessing.guess(rows, label=label, time=given.time)
    text = writing.file_of(name, guess, given.origin(folder, rows))
    _put(name, place, text)
    importlib.invalidate_caches()  # of folders in which Python has just looked for it
    lines = counted(text.count("\n"), "line")
    return place, f"{lines} from {counted(rows.height, 'row')} and {counted(rows.width, 'column')}"


def place_of(name: str) -> Path:
    """Return the path of a new product's file in the project of this folder.

    Raises:
        NoGuess: the folder is in no project, or the product exists.
    """
    found = project.found()
    if found is None:
        raise NoGuess(
            "this folder is in no Dagster project, so there is no place for a product; go to one, or make one with "
            "`create-dagster project NAME`."
        )
    folder = found.folder.parent / PRODUCTS if found.is_checkout else found.folder / name
    file = folder / (f"{name}.py" if found.is_checkout else "product.py")
    if file.exists() or name in product_files.names():
        raise NoGuess(f"the product {name!r} exists already ({file}); choose another name, or delete its file.")
    return file


def _put(name: str, file: Path, text: str) -> None:
    """Write the file, in a Dagster project with its component next to it; all or nothing."""
    if file.stem == name:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
        return
    import dagster as dg

    from platform_assets.components import ProductScaffolder

    file.parent.mkdir()
    try:
        file.write_text(text, encoding="utf-8")
        found, none = project.found(), cast("Any", None)
        root = file.parent if found is None else found.path
        ProductScaffolder().scaffold(dg.ScaffoldRequest[Any](TYPE, file.parent, "yaml", root, none, append=False))
    except BaseException:
        shutil.rmtree(file.parent)
        raise
