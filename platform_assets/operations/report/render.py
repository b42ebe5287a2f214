"""Turn a page of blocks into HTML with the templates of this package."""

from __future__ import annotations

from pathlib import Path

import jinja2

from platform_assets.operations.report.blocks import Page

# Escaping is on for every file name: what records say is text, never markup.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def html(page: Page) -> str:
    """Return the page as one HTML document that fetches nothing and runs nothing."""
    return _ENVIRONMENT.get_template("page.html.jinja").render(page=page)
