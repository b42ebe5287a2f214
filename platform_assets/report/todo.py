"""The section that says what to do now, with the commands."""

from __future__ import annotations

from collections.abc import Sequence

from platform_assets.report import blocks
from platform_assets.report.blocks import Block, Code, Section, paragraph
from platform_assets.status.state import Todo
from platform_assets.status.words import SHELL


def section(todo: Sequence[Todo], noun: str = "key") -> Section:
    """Return what to do, or that there is nothing.

    Args:
        noun: what a key of this product is called.
    """
    if not todo:
        text = f"No {noun} is held, the model is not stale, and no label is missing."
        return Section(title="Nothing to do now", blocks=[paragraph(text)], kind="sound")
    shell: list[Block] = []
    if any(step.command.startswith("dg ") for one in todo for step in one.steps):
        shell = [paragraph("In a new shell, run ", Code(SHELL), " first.", kind="muted small")]
    tasks = [blocks.Task(one.what, [blocks.Step(step.when, step.command) for step in one.steps]) for one in todo]
    return Section(title="What to do now", blocks=[*tasks, *shell], kind="todo")
