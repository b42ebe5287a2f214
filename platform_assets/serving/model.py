"""Load a bundle and score rows by it.

Belongs here: verifying a bundle before anything of it is parsed, the ONNX session, warming. Evaluation scores by
the same code. Does not belong here: which bundle to load (`follow`), decoding requests (`contract`).
Shapes: N rows, F numeric fields, C categories.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from platform_assets.serving.contract import Contract, ContractProblem
from platform_assets.storage.artifacts import ArtifactStore, Bundle

if TYPE_CHECKING:
    import onnxruntime

GRAPH, CONTRACT, LEARNED = "model.onnx", "contract.json", "learned.json"
PROVIDER = "CPUExecutionProvider"
_WARM_ROWS = (1, 1, 7)


class ModelProblem(Exception):
    """A bundle that is whole but cannot be served; the message names its digest."""


class Model:
    """A loaded bundle.

    Attributes:
        digest: of the bundle.
        contract: what its requests hold.
        vocabularies: for each categorical column whose unknown values are refused, what training saw.
    """

    def __init__(
        self, digest: str, contract: Contract, session: onnxruntime.InferenceSession, learned: dict[str, Any]
    ) -> None:
        self.digest = digest
        self.contract = contract
        known = {item["name"]: frozenset(item["vocabulary"]) for item in learned.get("categorical", ())}
        self.vocabularies = {
            column: known.get(item.name, frozenset())
            for column, item in enumerate(contract.categorical)
            if item.unknown == "reject"
        }
        self._session = session
        self._failures = _failures()
        self._run = session.run
        self._has_numeric = "numeric" in {item.name for item in session.get_inputs()}
        self._has_categorical = "categorical" in {item.name for item in session.get_inputs()}
        self._check_inputs()

    @staticmethod
    def load(store: ArtifactStore, digest: str, threads: int = 1) -> Model:
        """Verify every blob of a bundle, then load its graph.

        Args:
            store: where the bundle lies.
            digest: of the bundle.
            threads: of one run; 1 for serving, where requests are the parallelism.

        Raises:
            ArtifactProblem: a blob is missing or changed; nothing of the bundle was parsed.
            ModelProblem: the bundle is whole, but no graph or no contract that this code can serve.
        """
        bundle = store.bundle(digest)
        blobs = {name: bundle.read(name) for name in bundle.names}
        for name in (GRAPH, CONTRACT, LEARNED):
            if name not in blobs:
                raise ModelProblem(
                    f"bundle {digest} has no blob {name!r}; it has {list(bundle.names)}. Export it again."
                )
        try:
            contract = Contract.from_bytes(blobs[CONTRACT])
        except ContractProblem as problem:
            raise ModelProblem(f"bundle {digest}: {problem}") from None
        _check_contract(bundle, contract)
        return Model(digest, contract, _session(digest, blobs[GRAPH], threads), json.loads(blobs[LEARNED]))

    def predict(self, numeric: NDArray[np.float32], categorical: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probability of each row.

        Args:
            numeric: float32 [N, F], a null being NaN.
            categorical: object [N, C] of `str`, a null being the empty text.

        Raises:
            ModelProblem: ONNX Runtime gives up on the rows.
        """
        feed: dict[str, Any] = {}
        if self._has_numeric:
            feed["numeric"] = numeric
        if self._has_categorical:
            feed["categorical"] = categorical
        try:
            probability: NDArray[np.float32] = self._run(("probability",), feed)[0]
        except self._failures as problem:
            raise ModelProblem(f"bundle {self.digest} does not answer: {problem}") from problem
        return probability

    def warm(self) -> None:
        """Score a few plain rows, so that no caller pays for first-time work.

        Raises:
            ModelProblem: the graph does not give one probability between 0 and 1 for each row.
        """
        for rows in _WARM_ROWS:
            numeric = np.array(
                [[_plain(item.is_nullable, *item.bounds) for item in self.contract.numeric]] * rows, np.float32
            )
            categorical = np.full((rows, len(self.contract.categorical)), "", dtype=object)
            out = self.predict(numeric, categorical)
            if out.shape != (rows,) or out.dtype != np.float32 or not ((out >= 0) & (out <= 1)).all():
                raise ModelProblem(
                    f"bundle {self.digest} answers {rows} plain rows with {out.dtype}{list(out.shape)} "
                    f"{out.ravel()[:3]}; expected float32[{rows}] between 0 and 1."
                )

    def _check_inputs(self) -> None:
        wide = {"numeric": len(self.contract.numeric), "categorical": len(self.contract.categorical)}
        for item in self._session.get_inputs():
            columns = item.shape[1] if len(item.shape) == 2 else None
            if item.name not in wide or (isinstance(columns, int) and columns != wide[item.name]):
                raise ModelProblem(
                    f"bundle {self.digest}: the graph takes {item.name!r} {item.shape}; its contract has "
                    f"{wide['numeric']} numeric and {wide['categorical']} categorical fields. Export it again."
                )


def _session(digest: str, graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[PROVIDER])
    except _failures() as problem:
        raise ModelProblem(f"bundle {digest}: ONNX Runtime refuses {GRAPH}: {problem}") from None
    assert session.get_providers()[0] == PROVIDER, session.get_providers()
    return session


def _failures() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises; its exceptions have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    )


def _check_contract(bundle: Bundle, contract: Contract) -> None:
    sealed = bundle.manifest.get("contract_sha256")
    if contract.sha256 != sealed:
        raise ModelProblem(
            f"bundle {bundle.digest} names contract {sealed} and holds {CONTRACT} with {contract.sha256}. "
            "Export it again."
        )


def _plain(is_nullable: bool, low: float, high: float) -> float:
    return float("nan") if is_nullable else min(max(0.0, low), high)
