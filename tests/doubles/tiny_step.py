"""Train or export the tiny product in a process of its own, and die at a chosen moment.

`python tests/doubles/tiny_step.py train EXTRAS.json MOMENT...` trains once per moment, each time in a new process,
forked after the imports because those take longest; it prints the exit codes and the last result as JSON.
`... export CHECKPOINT PACKAGE` prints its result. A moment is `-` for none, `stop:N` for SIGTERM at step N, or a name
of `MOMENTS` for SIGKILL.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = (
    "step 8",
    "between the two files of a save",
    "the last step",
    "the baselines",
    "the result",
    "the record of the result",
)


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def before(owner: Any, name: str, act: Callable[..., bool], number: int = signal.SIGKILL) -> None:
    """Make a process die before a call of a function whose arguments `act` accepts."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if act(*args, **kwargs):
            die(number)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def arrange(moment: str) -> None:
    from platform_assets.store.ledgers import Ledgers
    from platform_assets.training import baselines
    from platform_assets.training.steps.state import Saves
    from platform_assets.training.train import Loop

    if moment.startswith("stop:"):
        before(Loop, "step", lambda loop: loop.done == int(moment[5:]) - 1, signal.SIGTERM)
    elif moment == "step 8":
        before(Loop, "step", lambda loop: loop.done == 8)
    elif moment == "between the two files of a save":
        before(Saves, "_put_index", lambda saves, data, mode: b"step-000000025" in data)
    elif moment == "the last step":
        before(Loop, "step", lambda loop: loop.done == loop.steps - 1)
    elif moment == "the baselines":
        before(baselines, "fit", lambda *args: True)
    elif moment == "the result":
        before(Ledgers, "create_number", lambda ledgers, ledger, number, record: "result" in record)
    elif moment == "the record of the result":
        before(Ledgers, "create", lambda ledgers, ledger, key, record: ledger == "checkpoints")


def train(extras: Path, moments: list[str]) -> dict[str, Any]:
    import torch._dynamo  # noqa: F401  # the optimizer imports it when it is made
    from tiny_product import SPEC

    from platform_assets.base.settings import Settings
    from platform_assets.training.steps import process
    from platform_assets.training.steps import train as step

    job = step.Job.from_extras(json.loads(extras.read_text(encoding="utf-8")))
    settings, result = Settings.from_environment(), extras.with_suffix(".result")
    index, exit_codes, saved = settings.scratch / "saves" / job.fingerprint / "newest.json", [], []
    for moment in moments:
        child = os.fork()
        if child == 0:
            stop = process.StopRequest().listen()
            arrange(moment)
            done = step.Training(SPEC, job, settings, log=print, stop=stop, ttl_s=0.2, save_every_s=0.0).run()
            result.write_text(json.dumps(done), encoding="utf-8")
            sys.exit(0)
        exit_codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        saved.append(json.loads(index.read_text(encoding="utf-8"))[0]["facts"]["done"] if index.exists() else None)
    return {"exit_codes": exit_codes, "saved": saved, **json.loads(result.read_text(encoding="utf-8"))}


def export(checkpoint: str, package: str) -> dict[str, Any]:
    sys.path.insert(0, package)
    sys.meta_path[:] = [finder for finder in sys.meta_path if "Redirecting" not in type(finder).__name__]
    from tiny_product import SPEC

    import platform_assets
    from platform_assets.base.settings import Settings
    from platform_assets.training.steps import export as step

    assert str(platform_assets.__file__).startswith(package), platform_assets.__file__
    return step.run(SPEC, checkpoint, Settings.from_environment(), log=print)


if __name__ == "__main__":
    done = train(Path(sys.argv[2]), sys.argv[3:]) if sys.argv[1] == "train" else export(sys.argv[2], sys.argv[3])
    sys.stdout.write(json.dumps(done) + "\n")
