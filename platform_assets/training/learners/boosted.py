"""Boosted trees by LightGBM: deterministic, and as a graph that reaches the same leaf for every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.product.learner import Blobs, Context, Graphs, Learner, TrainingProblem

if TYPE_CHECKING:
    import numpy as np
    from lightgbm.callback import CallbackEnv
    from numpy.typing import NDArray

    from platform_assets.product.inputs import Inputs

BOOSTER, SPREAD = "booster.txt", "spread.json"
OBJECTIVES = {
    "binary": ("binary", "binary_logloss"),
    "multi_class": ("multiclass", "multi_logloss"),
    "regression": ("regression", "l2"),
}
DECIDED = (
    *("objective", "objective_type", "app", "application", "loss", "metric", "metrics", "metric_types"),
    *("num_class", "num_classes", "num_threads", "num_thread", "nthread", "nthreads", "n_jobs"),
    *("seed", "random_seed", "random_state", "deterministic", "force_row_wise", "verbosity", "verbose"),
    *("sigmoid", "zero_as_missing", "linear_tree", "linear_trees", "boost_from_average"),
    *("num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees", "num_round", "num_rounds", "nrounds"),
    *("num_boost_round", "n_estimators", "max_iter"),
    *("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change"),
)
"""Parameters that the platform, the task or a field of `LightGbm` decides, under all of LightGBM's names for them."""
EVERY = 10
"""Rounds between two points of the curve."""


@dataclass(frozen=True, kw_only=True)
class LightGbm(Learner):
    """Trees of LightGBM over numbers and categories; null is null, and unknown categories are a category.

    The number of threads is `Training.threads`, part of the fingerprint. A killed fit starts again.

    Attributes:
        rounds (trees): per output.
        settings: LightGBM's parameters, such as `num_leaves` and `learning_rate`.
        patience (rounds): end when this many rounds have not improved the validation loss; None never.
    """

    rounds: int = 400
    settings: Mapping[str, Any] = field(default_factory=dict)
    patience: int | None = None

    # Does not resume: after init_model the random streams of bagging and features start anew, and give other trees.
    kinds: ClassVar[tuple[str, ...]] = ("lightgbm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if decided := sorted(set(self.settings) & set(DECIDED)):
            raise ValueError(
                f"LightGbm.settings has {', '.join(decided)}, which the platform, the task or a field of LightGbm "
                "decides; leave it out."
            )
        if self.rounds < 1 or (self.patience is not None and (self.patience < 1 or not self.validation_keys)):
            raise ValueError(
                f"LightGbm has rounds={self.rounds}, patience={self.patience} and "
                f"validation_keys={self.validation_keys}; expected at least one round, and a patience of at least 1 "
                "with keys that judge the rounds."
            )

    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Fit the trees; see `Learner.fit`."""
        import lightgbm
        import msgspec

        from platform_assets.training import trees

        columns = trees.matrix(rows, context.learned)
        cut = len(rows) - context.judged
        is_regression = context.task.kind == "regression"
        if is_regression and not context.judged:
            raise TrainingProblem(
                "LightGbm has validation_keys=0 in a regression; expected at least 1: the spread of its answers is "
                "measured on rows that it has not learned from."
            )
        if self.validation_keys and not context.judged:
            raise TrainingProblem(
                f"the last {self.validation_keys} training keys, LightGbm.validation_keys, have no labelled row; "
                "expected some to judge the rounds on."
            )
        self._check_names()
        try:
            booster = self._boost(columns, labels, cut, context)
        except lightgbm.basic.LightGBMError as problem:
            raise TrainingProblem(
                f"LightGBM refuses to fit {cut} rows of {columns.shape[1]} columns: {problem} Fix LightGbm.settings in "
                "the product's file."
            ) from None
        blobs = {BOOSTER: booster.model_to_string(num_iteration=booster.best_iteration).encode()}
        if is_regression:
            residuals = labels[cut:] - booster.predict(columns[cut:], num_iteration=booster.best_iteration)
            blobs[SPREAD] = msgspec.json.encode(float((residuals**2).mean() ** 0.5))
        return blobs

    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Return the trees' graph; see `Learner.to_onnx`."""
        from platform_assets.training import trees

        forest = trees.forest_of(_booster(blobs).dump_model())
        return graphs.of_core(trees.core(forest, graphs.learned, graphs.task, _spread(blobs)))

    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the booster's own answers; see `Learner.answers`."""
        import numpy as np

        from platform_assets.training import trees

        # LightGBM reads doubles; a float32 is one.
        predicted = np.asarray(
            _booster(blobs).predict(
                trees.matrix(rows, context.learned).astype(np.float64), num_threads=context.training.threads
            )
        )
        spread = _spread(blobs)
        if spread is not None:
            predicted = np.column_stack([predicted, np.full(len(rows), spread)])
        return predicted.astype(np.float32)

    def _check_names(self) -> None:
        """Refuse settings that LightGBM would ignore."""
        from difflib import get_close_matches

        from lightgbm.basic import _ConfigAliases

        by_name = _ConfigAliases._get_all_param_aliases()  # what `LGBM_DumpParamAliases` returns
        names = {*by_name, *(alias for aliases in by_name.values() for alias in aliases)}
        if unknown := sorted(set(self.settings) - names):
            near = get_close_matches(unknown[0], by_name, n=1)
            raise TrainingProblem(
                f"LightGbm.settings has {', '.join(unknown)}; expected names of LightGBM's parameters"
                f"{f', such as {near[0]}' if near else ''}. LightGBM ignores others."
            )

    def _boost(self, columns: NDArray[np.float32], labels: NDArray[Any], cut: int, context: Context) -> Any:
        """Return the booster of the rows before `cut`, judged on those behind it."""
        import lightgbm

        objective, metric = OBJECTIVES[context.task.kind]
        classes = {"num_class": context.task.outputs} if context.task.kind == "multi_class" else {}
        parameters = {
            **self.settings,
            **classes,
            "objective": objective,
            "metric": metric,
            "num_threads": context.training.threads,
            "seed": context.training.seed,
            "deterministic": True,
            # By itself LightGBM chooses between rows and columns by timing both.
            "force_row_wise": True,
            "verbosity": -1,
        }

        def report(env: CallbackEnv) -> None:
            done = env.iteration + 1
            losses = {f"{name}_loss": float(value) for name, _, value, *_ in env.evaluation_result_list or []}
            is_shown = done % EVERY == 0 or done == self.rounds
            context.progress.note(done, self.rounds, **(losses if is_shown else {}))

        categories = list(range(len(context.learned.numeric), columns.shape[1]))
        train = lightgbm.Dataset(columns[:cut], labels[:cut], categorical_feature=categories, params=parameters)
        judged = {"judged": train.create_valid(columns[cut:], labels[cut:])} if context.judged else {}
        stopping = [lightgbm.early_stopping(self.patience, verbose=False)] if self.patience else []
        return lightgbm.train(
            parameters,
            train,
            self.rounds,
            valid_sets=[train, *judged.values()],
            valid_names=["train", *judged],
            callbacks=[report, *stopping],
        )


def _booster(blobs: Blobs) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=blobs[BOOSTER].decode())


def _spread(blobs: Blobs) -> float | None:
    import msgspec

    return msgspec.json.decode(blobs[SPREAD], type=float) if SPREAD in blobs else None
