"""Build the metadata values that Dagster's UI renders, and put a page's metadata in reading order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any

import dagster as dg
import polars as pl

Metadatum = dg.MetadataValue[Any] | dg.TableSchema | list[str] | str | float | None
Metadata = dict[str, Metadatum]
"""Metadata of an asset, an event or a check, by name."""

Row = dict[str, str | float | None]
"""A row of a table, by column."""

RESULT = "result"
"""Name of the sentence that heads the metadata of every materialisation: the answer to "how did it go?"."""
PLUMBING = (
    *("is_landed", "is_memoised", "was_built", "cpu_s", "cpu_s_of_fits", "peak_memory_mb", "device", "precision"),
    *("resumed_from_step", "parity_batch_sizes", "mark", "sketch", "bins", "reference"),
    *("sha256", "digest", "champion_digest", "challenger", "champion"),
    *("checkpoint_sha256", "bundle_sha256", "bento_content_digest", "content_digest", "table_version"),
    *("run_keys", "run_memoised_keys", "run_rows", "run_wall_s", "dagster/column_schema"),
)
"""Metadata that matters to whoever debugs the platform: listed last, in this order."""
SHORT_DIGESTS = ("content_digest", "sketch", "bins", "reference", "sha256")
"""Digests that nobody pastes anywhere: cut to 12 letters, because 64 widen the table beyond the page."""
DIGEST_LETTERS = 12
MAX_RESULT = 180
"""Letters of a result; what a longer one says is in full among the findings."""
DIGITS = 4
"""Significant digits of a number for people; records keep all of them."""


def readable(result: str, metadata: Mapping[str, Metadatum]) -> Metadata:
    """Return a page's metadata in reading order: the result, then findings, then plumbing, with floats rounded.

    Dagster's UI lists metadata in the order in which an event holds it.
    """
    findings = {name: rounded(value) for name, value in metadata.items() if name not in PLUMBING}
    plumbing = {name: rounded(metadata[name]) for name in PLUMBING if name in metadata}
    for name in SHORT_DIGESTS:
        if isinstance(digest := plumbing.get(name), str):
            plumbing[name] = digest[:DIGEST_LETTERS]
    return {RESULT: shorten(result, MAX_RESULT, placeholder=" …"), **findings, **plumbing}


def rounded(value: Any) -> Any:
    """Return a value with its floats, nested ones too, at four significant digits; from 1,000 on at one decimal."""
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 1) if abs(value) >= 1000 else float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if type(value) in (list, tuple):  # Dagster's own metadata values are tuples too, which may not be iterated over
        return [rounded(item) for item in value]
    return value


def column_schema(columns: Mapping[str, pl.DataType | str], descriptions: Mapping[str, str] | None = None) -> Metadata:
    """Return the metadata that fills Dagster's column tab.

    Args:
        columns: dtype by name, such as a polars `Schema`.
        descriptions: meaning by column, as far as known.
    """
    about = descriptions or {}
    shown = [dg.TableColumn(name=name, type=str(dtype), description=about.get(name)) for name, dtype in columns.items()]
    return {"dagster/column_schema": dg.TableSchema(columns=shown)}


def table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table; floats at four significant digits, missing cells empty.

    Args:
        rows: one mapping per row.
        columns: in order; by default those of the first row.
    """
    columns = list(columns or (rows[0] if rows else ()))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines) if columns else "*(no rows)*")


def bullets(lines: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Return sentences as a Markdown list."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
