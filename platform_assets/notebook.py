"""Read a product as data frames: `dl = driftline.open("churn")`. Nothing here writes to a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from platform_assets.base.settings import Settings
from platform_assets.engine import product_files
from platform_assets.store import objects
from platform_assets.store.problems import plural
from platform_assets.store.product_store import ProductStore

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from platform_assets.serving.answer.model import Model

    Frame: TypeAlias = pl.DataFrame | pd.DataFrame

Frames = Literal["polars", "pandas"]


def open_product(name: str, *, frames: Frames = "polars") -> ProductReader:
    """Open a product of this folder's store, or of the one that the environment names.

    Args:
        name: the product's, as in `driftline status`.
        frames: the library of the frames that come back; `predict` takes and returns either.

    Raises:
        ValueError: there is no such product or store, or pandas is not installed.
    """
    if frames not in ("polars", "pandas"):
        raise ValueError(f"frames is {frames!r}; expected 'polars' or 'pandas'.")
    product = ProductStore(product_files.load(name), Settings.from_environment())
    root = product.settings.root
    if not objects.is_there(root):  # a client of a folder would make it
        raise ValueError(f"there is no store at {root}. Set DRIFTLINE_STATE or DRIFTLINE_ROOT to where {name} runs.")
    if frames == "pandas":
        try:
            import pandas as pd  # noqa: F401
        except ModuleNotFoundError as problem:
            raise ValueError(
                f"frames='pandas' needs {problem.name}, which is not installed: pip install {problem.name}. Without "
                "frames, polars comes back."
            ) from None
    return ProductReader(product, frames)


@dataclass(frozen=True)
class ProductReader:
    """A product to read; each call reads the store as it is then.

    `keys` is one key or several; None takes all. Rows come in the order of their keys.
    """

    product: ProductStore
    frames: Frames

    def features(self, keys: str | Iterable[str] | None = None) -> Frame:
        """Return the rows that models are trained on: `key`, `entity`, `service_time`, `asked_at`, the fields.

        Raises:
            ValueError: a key has none.
        """
        return self._rows("features", keys)

    def answers(self, keys: str | Iterable[str] | None = None) -> Frame:
        """Return what callers were answered, one row per logged answer, once its key is closed.

        Raises:
            ValueError: a key has none.
        """
        return self._rows("predictions", keys)

    def decisions(self, keys: str | Iterable[str] | None = None) -> Frame:
        """Return the decision on each closed key, with its reasons and its main numbers; the first reason decided.

        Raises:
            ValueError: a key is not decided.
        """
        import polars as pl

        rows = [
            {
                "key": key,
                "action": record.action,
                "reasons": list(record.reasons),
                "cutoff": record.cutoff,
                "decided_at": datetime.fromisoformat(record.at_utc),
                "drift_index": record.numbers.drift_index,
                "drift_percentile": record.numbers.drift_percentile,
                "excess_loss": record.numbers.performance and record.numbers.performance.excess,
                "model_age_keys": record.numbers.model_age_keys,
            }
            for key, record in self.product.history.decisions(self._keys("decision", keys)).items()
        ]
        numbers = dict.fromkeys(("drift_index", "drift_percentile", "excess_loss"), pl.Float64())
        return _as_frame(pl.DataFrame(rows, schema_overrides=numbers, infer_schema_length=None), self.frames)

    def model(self) -> Model:
        """Return the live model, verified: its digest, its contract, and `predict` on arrays.

        Raises:
            ValueError: nothing is released.
        """
        from platform_assets.serving import asking

        return asking.live(self.product).model

    def predict(self, frame: Frame) -> Frame:
        """Answer rows by the live model as its service would, in their order; nothing is logged.

        Args:
            frame: `entity`, `service_time`, `asked_at` and the fields, as `features` returns them; other columns are
                left out. A live product's rows may be of any time, not only of now.

        Raises:
            ValueError: nothing is released, a column is missing, or a value does not follow the contract.
        """
        import polars as pl

        from platform_assets.serving import asking

        columns: Mapping[str, list[Any]]
        if isinstance(frame, pl.DataFrame):
            frames, columns = "polars", frame.to_dict(as_series=False)
        elif type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
            # NaN, NaT and NA are all null here.
            frames = "pandas"
            columns = {
                name: frame[name].astype(object).where(frame[name].notna(), None).to_list() for name in frame.columns
            }
        else:
            raise ValueError(f"predict() got a {type(frame).__name__}; expected a DataFrame of polars or pandas.")
        live = asking.live(self.product)
        live.model.contract.clock_within = None  # these are rows of the past
        answers = list(asking.table_answers(live, columns, "the frame", Path()))
        return _as_frame(pl.DataFrame(answers, infer_schema_length=None), frames)

    def _rows(self, stage: str, keys: str | Iterable[str] | None) -> Frame:
        return _as_frame(self.product.tables.read(stage, self._keys(stage, keys)), self.frames)

    def _keys(self, stage: str, keys: str | Iterable[str] | None) -> list[str]:
        """Return the keys to read, all of which have a record of the stage."""
        name, recorded = self.product.name, self.product.tables.records(stage)
        requested = list(recorded) if keys is None else [keys] if isinstance(keys, str) else list(keys)
        if missing := set(requested) - recorded.keys():
            span = f"it has {len(recorded)}, {min(recorded)} to {max(recorded)}" if recorded else "it has none yet"
            raise ValueError(f"{name} has no {stage} of {plural(missing)}; {span}.")
        if not requested:
            raise ValueError(f"{name} has no {stage} in {self.product.settings.root} yet: no key was advanced.")
        return requested


def _as_frame(frame: pl.DataFrame, frames: str) -> Frame:
    """Return a frame of a library. `DataFrame.to_pandas` would need pyarrow, which Driftline does not bring."""
    if frames == "polars":
        return frame
    import pandas as pd

    return pd.DataFrame({one.name: one.to_numpy() if one.dtype.is_numeric() else one.to_list() for one in frame})
