"""Train the tiny product as one of several processes, and die at a chosen moment: `main` of `launch.rank`'s module.

The file that `TINY_RANK` names has `extras`, changes of the product's `training` by rank under `training`, and under
`dies` by rank the step before which that process gets a signal, and its number. The first process appends the loss of
each step to `losses` next to it, and writes its result to `result`.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any


def main(group: Any) -> None:
    from platform_assets.base.settings import Settings
    from platform_assets.training.steps import process
    from platform_assets.training.steps.jobs import Job
    from platform_assets.training.steps.train import Training
    from platform_assets.training.train import Loop
    from tests.doubles.tiny_product import SPEC

    path = Path(os.environ["TINY_RANK"])
    plan, own = json.loads(path.read_text(encoding="utf-8")), str(group.rank)
    stop = process.StopRequest().listen()
    at, number = plan.get("dies", {}).get(own, (None, None))
    step = Loop.step

    def dying(loop: Loop) -> float:
        if loop.done == at:
            os.kill(os.getpid(), number)
        loss = step(loop)
        if group.rank == 0:
            with path.with_name("losses").open("a", encoding="utf-8") as file:
                file.write(json.dumps([loop.done, loss]) + "\n")
        return loss

    Loop.step = dying  # type: ignore[method-assign]
    spec = replace(SPEC, training=replace(SPEC.training, **plan.get("training", {}).get(own, {})))
    job = Job.from_extras(plan["extras"])
    settings = Settings.from_environment()
    result = Training(spec, job, settings, log=print, stop=stop, ttl_s=0.2, save_every_s=0.0, group=group).run()
    if result is not None:
        path.with_name("result").write_text(json.dumps(result), encoding="utf-8")
