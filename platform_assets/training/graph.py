"""Load the graph of a bundle, and score rows with it: evaluation, drift and services use the same code.

What is used of a bundle is verified before anything in it is parsed (`sealed`).
Shapes: N rows, F numeric fields, C categories, an image H pixels high and W wide, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from platform_assets.base import onnx_runtime
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.sealed import GRAPH, ModelProblem, Sealed

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

ANSWER = "answer"
"""A graph's only output."""
PROVIDER = "CPUExecutionProvider"


class Graph:
    """A loaded graph.

    Attributes:
        digest: of its bundle.
    """

    def __init__(self, digest: str, session: onnxruntime.InferenceSession) -> None:
        self.digest = digest
        self._session = session
        self._failures = failures()
        self._run = session.run
        names = {item.name for item in session.get_inputs()}
        self._has_numeric, self._has_categorical, self._has_image = (
            name in names for name in ("numeric", "categorical", "image")
        )

    @staticmethod
    def read(store: ArtifactStore, digest: str) -> Graph:
        """Verify what serving uses of a bundle, then load its graph.

        Raises:
            ArtifactProblem: a blob is missing or changed; nothing in the bundle was parsed.
            ModelProblem: the bundle is intact, but ONNX Runtime cannot load its graph.
        """
        return Graph(digest, session(digest, Sealed.read(store, digest).blobs[GRAPH]))

    def predict(
        self,
        numeric: NDArray[np.float32],
        categorical: NDArray[Any],
        image: NDArray[np.uint8] | None = None,
        options: onnxruntime.RunOptions | None = None,
    ) -> NDArray[np.float32]:
        """Return the answer to each row, float32: [N] probabilities, [N, K] probabilities or [N, 2] value and spread.

        Only the graph's own inputs are passed to it.

        Args:
            numeric: float32 [N, F], NaN for null.
            categorical: object [N, C] of `str`, the empty text for null.
            image: uint8 [N, H, W]; only for a contract with an image.
            options: of ONNX Runtime, to end the run from another thread.

        Raises:
            ModelProblem: ONNX Runtime fails on the rows.
        """
        feed: dict[str, NDArray[Any]] = {}
        if self._has_numeric:
            feed["numeric"] = numeric
        if self._has_categorical:
            feed["categorical"] = categorical
        if self._has_image:
            if image is None:
                raise ModelProblem(f"bundle {self.digest} needs an image and got none.")
            feed["image"] = image
        try:
            answer: NDArray[np.float32] = self._run((ANSWER,), feed, options)[0]
        except self._failures as problem:
            raise ModelProblem(f"bundle {self.digest} failed to answer: {problem}") from problem
        return answer


def session(digest: str, graph: bytes) -> onnxruntime.InferenceSession:
    """Load a graph's bytes; raise `ModelProblem` if ONNX Runtime rejects them."""
    ort = onnx_runtime.library()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # requests are the parallelism
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        loaded: onnxruntime.InferenceSession = ort.InferenceSession(graph, options, providers=[PROVIDER])
    except failures() as problem:
        raise ModelProblem(f"bundle {digest}: ONNX Runtime rejects {GRAPH}: {problem}") from None
    # ONNX Runtime takes another provider without an error where the one that was asked for fails.
    assert loaded.get_providers()[0] == PROVIDER, loaded.get_providers()
    return loaded


def failures() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exceptions; they have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    )
