"""Turn a page of blocks into HTML with the templates of this package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from platform_assets.operations.report.blocks import Page


def html(page: Page) -> str:
    """Return the page as one HTML document that fetches nothing and runs nothing."""
    return _environment().get_template("page.html.jinja").render(page=page)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    # Escaping is on for every file name: what records say is text, never markup.
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
