"""Load a bundle to answer requests by its contract; `training.graph` scores the rows.

What is used of a bundle is verified before anything in it is parsed (`sealed`).
Shapes: N rows, F numeric fields, C categories, an image H pixels high and W wide, K classes.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from platform_assets.base import onnx_runtime
from platform_assets.serving.answer import pictures
from platform_assets.serving.answer.contract import Contract, ContractProblem
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.training import golden as golden_rows
from platform_assets.training.golden import Golden
from platform_assets.training.graph import ANSWER, Graph, session
from platform_assets.training.sealed import CONTRACT, GRAPH, LEARNED, ModelProblem, Sealed

if TYPE_CHECKING:
    import onnxruntime

_WARM_ROWS = (1, 1, 7)


class Vocabulary(msgspec.Struct, frozen=True):
    """The values of a categorical column that occurred in training."""

    name: str
    vocabulary: list[str]


class Learned(msgspec.Struct, frozen=True):
    """The part of `learned.json` that serving reads."""

    categorical: list[Vocabulary] = []


class Model(Graph):
    """A loaded bundle.

    Attributes:
        digest: of the bundle.
        contract: what requests may contain.
        vocabularies: the values from training, per categorical column whose unknown values are refused.
    """

    def __init__(
        self,
        digest: str,
        contract: Contract,
        loaded: onnxruntime.InferenceSession,
        learned: Learned,
        golden: Golden,
    ) -> None:
        super().__init__(digest, loaded)
        self.contract = contract
        vocabularies = {item.name: frozenset(item.vocabulary) for item in learned.categorical}
        refusing = {column: item.name for column, item in enumerate(contract.categorical) if item.unknown == "reject"}
        if missing := sorted(set(refusing.values()) - vocabularies.keys()):
            raise ModelProblem(
                f"bundle {digest}: {LEARNED} lacks the vocabulary of {', '.join(missing)}, "
                "whose unknown values are refused, so every row would be refused. Export it again."
            )
        self.vocabularies = {column: vocabularies[name] for column, name in refusing.items()}
        self._golden = golden
        self._warming = onnx_runtime.library().RunOptions()
        image = contract.image
        expected: dict[str, tuple[int, ...]] = {
            "numeric": (len(contract.numeric),),
            "categorical": (len(contract.categorical),),
        }
        if image is not None:
            expected["image"] = image.sized
        for entry in loaded.get_inputs():
            shape, dimensions = expected.get(entry.name), entry.shape[1:]
            if (
                shape is None
                or len(dimensions) != len(shape)
                or any(isinstance(side, int) and side != other for side, other in zip(dimensions, shape, strict=True))
            ):
                raise ModelProblem(
                    f"bundle {digest}: the graph has the input {entry.name!r} {entry.shape}; its contract has "
                    f"{len(contract.numeric)} numeric and {len(contract.categorical)} categorical fields and "
                    f"{'no image' if image is None else f'an image {list(image.sized)}'}. Export it again."
                )
        outputs = [entry.name for entry in loaded.get_outputs()]
        if ANSWER not in outputs:
            raise ModelProblem(
                f"bundle {digest}: the graph's outputs are {', '.join(outputs)}; expected {ANSWER!r}. Export it again."
            )

    @staticmethod
    def load(store: ArtifactStore, digest: str) -> Model:
        """Verify what serving uses of a bundle, then load its graph.

        Raises:
            ArtifactProblem: a blob is missing or changed; nothing in the bundle was parsed.
            ModelProblem: the bundle is intact, but this code cannot serve its graph or its contract.
        """
        return Model.from_blobs(Sealed.read(store, digest))

    @staticmethod
    def from_blobs(sealed: Sealed) -> Model:
        """Load the graph of verified blobs.

        Raises:
            ModelProblem: this code cannot serve its graph or its contract.
        """
        digest, blobs = sealed.digest, sealed.blobs
        try:
            contract = Contract.from_bytes(blobs[CONTRACT])
        except ContractProblem as problem:
            raise ModelProblem(f"bundle {digest}: {problem}") from None
        try:
            learned = msgspec.json.decode(blobs[LEARNED], type=Learned)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise ModelProblem(f"bundle {digest}: {LEARNED} cannot be read: {problem}. Export it again.") from None
        try:
            golden = Golden.from_bytes(blobs[golden_rows.NAME])
        except (ValueError, RecursionError) as problem:
            raise ModelProblem(
                f"bundle {digest}: {golden_rows.NAME} cannot be read: {problem}. Export it again."
            ) from None
        return Model(digest, contract, session(digest, blobs[GRAPH]), learned, golden)

    @cached_property
    def decoding(self) -> Decoding:
        """The decoders of its contract."""
        return Decoding(self.contract)

    def warm(self) -> None:
        """Score a few plain rows, so that no caller pays for first-time work, and the golden rows.

        Raises:
            ModelProblem: the graph does not give a valid answer of the contract's kind for each row, or answers golden
                rows in another way than where it was exported.
        """
        task, shape = self.contract.task, None if self.contract.image is None else self.contract.image.sized
        if shape is not None:
            pictures.warm(shape)
        for rows in _WARM_ROWS:
            plain = [
                math.nan if item.is_nullable else min(max(0.0, item.bounds[0]), item.bounds[1])
                for item in self.contract.numeric
            ]
            numeric = np.array([plain] * rows, np.float32)
            categorical = np.full((rows, len(self.contract.categorical)), "", dtype=object)
            image = None if shape is None else np.zeros((rows, *shape), np.uint8)
            out: Any = self.predict(numeric, categorical, image, self._warming)
            if (
                not isinstance(out, np.ndarray)
                or out.shape != (rows, *task.row_shape)
                or out.dtype != np.float32
                or not all(task.is_sound(row) for row in out.tolist())
            ):
                # Graphs may also return lists and maps.
                is_array = isinstance(out, np.ndarray)
                got = f"{out.dtype}{list(out.shape)} {out.ravel()[:3]}" if is_array else f"a {type(out).__name__}"
                raise ModelProblem(
                    f"bundle {self.digest} answers {rows} plain rows with {got}; "
                    f"expected float32{[rows, *task.row_shape]}, {task.expected}."
                )
        golden = self._golden
        try:
            difference, row = golden.difference(self.predict(*golden.inputs, self._warming))
        except (ValueError, IndexError, ModelProblem) as problem:
            raise ModelProblem(f"bundle {self.digest}: {golden_rows.NAME} does not fit its graph: {problem}") from None
        if difference > golden.tolerance:
            raise ModelProblem(
                f"bundle {self.digest} answers golden row {row} with a difference of {difference:.3g} from "
                f"{golden.answers[row]!r:.200}, its sealed answer; expected at most {golden.tolerance:g}."
            )

    def give_up(self) -> None:
        """End `warm` in another thread, at the next node of the graph, for a model that is no longer needed."""
        self._warming.terminate = True


def problem_of(digest: str, problem: Exception) -> Exception:
    """Return what loading and warming a bundle raised, as a problem; a graph may make libraries raise anything."""
    if isinstance(problem, ArtifactProblem | ModelProblem):
        return problem
    return ModelProblem(f"bundle {digest} failed with {type(problem).__name__}: {problem!s:.300}")
