"""Define `SitedChannel`: a channel that needs to know the product whose source it serves, such as its grain."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from platform_assets.base.keys import BatchGrain
from platform_assets.base.problems import Problem
from platform_assets.product.channels import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandera.polars as pa
    import polars as pl

    from platform_assets.base.keys import Grain


class ChannelProblem(Problem, ValueError):
    """A delivery cannot be taken from where it is; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a channel is used.

    Attributes:
        grain: of the product.
        source: the name of the source that has the channel.
        multiline: its columns of CSV whose values may have line breaks.
        folder: against which relative paths are resolved: the project's, see `project_of`.
        scratch: a local folder for files that may be lost; None keeps nothing between processes.
        is_tick: whether a sensor's tick asks, which must not wait.
    """

    grain: Grain
    source: str
    folder: Path
    multiline: tuple[str, ...] = ()
    scratch: Path | None = None
    is_tick: bool = False


class SitedChannel(Channel):
    """A channel whose deliveries are parts of something larger, by the grain of its product.

    Attributes:
        lag: how long after the end of a key its rows may still change; it is taken in after that.
    """

    lag: timedelta = timedelta(0)

    def at(self, site: Site) -> Self:
        """Return the channel as a product's source uses it.

        Raises:
            ValueError: the channel cuts rows by their moment, and the product's keys have none.
        """
        by = getattr(self, "by", None)
        if by is not None and isinstance(site.grain, BatchGrain):
            raise ValueError(
                f"source {site.source!r} assigns rows to keys by the moment in {by!r}, and batches have no moments; "
                "expected a DailyGrain or an HourlyGrain."
            )
        copied = copy.copy(self)
        object.__setattr__(copied, "_given_site", site)  # not a field: it determines no row
        return copied

    @property
    def site(self) -> Site:
        """Where the channel is used."""
        site: Site | None = getattr(self, "_given_site", None)
        if site is None:
            raise ChannelProblem(f"{type(self).__name__} is read by the keys of a product, and this one is of none.")
        return site

    def for_tick(self) -> Self:
        """Return the channel for a sensor's tick."""
        return self.at(replace(self.site, is_tick=True))

    def lagging(self, lag: timedelta) -> Self:
        """Return the channel with at least this lag."""
        copied = copy.copy(self)
        object.__setattr__(copied, "lag", max(self.lag, lag))
        return copied

    def reader(
        self,
        read: Callable[[bytes], pl.DataFrame] | None,
        schema: Callable[[], pa.DataFrameSchema],
        multiline: tuple[str, ...],
    ) -> Callable[[bytes], pl.DataFrame] | None:
        """Return what reads its deliveries; the arguments are the source's own. It takes what it returned before."""
        return read


def project_of(module: str) -> Path:
    """Return the folder of a product's project: the nearest one with a `pyproject.toml`, or that of its own file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return Path.cwd()
    folders = Path(file).resolve().parents
    return next((folder for folder in folders if (folder / "pyproject.toml").is_file()), folders[0])
