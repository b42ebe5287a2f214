"""Define what is recorded of a column of labels, whatever the kind of task. Imports nothing: records hold one."""

from typing import TypedDict


class Labels(TypedDict, total=False):
    """Summary of a column of labels; members depend on the task: positives, rows per class, or the range of numbers."""

    nulls: int
    positives: int
    classes: dict[str, int]
    mean: float | None
    lowest: float | None
    highest: float | None
