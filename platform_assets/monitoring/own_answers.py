"""Score our own features of a key with the bundles that answered on it. No caller can influence these answers.

`performance` decides when this is done; the scoring code is the service's own (`training.graph`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.monitoring import skew
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore

if TYPE_CHECKING:
    from platform_assets.monitoring.measured_product import MeasuredProduct
    from platform_assets.training.graph import Graph


class OwnAnswers:
    """Scores features with bundles, loading each bundle once."""

    def __init__(self, spec: MeasuredProduct, artifacts: ArtifactStore) -> None:
        """Keep the product and its artifact store; bundles load on first use."""
        self._spec, self._artifacts = spec, artifacts
        self._models: dict[str, Graph | str] = {}

    def score(self, ours: pl.DataFrame, digests: Sequence[str]) -> tuple[pl.DataFrame, dict[str, str]]:
        """Score every row of our features with each bundle, bundle after bundle.

        Args:
            ours: features of one key: `entity`, `asked_at` and the product's fields.
            digests: of the bundles, the main one last.

        Returns:
            Rows as `answers.join` takes them, with a null `prediction_id` because no caller received these answers; and
            the reason for each bundle that cannot answer.
        """
        parts, left_out = [], {}
        for digest in digests:
            if digest not in self._models:
                self._models[digest] = self._load(digest)
            model = self._models[digest]
            if isinstance(model, str):
                left_out[digest] = model
            else:
                parts.append(self._scored(model, ours))
        return pl.concat(parts) if parts else self._scored(None, ours.clear()), left_out

    def _load(self, digest: str) -> Graph | str:
        """Load a bundle's model, or return the reason it cannot answer."""
        from platform_assets.training.graph import Graph
        from platform_assets.training.sealed import ModelProblem

        try:
            contract = json.loads(self._artifacts.bundle(digest).read("contract.json"))
            fields = [(item["name"], item["dtype"]) for item in contract["fields"]]
            if not self._spec.task.is_like(contract["task"]):
                return f"bundle {digest} answers another kind of question ({contract['task']!r})."
            if fields != [(item.name, item.dtype) for item in self._spec.fields]:
                return f"bundle {digest} takes other fields than the product has now."
            return Graph.read(self._artifacts, digest)
        except (ArtifactProblem, ModelProblem) as problem:
            return f"bundle {digest} cannot be loaded: {problem}"

    def _scored(self, model: Graph | None, ours: pl.DataFrame) -> pl.DataFrame:
        from platform_assets.training.matrix import inputs_of

        spec = self._spec
        types, predictions = spec.task.answer_types(), []
        if model is not None and ours.height:
            inputs = inputs_of(ours, spec.fields)
            predictions = model.predict(inputs.numeric, inputs.categorical, inputs.image).tolist()
        columns = spec.task.stored(predictions)
        return pl.concat(
            [
                ours.select(
                    pl.lit(None, dtype=pl.String).alias("prediction_id"),
                    *skew.WHO,
                    pl.lit(None if model is None else model.digest, dtype=pl.String).alias("digest"),
                ),
                pl.DataFrame(columns, schema=types),
                ours.select(spec.slices),
            ],
            how="horizontal",
        )
