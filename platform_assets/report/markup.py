"""Small pieces of HTML: tables, tiles, figures, bars, and the one style sheet.

Belongs here: how a piece looks; everything that comes in as text is escaped. Does not belong here: what is told.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { --ink: #1f2937; --muted: #6b7280; --rule: #e5e7eb; --paper: #ffffff; --ground: #f5f6f8;
        --blue: #0072b2; --red: #b3261e; --green: #00734f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 28px 20px 60px; }
header h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
header p { margin: 0; color: var(--muted); }
section { background: var(--paper); border: 1px solid var(--rule); border-radius: 10px; padding: 20px 24px 22px;
          margin-top: 18px; break-inside: avoid; }
h2 { font-size: 18px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; }
.muted { color: var(--muted); }
.small { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin-top: 18px; }
.tile { background: var(--paper); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
.tile .name { color: var(--muted); font-size: 13px; }
.tile .value { font-size: 25px; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile .more { color: var(--muted); font-size: 12.5px; line-height: 1.35; }
.fault { border-left: 5px solid var(--red); }
.fault h2 { color: var(--red); }
.sound { border-left: 5px solid var(--green); }
dl { display: grid; grid-template-columns: 130px 1fr; gap: 4px 14px; margin: 10px 0 4px; }
dt { color: var(--muted); }
dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 18px 5px 0; }
th { text-align: left; color: var(--muted); font-weight: 550; border-bottom: 1px solid var(--rule); }
td { border-bottom: 1px solid #f0f1f3; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:last-child:not(.number), td:last-child:not(.number) { width: 100%; padding-right: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.plain { white-space: nowrap; }
figure { margin: 8px 0 2px; text-align: center; }
figure img { max-width: 100%; width: 700px; height: auto; }
.bar { display: inline-block; height: 9px; border-radius: 2px; background: var(--blue); vertical-align: 1px; }
.mark { display: inline-block; border-radius: 5px; padding: 0 7px; font-size: 12.5px; font-weight: 600; }
.mark.red { background: #fbe9e7; color: var(--red); } .mark.green { background: #e3f4ed; color: var(--green); }
.mark.grey { background: #eef0f3; color: #4b5563; }
td code { white-space: nowrap; }
code { font: 12.5px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 12.5px; margin-top: 22px; }
@media (max-width: 720px) { .tiles { grid-template-columns: repeat(2, 1fr); } dl { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } section, .tile { border-color: #ccc; } }
"""


SHORT = 40
"""Cells with fewer letters stay on one line."""


class Html(str):
    """Text that is markup already and is not escaped again."""


def text(value: object) -> Html:
    """Return a value as escaped text; markup stays as it is, None is a dash."""
    if isinstance(value, Html):
        return value
    return Html("–" if value is None else escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Return parts one after the other."""
    return Html(between.join(text(part) for part in parts))


def section(title: str, *parts: object, kind: str = "") -> Html:
    """Return a section with its heading.

    Args:
        kind: a class of the style sheet: `fault` or `sound`.
    """
    return Html(f'<section class="{escape(kind)}"><h2>{escape(title)}</h2>{join(parts)}</section>\n')


def paragraph(*parts: object, kind: str = "") -> Html:
    """Return a paragraph."""
    return Html(f'<p class="{escape(kind)}">{join(parts)}</p>')


def strong(value: object) -> Html:
    """Return a value in bold."""
    return Html(f"<strong>{text(value)}</strong>")


def code(value: object) -> Html:
    """Return a digest or a name as it would be typed."""
    return Html(f"<code>{text(value)}</code>")


def mark(value: object, colour: str = "grey") -> Html:
    """Return a word on a coloured ground: `red`, `green` or `grey`."""
    return Html(f'<span class="mark {escape(colour)}">{text(value)}</span>')


def tiles(found: Sequence[tuple[str, object, object]]) -> Html:
    """Return the numbers at the top: name, value, and a small line below it."""
    each = (
        f'<div class="tile"><div class="name">{text(name)}</div><div class="value">{text(value)}</div>'
        f'<div class="more">{text(more)}</div></div>'
        for name, value, more in found
    )
    return Html(f'<div class="tiles">{"".join(each)}</div>\n')


def terms(found: Mapping[str, str]) -> Html:
    """Return names with what is said about each."""
    return Html(
        "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in found.items()) + "</dl>"
    )


def counted(count: int, one: str) -> str:
    """Return a number with its noun: `1 key`, `1,200 keys`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def span(keys: Sequence[str]) -> str:
    """Return contiguous keys by their ends."""
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def moment(utc: str | None) -> str:
    """Return an ISO moment for a reader: `2013-03-17 04:00 UTC`."""
    return "at an unknown time" if utc is None else f"{utc[:16].replace('T', ' ')} UTC"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()) -> Html:
    """Return a table.

    Args:
        columns: headings.
        rows: cells; short ones are kept on one line.
        numbers: the columns that stand to the right.
    """
    right = {place for place, name in enumerate(columns) if name in numbers}
    head = "".join(
        f"<th{' class=number' if place in right else ''}>{text(name)}</th>" for place, name in enumerate(columns)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, is_number=place in right) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return Html(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def bar(share: float, *, longest_px: int = 220) -> Html:
    """Return a bar as long as a share from 0 to 1."""
    width = max(1, round(longest_px * min(1.0, max(0.0, share))))
    return Html(f'<span class="bar" style="width:{width}px"></span>')


def figure(png: bytes, about: str) -> Html:
    """Return a picture inside of the page."""
    data = base64.b64encode(png).decode()
    return Html(f'<figure><img alt="{escape(about, quote=True)}" src="data:image/png;base64,{data}"></figure>')


def page(title: str, *parts: object) -> str:
    """Return a whole document that fetches nothing: its own policy forbids it."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{join(parts)}</main></body></html>\n"
    )


def _cell(value: object, *, is_number: bool) -> str:
    shown = text(value)
    is_short = len(shown) < SHORT if "<" not in shown else "<span" in shown
    kind = ' class="number"' if is_number else ' class="plain"' if is_short else ""
    return f"<td{kind}>{shown}</td>"
