"""Evaluate a bundle: score its holdout with the bundle, its baselines and the live champion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from platform_assets.product.contract import FORMAT
from platform_assets.store.history.reader import Releases
from platform_assets.store.records.verdicts import VERDICTS, Verdict

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.evaluation.measures.base import Measures
    from platform_assets.product.fields import Field
    from platform_assets.product.spec import Product
    from platform_assets.product.tasks import Task
    from platform_assets.product.tasks.base import TaskDocument
    from platform_assets.store.artifacts import ArtifactStore, Bundle
    from platform_assets.store.records.base import Document
    from platform_assets.store.tables import TableStore
    from platform_assets.training.labelled_rows import Rows


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Evaluates a product's bundles; see `Product`, and `Gates` for `max_drop` and `confidence`."""

    CARRIERS: ClassVar[tuple[object, ...]] = (Releases,)

    fields: tuple[Field, ...]
    task: Task
    measures: Measures
    slices: tuple[str, ...]
    max_drop: float
    confidence: float

    @staticmethod
    def for_product(spec: Product, measures: Measures) -> Evaluating:
        """Return the maker for a product, with the measures of its task."""
        return Evaluating(
            fields=spec.bare_fields,
            task=spec.task,
            measures=measures,
            slices=spec.slices,
            max_drop=spec.max_drop,
            confidence=spec.gates.confidence,
        )

    def holdout(self, tables: TableStore, bundle: Bundle) -> Rows:
        """Load the labelled rows of a bundle's holdout, exactly as its manifest names them."""
        from platform_assets.training import labelled_rows as rows

        known_before = bundle.manifest["known_before"]
        return rows.read(
            self.fields,
            self.task,
            tables,
            keys=bundle.manifest["holdout_keys"],
            features=bundle.manifest["data"]["features"],
            outcomes=bundle.manifest["data"]["outcomes"],
            known_before=datetime.fromisoformat(known_before) if known_before else None,
        ).labelled()

    def judge(self, artifacts: ArtifactStore, tables: TableStore, digest: str, champion: str | None) -> Document:
        """Return the verdict on a bundle, compared with its baselines and the champion."""
        from platform_assets.evaluation import verdict
        from platform_assets.product.learned import Learned
        from platform_assets.training import baselines

        bundle = artifacts.bundle(digest)
        holdout = self.holdout(tables, bundle)
        fitted = json.loads(bundle.read("baselines.json"))["models"]
        learned = Learned.from_json(json.loads(bundle.read("learned.json")))
        return verdict.judge(
            holdout.frame,
            challenger=self.score(artifacts, digest, holdout),
            baselines={
                name: baselines.score(model, learned, holdout.inputs, self.task) for name, model in fitted.items()
            },
            champion=self.score(artifacts, champion, holdout) if champion else None,
            measures=self.measures,
            max_drop=self.max_drop,
            confidence=self.confidence,
            slice_columns=self.slices,
        )

    def champion(self, artifacts: ArtifactStore, releases: Releases, digest: str) -> tuple[str | None, Sequence[str]]:
        """Return the live model's digest as champion, or None with the reasons why it cannot be compared.

        A model for another kind of question, or in another format, cannot be compared: if it counted, nothing could
        ever replace it.
        """
        latest = releases.live()
        live = latest[1].digest if latest else None
        if live is None or live == digest:
            return None, []
        contract = json.loads(artifacts.bundle(live).read("contract.json"))
        if contract.get("format") != FORMAT:
            cause = f"its contract has format {contract.get('format')}; expected {FORMAT}"
            return None, [f"The live model {live} was not compared: {cause}."]
        task: TaskDocument = contract["task"]
        if self.task.is_like(task):
            return live, []
        kinds = [" ".join((one["kind"], *one.get("classes", ()))) for one in (task, self.task.document())]
        return None, [
            f"The live model {live} was not compared: its task is {kinds[0]}, and this product's is {kinds[1]}."
        ]

    def verdict(
        self, artifacts: ArtifactStore, tables: TableStore, digest: str, champion: str | None, reasons: Sequence[str]
    ) -> Verdict:
        """Return the verdict on a bundle as it is recorded; `reasons` are those of `champion`."""
        result = self.judge(artifacts, tables, digest, champion)
        document = {
            "product": tables.product,
            "digest": digest,
            "cutoff": artifacts.bundle(digest).manifest["cutoff"],
            "champion_digest": champion,
            **result,
            "notes": [*result["notes"], *reasons],
        }
        return VERDICTS.read(document, f"the verdict on {digest}")

    def score(self, artifacts: ArtifactStore, digest: str, rows: Rows) -> np.ndarray:
        """Score rows with a bundle."""
        from platform_assets.training.graph import Graph

        inputs = rows.inputs
        return Graph.read(artifacts, digest).predict(inputs.numeric, inputs.categorical, inputs.image)
