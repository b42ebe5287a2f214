"""The pieces of a page as values, without markup; the template `page.html.jinja` knows how each `tag` looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from platform_assets.operations.status.state import Todo
from platform_assets.operations.views import vector
from platform_assets.operations.views.plots import Draw


class _Tagged:
    @property
    def tag(self) -> str:
        """Its name in the template."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Code(_Tagged):
    """A digest, a path or a name, as it would be typed."""

    text: str


@dataclass(frozen=True)
class Strong(_Tagged):
    """Text in bold."""

    text: str


@dataclass(frozen=True)
class Mark(_Tagged):
    """A word on a coloured ground: `red`, `green` or `grey`."""

    text: str
    colour: str = "grey"


@dataclass(frozen=True)
class Bar(_Tagged):
    """A bar as long as a share from 0 to 1."""

    share: float
    longest_px: int = 160

    @property
    def px(self) -> int:
        """Its length."""
        return max(1, round(self.longest_px * min(1.0, max(0.0, self.share))))


Inline = str | int | Code | Strong | Mark | Bar | None
"""What a line or a cell holds; None is shown as a dash."""


@dataclass(frozen=True)
class Paragraph(_Tagged):
    """A paragraph; `kind` is classes of the style sheet: `muted`, `small`."""

    parts: tuple[Inline, ...]
    kind: str = ""


@dataclass(frozen=True)
class Heading(_Tagged):
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Terms(_Tagged):
    """Names, each with one or more paragraphs about it."""

    items: Mapping[str, Sequence[Inline]]


@dataclass(frozen=True)
class Task(_Tagged):
    """Something to do: what is wrong, and the commands that settle it."""

    todo: Todo


@dataclass(frozen=True, kw_only=True)
class Table(_Tagged):
    """A table.

    Attributes:
        about: what it holds, for a screen reader.
        numbers: the columns that are aligned to the right.
        is_stacked: whether a phone shows each row as a list of named cells; else the table scrolls sideways.
    """

    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Inline]]
    numbers: Sequence[str] = ()
    is_stacked: bool = False


@dataclass(frozen=True)
class Figure(_Tagged):
    """A chart as an SVG element; `about` says what it shows, for a screen reader."""

    about: str
    svg: str


Block = Paragraph | Heading | Terms | Task | Table | Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        kind: a class of the style sheet: `fault`, `sound`, `todo` or none.
    """

    title: str
    blocks: Sequence[Block]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number at the top, its name, and a small line below it."""

    name: str
    value: str
    more: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        heading: its only `h1`.
        subtitle: what the product is.
        news: the sentence at the top that a reader must not miss, and its colour.
        covered: what the numbers cover, in small print.
    """

    heading: str
    subtitle: str
    news: Mark | None
    covered: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    foot: str


def paragraph(*parts: Inline, kind: str = "") -> Paragraph:
    """Return a paragraph of parts."""
    return Paragraph(parts=parts, kind=kind)


def figure(draw: Draw, about: str) -> Figure:
    """Return a chart; `about` says what it shows, for a screen reader."""
    return Figure(about=about, svg=vector.in_page(draw))


def moment(utc: str | None) -> str:
    """Return an ISO moment for a reader: `2013-03-17 04:00 UTC`."""
    return "an unknown time" if utc is None else f"{utc[:16].replace('T', ' ')} UTC"
