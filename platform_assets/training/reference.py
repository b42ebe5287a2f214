"""The reference of a model: the bins and histograms of its training keys, which later keys are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from platform_assets.store.artifacts import ArtifactStore, sha256

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.product.learned import Learned
    from platform_assets.product.tasks.base import TaskDocument

FORMAT = 2
MIX = "answers"
"""The only field in a reference of answers."""

Counts = Mapping[str, Sequence[int]]
"""Rows by field and bin, from `histograms.histograms`."""


class ReferenceDocument(TypedDict):
    """A reference as a bundle stores it; see `Reference`."""

    format: int
    keys: list[str]
    fields: dict[str, list[list[int]]]
    answers: list[list[int]] | None
    answer_edges: list[float] | None
    task: TaskDocument | None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The histograms of each training key.

    Attributes:
        keys: in order, K of them.
        fields: int64 [K, B] by field, B bins.
        answers: int64 [K, B], the model's answers on each key's rows, in the bins of `Task.mix`.
        answer_edges: edges of these bins.
        task: the task the answers belong to, as in the contract.
    """

    keys: tuple[str, ...]
    fields: Mapping[str, np.ndarray]
    answers: np.ndarray | None = None
    answer_edges: Sequence[float] | None = None
    task: TaskDocument | None = None

    def to_json(self) -> ReferenceDocument:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            "keys": list(self.keys),
            "fields": {name: counts.tolist() for name, counts in self.fields.items()},
            "answers": None if self.answers is None else self.answers.tolist(),
            "answer_edges": None if self.answer_edges is None else list(self.answer_edges),
            "task": self.task,
        }

    @staticmethod
    def from_json(value: ReferenceDocument) -> Reference:
        """Return what `to_json` wrote; raise `ValueError` for another format."""
        import numpy as np

        if value.get("format") != FORMAT:
            raise ValueError(f"reference.json has format {value.get('format')!r}; this code reads {FORMAT}.")
        fields = {name: np.array(counts, dtype=np.int64) for name, counts in value["fields"].items()}
        answers = None if value["answers"] is None else np.array(value["answers"], dtype=np.int64)
        return Reference(
            keys=tuple(value["keys"]),
            fields=fields,
            answers=answers,
            answer_edges=value["answer_edges"],
            task=value["task"],
        )

    @property
    def mix(self) -> Reference | None:
        """The reference of the answers alone, as one field; None if the bundle has none."""
        return None if self.answers is None else Reference(keys=self.keys, fields={MIX: self.answers})

    def histograms_of(self, key: str) -> dict[str, list[int]]:
        """Return the histograms of one training key."""
        index = self.keys.index(key)
        return {name: counts[index].tolist() for name, counts in self.fields.items()}

    def without(self, keys: Iterable[str]) -> Reference:
        """Return the reference without these keys."""
        left_out = set(keys)
        indexes = [index for index, key in enumerate(self.keys) if key not in left_out]
        return replace(
            self,
            keys=tuple(self.keys[index] for index in indexes),
            fields={name: counts[indexes] for name, counts in self.fields.items()},
            answers=None if self.answers is None else self.answers[indexes],
        )


def reference_of(
    histograms: Mapping[str, Counts],
    answers: Mapping[str, Sequence[int]] | None = None,
    answer_edges: Sequence[float] | None = None,
    task: TaskDocument | None = None,
) -> Reference:
    """Build the reference from each training key's histograms, in the given order.

    Args:
        histograms: of the features.
        answers: the mix of the model's answers on the same keys (`Task.mix`), if known.
        answer_edges: edges of its bins.
        task: the task the answers belong to, as in the contract.
    """
    import numpy as np

    names = list(next(iter(histograms.values()), {}))
    return Reference(
        keys=tuple(histograms),
        fields={name: np.array([by_field[name] for by_field in histograms.values()], dtype=np.int64) for name in names},
        answers=None if answers is None else np.array([answers[key] for key in histograms], dtype=np.int64),
        answer_edges=answer_edges,
        task=task,
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """A bundle's reference.

    Attributes:
        digest: of the bundle.
        bins: sha256 of the learned bins; histograms are comparable only on the same bins.
    """

    digest: str
    bins: str
    learned: Learned
    reference: Reference


def read(store: ArtifactStore, digest: str) -> Model | None:
    """Load a bundle's reference; None if it was sealed without one."""
    from platform_assets.product.learned import Learned

    bundle = store.bundle(digest)
    if "reference.json" not in bundle.names:
        return None
    learned = bundle.read("learned.json")
    document: ReferenceDocument = json.loads(bundle.read("reference.json"))
    return Model(
        digest=digest,
        bins=sha256(learned),
        learned=Learned.from_json(json.loads(learned)),
        reference=Reference.from_json(document),
    )
