"""Make the values that Dagster's UI draws: row counts, column tabs, tables and pictures.

Belongs here: from plain rows and PNG bytes to metadata. Does not belong here: what any one stage shows.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

Metadatum = dg.MetadataValue[Any] | dg.TableSchema | list[str] | str | float | None
Metadata = dict[str, Metadatum]
"""What an asset, an event or a check shows, by name."""

Row = dict[str, str | float | None]
"""A row of a table, by column."""


def row_count(rows: int) -> Metadata:
    """Return the metadata by which Dagster shows and plots a row count."""
    return {"dagster/row_count": rows}


def column_schema(columns: Mapping[str, pl.DataType | str], descriptions: Mapping[str, str] | None = None) -> Metadata:
    """Return the metadata that fills Dagster's column tab.

    Args:
        columns: dtype by name, such as a polars `Schema`.
        descriptions: what a column means, where known.
    """
    descriptions = descriptions or {}
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name=name, type=str(dtype), description=descriptions.get(name))
                for name, dtype in columns.items()
            ]
        )
    }


def table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table; floats to four significant digits, missing cells empty.

    Args:
        rows: one mapping a row.
        columns: which, in order; the first row's by default.
    """
    columns = list(columns or (rows[0] if rows else ()))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines) if columns else "*(no rows)*")


def bullets(lines: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Return sentences as a Markdown list."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))


def image(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Return a plot from `show.plots` as an image inside the metadata; `title` stands where none is shown."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
