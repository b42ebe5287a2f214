"""The pieces of a page as values, without markup; the template `page.html.jinja` knows how each `tag` looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from platform_assets.operations.status.state import Todo
from platform_assets.operations.views import vector
from platform_assets.operations.views.plots import Draw


@dataclass(frozen=True)
class Code:
    """A digest, a path or a name, as it would be typed."""

    text: str
    tag: ClassVar[str] = "code"


@dataclass(frozen=True)
class Strong:
    """Text in bold."""

    text: str
    tag: ClassVar[str] = "strong"


@dataclass(frozen=True)
class Mark:
    """A word on a coloured ground: `red`, `green` or `grey`."""

    text: str
    colour: str = "grey"
    tag: ClassVar[str] = "mark"


@dataclass(frozen=True)
class Bar:
    """A bar as long as a share from 0 to 1."""

    share: float
    longest_px: int = 160
    tag: ClassVar[str] = "bar"

    @property
    def px(self) -> int:
        """Its length."""
        return max(1, round(self.longest_px * min(1.0, max(0.0, self.share))))


@dataclass(frozen=True)
class Link:
    """Text that leads somewhere; without an address it is text alone."""

    text: str
    url: str | None
    tag: ClassVar[str] = "link"


Inline = str | int | Code | Strong | Mark | Bar | Link | None
"""What a line or a cell holds; None is shown as a dash."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `kind` is classes of the style sheet: `muted`, `small`."""

    parts: tuple[Inline, ...]
    kind: str = ""
    tag: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    tag: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Terms:
    """Names, each with one or more paragraphs about it."""

    items: Mapping[str, Sequence[Inline]]
    tag: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Task:
    """Something to do: what is wrong, and the commands that settle it."""

    todo: Todo
    tag: ClassVar[str] = "task"


@dataclass(frozen=True, kw_only=True)
class Table:
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
    tag: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A chart as two SVG elements, of which the style sheet shows the one that fits."""

    about: str
    wide: str
    narrow: str
    tag: ClassVar[str] = "figure"


Block = Paragraph | Heading | Terms | Task | Table | Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        kind: a class of the style sheet: `fault`, `sound`, `todo` or none.
        link: shown next to the heading.
    """

    title: str
    blocks: Sequence[Block]
    kind: str = ""
    link: Link | None = None


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
        back: a link to the index.
    """

    heading: str
    subtitle: str
    news: Mark | None
    covered: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    foot: str
    back: Link | None = None


def paragraph(*parts: Inline, kind: str = "") -> Paragraph:
    """Return a paragraph of parts."""
    return Paragraph(parts=parts, kind=kind)


def figure(draw: Draw, about: str) -> Figure:
    """Return a chart in both sizes; `about` says what it shows, for a screen reader."""
    return Figure(about=about, wide=vector.wide(draw), narrow=vector.narrow(draw))


def moment(utc: str | None) -> str:
    """Return an ISO moment for a reader: `2013-03-17 04:00 UTC`."""
    return "an unknown time" if utc is None else f"{utc[:16].replace('T', ' ')} UTC"
