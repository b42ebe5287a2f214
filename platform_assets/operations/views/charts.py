"""Put a chart into an asset's metadata."""

from __future__ import annotations

import base64

import dagster as dg

from platform_assets.operations.views import vector
from platform_assets.operations.views.plots import Draw


def image(draw: Draw, title: str) -> dg.MarkdownMetadataValue:
    """Return a chart under its title, as an image inside an asset's metadata."""
    data = base64.b64encode(vector.standalone(draw).encode()).decode()
    return dg.MetadataValue.md(f"**{title}**\n\n![{title}](data:image/svg+xml;base64,{data})")
