"""Fit a scikit-learn estimator or pipeline; what is kept of it is its ONNX graph, because scikit-learn pickles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.product.learner import Blobs, Context, Graphs, Learner, TrainingProblem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from platform_assets.product.inputs import Inputs

CORE = "core.onnx"


@dataclass(frozen=True, kw_only=True)
class Estimator(Learner):
    """An estimator of scikit-learn that skl2onnx can convert. A killed fit starts again.

    It reads float32 [N, F + C]: the numeric fields, NaN for null, and then the codes of the categorical ones, 0 for an
    unknown value. Fix its `random_state` and `n_jobs`.

    Attributes:
        make: `(context) -> estimator` that is not fitted yet: a classifier with `predict_proba`, or a regressor.
    """

    make: Callable[[Context], Any]

    kinds: ClassVar[tuple[str, ...]] = ("scikitlearn", "onnx")

    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Fit the estimator and convert it; see `Learner.fit`.

        Raises:
            ParityFailure: the graph answers differently from the estimator.
        """
        from platform_assets.training import estimators, trees

        columns, cut = trees.matrix(rows, context.learned), len(rows) - context.judged
        is_regression, spread = context.task.kind == "regression", None
        if is_regression and not context.judged:
            raise TrainingProblem(
                "Estimator has validation_keys=0 in a regression, or these keys have no labels; expected at least 1 "
                "key with labels: the spread of its answers is measured on rows that it has not learned from."
            )
        with context.progress.busy():
            fitted = estimators.fitted(lambda: self.make(context), columns[:cut], labels[:cut])
            answers = estimators.answers(fitted, columns, context.task)
            if is_regression:
                spread = float(((labels[cut:] - answers[cut:]) ** 2).mean() ** 0.5)
            core = estimators.core(fitted, columns, context.learned, context.task, spread)
        context.note_answers(labels, estimators.with_spread(answers, spread))
        # The graph and not the estimator, which scikit-learn pickles.
        return {CORE: core}

    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Return the estimator's graph; see `Learner.to_onnx`."""
        import onnx

        return graphs.of_core(onnx.load_from_string(blobs[CORE]))

    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the answers of the estimator's own graph; see `Learner.answers`."""
        from platform_assets.training import estimators, trees

        return estimators.run(blobs[CORE], trees.matrix(rows, context.learned), len(context.learned.numeric))
