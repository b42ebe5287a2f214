"""Turn validated label rows into outcomes: the label of each entity, and when it was known.

Labels arrive late and rewrite only their key. A key whose labels have not landed has no record and is not an error.
Labels that arrive after they were given up are recorded as such, and later cutoffs use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from platform_assets.base import naming
from platform_assets.data import unlabelled
from platform_assets.data.outcomes_maker import Labelling
from platform_assets.engine import metadata
from platform_assets.engine.digests import reads
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import KeyedRun, Keys, Plan
from platform_assets.engine.stage import Stage, dep
from platform_assets.product.spec import Product

STAGE = "outcomes"


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's outcomes stage."""
    descriptions = {
        "entity": "what the prediction was about",
        "label": spec.task.about()["label"],
        "known_at": "the moment from which the outcome was known (UTC)",
    }
    types = {"entity": "text", "label": str(spec.task.label_type()), "known_at": "moment"}
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.DATA,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Labelling.for_product(spec),
        run=_OutcomesRun,
        outside=outside,
        deps=[dep(spec, "validated", spec.label_source.name)],
        metadata=metadata.column_schema(types, descriptions),
    )


class _OutcomesRun(KeyedRun[Labelling]):
    def plan(self, chunk: Keys) -> Plan:
        validated = naming.stage("validated", self.spec.label_source.name)
        records = self.tables.records(validated, chunk)
        content = {key: record.content_digest for key, record in records.items()}

        def make(stale: Keys) -> dict[str, StageOutput]:
            rows = self.tables.read_exact(validated, {key: content[key] for key in stale})
            with reads.guarded(self.spec.module, self.maker):
                output = self.maker.make(stale, rows)
            try:
                at_utc = self.product.now.isoformat()
            except LookupError:  # the clock of a recording is not set
                at_utc = None
            # Before the rows are stored, so that the first undecided cutoff sees them and earlier ones never do.
            unlabelled.record_arrivals(self.tables, self.product.history, self.spec.grain, stale, at_utc)
            return {STAGE: output}

        return Plan(
            inputs={key: {validated: digest} for key, digest in content.items()},
            versions={key: record.versions for key, record in records.items()},
            make=make,
        )
