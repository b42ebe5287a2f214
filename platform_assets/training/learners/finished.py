"""Take a finished ONNX file, made elsewhere, as the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.product.learner import Blobs, Context, Graphs, Learner, TrainingProblem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from platform_assets.product.inputs import Inputs

GIVEN = "given.onnx"


@dataclass(frozen=True, kw_only=True)
class FinishedOnnx(Learner):
    """An ONNX file by its digest; nothing is learned, and every cutoff gets the same graph.

    Its inputs are `numeric` float32 [N, F] (NaN is null), `categorical` string [N, C] ("" is null) and `image` uint8
    [N, H, W], those that it reads; its output is `answer` float32, as `docs/cookbook.md` says for each task.

    Attributes:
        place: a folder's path or an `s3://` URL, where steps run.
        file: the file's name in it.
        sha256: of the file, 64 hexadecimal digits.
    """

    place: str
    file: str
    sha256: str

    kinds: ClassVar[tuple[str, ...]] = ("onnx",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"FinishedOnnx.sha256 is {self.sha256!r}; expected 64 hexadecimal digits.")

    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Read the file, verify its digest, and try it on these rows; see `Learner.fit`."""
        import obstore

        from platform_assets.store import objects
        from platform_assets.store.artifacts import sha256
        from platform_assets.training import foreign_onnx

        try:
            # A folder that is not there stays so: opening it as a store would make it.
            is_there = objects.is_there(self.place)
            data = objects.read(objects.open_store(self.place), self.file) if is_there else None
        except (obstore.exceptions.BaseError, OSError) as problem:
            reason = objects.reason(self.place, problem)
            raise TrainingProblem(
                f"{self.file} cannot be read from {self.place}, the place of the product's FinishedOnnx: {reason}."
            ) from None
        if data is None:
            raise TrainingProblem(
                f"{self.file} is not in {self.place}; expected an ONNX file. Fix the product's FinishedOnnx."
            )
        if (actual := sha256(data)) != self.sha256:
            raise TrainingProblem(
                f"{self.file} in {self.place} has {len(data)} bytes with sha256 {actual}; expected {self.sha256}. Fix "
                "sha256 in the product's FinishedOnnx if the file was replaced on purpose."
            )
        try:
            foreign_onnx.check(data, rows, context.task)
        except TrainingProblem as problem:
            raise TrainingProblem(f"{self.file} in {self.place}: {problem}") from None
        blobs = {GIVEN: data}
        context.note_answers(labels, self.answers(blobs, rows, context))
        return blobs

    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Return the file; see `Learner.to_onnx`."""
        del graphs
        return blobs[GIVEN]

    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the graph's answers; see `Learner.answers`."""
        from platform_assets.training import export

        del context
        return export.answers(blobs[GIVEN], rows, batch=max(export.BATCHES))
