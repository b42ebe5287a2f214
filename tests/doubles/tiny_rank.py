"""Train the tiny product as one of several processes, and go wrong at a chosen moment: a module of `launch.rank`.

The file that `TINY_RANK` names is a `Plan`. Next to it the first process appends the loss of each step to `losses`,
and writes its result to `result`.
"""

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes do; members by rank have the numbers of some of them.

    Attributes:
        extras: of the job.
        training: changes of the product's training, in all processes.
        own: changes of it by rank.
        dies: by rank the step before which that process gets a signal, and the signal.
        fills: by rank the step before which that process finds its disk full.
        hangs: by rank the step before which that process waits for nothing.
        least_s: how long a step has before it hangs.
        other_rows: ranks that read other rows.
        ready: a file that each process makes once it has joined, and then waits until it is gone.
    """

    extras: dict[str, Any]
    training: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    dies: dict[str, tuple[int, int]] = {}
    fills: dict[str, int] = {}
    hangs: dict[str, int] = {}
    least_s: float = 30.0
    other_rows: tuple[int, ...] = ()
    ready: str = ""


def main(group: Any) -> None:
    from platform_assets.base.settings import Settings
    from platform_assets.launch.train import quality
    from platform_assets.training import watchdog
    from platform_assets.training.checkpoint_maker import Learning
    from platform_assets.training.steps import process
    from platform_assets.training.steps.jobs import Job
    from platform_assets.training.steps.train import Training
    from platform_assets.training.train import Loop
    from tests.doubles.tiny_product import SPEC

    path = Path(os.environ["TINY_RANK"])
    plan, own = msgspec.json.decode(path.read_bytes(), type=Plan), str(group.rank)
    stop = process.StopRequest().listen()
    if plan.ready:
        Path(f"{plan.ready}-{own}").touch()
        while Path(f"{plan.ready}-{own}").exists() and not stop.is_set:
            threading.Event().wait(0.05)
    step, rows = Loop.step, Learning.rows

    def dying(loop: Loop) -> float:
        at, number = plan.dies.get(own, (None, 0))
        if loop.done == at:
            os.kill(os.getpid(), number)
        if loop.done == plan.fills.get(own):
            raise OSError(errno.ENOSPC, "No space left on device")
        if loop.done == plan.hangs.get(own):
            threading.Event().wait()
        loss = step(loop)
        if group.rank == 0:
            with path.with_name("losses").open("a", encoding="utf-8") as file:
                file.write(f"{loop.done} {loss!r}\n")
        return loss

    def others(*arguments: Any) -> Any:
        return replace(result := rows(*arguments), frame=result.frame.reverse())

    watchdog.LEAST_S = plan.least_s
    Loop.step = dying  # type: ignore[method-assign]
    if group.rank in plan.other_rows:
        Learning.rows = others  # type: ignore[method-assign]
    spec = replace(SPEC, training=replace(SPEC.training, **plan.training, **plan.own.get(own, {})))
    job, settings = Job.from_extras(plan.extras), Settings.from_environment()
    fast = {"ttl_s": 0.2, "save_every_s": 0.0}
    result = Training(spec, job, settings, log=print, stop=stop, quality=quality, group=group, **fast).run()
    if result is not None:
        path.with_name("result").write_bytes(msgspec.json.encode(result))
