"""Blend several learners: one graph whose answer is the weighted mean of theirs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.base.problems import Problem
from platform_assets.product.learner import Alone, Blobs, Context, Graphs, Learner, Progress, Resumable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from platform_assets.product.inputs import Inputs


class _Part(Alone):
    """Progress of one learner of a blend, passed on to the blend.

    Args:
        before: steps of the learners before it, which are counted too.
        is_saved: whether its steps are saved: saves have no names, so only one learner of a blend has some.

    Attributes:
        steps: how many it has taken.
    """

    def __init__(self, whole: Progress, before: int, *, is_saved: bool) -> None:
        super().__init__()
        self._whole, self._before, self._is_saved = whole, before, is_saved
        self.steps = 0

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Say how far the blend is."""
        super().note(done, steps, **measures)
        self.steps = done
        self._whole.note(self._before + done, self._before + steps)

    def busy(self) -> AbstractContextManager[None]:
        """Keep the lease while a library works."""
        return self._whole.busy()

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop to its end, from the newest save if it has saves; otherwise say each step."""
        if self._is_saved:
            self._whole.take_steps(loop)
        while not loop.is_finished:
            loop.step()
            self.note(loop.done, loop.steps)
        self.steps = loop.done
        self.history.extend(loop.history)


@dataclass(frozen=True, kw_only=True)
class Blend(Learner):
    """The weighted mean of several learners' answers, as one graph.

    The first learner that resumes is fitted first: after a kill it goes on from its newest save, to the same bytes, and
    the others start again.

    Attributes:
        learners: at least two; their own `validation_keys` do not count, the blend's do.
        weights: one per learner, adding up to 1; None for equal ones.
    """

    learners: tuple[Learner, ...]
    weights: tuple[float, ...] | None = None

    kinds: ClassVar[tuple[str, ...]] = ("onnx",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.learners) < 2 or not all(isinstance(learner, Learner) for learner in self.learners):
            raise ValueError(f"Blend.learners is {self.learners!r:.100}; expected at least two learners.")
        shares = self.shares
        if len(shares) != len(self.learners) or min(shares) <= 0 or abs(sum(shares) - 1.0) > 1e-9:
            raise ValueError(
                f"Blend.weights is {self.weights}; expected {len(self.learners)} numbers above 0 that add up to 1."
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each learner."""
        return self.weights or (1.0 / len(self.learners),) * len(self.learners)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The product's functions among its learners' fields."""
        return [function for learner in self.learners for function in learner.functions]

    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Fit each learner on the same rows; see `Learner.fit`."""
        saved = next((number for number, learner in enumerate(self.learners) if learner.resumes), None)
        blobs: dict[str, bytes] = {}
        steps = epochs = 0
        for number in sorted(range(len(self.learners)), key=lambda number: number != saved):
            part = _Part(context.progress, steps, is_saved=number == saved)
            learner = replace(self.learners[number], validation_keys=self.validation_keys)
            try:
                fitted = learner.fit(rows, labels, replace(context, progress=part))
            except Problem as problem:
                place = f"learner {number + 1} of the blend's {len(self.learners)}, {type(learner).__name__}"
                raise type(problem)(f"{place}: {problem}") from None
            blobs |= {f"{number}.{name}": data for name, data in fitted.items()}
            steps += part.steps
            epochs += len(part.history) if number == saved else 0
        # The curve's last point: another model than that of the points before it.
        context.note_answers(labels, self.answers(blobs, rows, context), epochs + 1, is_blend=1.0)
        return blobs

    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Return the blended graph; see `Learner.to_onnx`."""
        files = [learner.to_onnx(_own(blobs, number), graphs) for number, learner in enumerate(self.learners)]
        return graphs.of_blend(files, self.shares)

    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the weighted mean of the learners' own answers; see `Learner.answers`."""
        import numpy as np

        parts = [
            learner.answers(_own(blobs, number), rows, context) * np.float32(share)
            for number, (learner, share) in enumerate(zip(self.learners, self.shares, strict=True))
        ]
        total: NDArray[np.float32] = sum(parts[1:], start=parts[0]).astype("<f4")
        return total


def _own(blobs: Blobs, number: int) -> Blobs:
    prefix = f"{number}."
    return {name.removeprefix(prefix): data for name, data in blobs.items() if name.startswith(prefix)}
