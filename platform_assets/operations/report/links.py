"""Link a page to Dagster's UI: assets, keys and runs. Without the UI's address there are no links."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from platform_assets.operations.report.blocks import Link


@dataclass(frozen=True)
class Links:
    """Where Dagster's UI is.

    Attributes:
        product: whose assets.
        base: the UI's address, such as `http://127.0.0.1:3000`; None where it is not known.
    """

    product: str
    base: str | None = None

    def asset(self, stage: str, *, key: str | None = None) -> Link:
        """Return a link to an asset, or to one of its keys."""
        partition = "" if key is None else f"?view=partitions&partition={quote(key)}"
        return Link(f"{stage} in Dagster", self._url(f"assets/{quote(self.product)}/{quote(stage)}{partition}"))

    def run(self, run_id: str | None, text: str) -> Link:
        """Return a link to a run; text alone where no record names the run."""
        return Link(text, self._url(f"runs/{quote(run_id)}") if run_id else None)

    def _url(self, path: str) -> str | None:
        return None if self.base is None else f"{self.base.rstrip('/')}/{path}"
