"""A search of the tuned product that may be killed at a named point.

`python -m tests.doubles.tuned_search ROOT STATE TRIALS [POINT]`; a point is `step N` (before the Nth step of a loop),
or `before N`, `half N` and `after N` (the Nth entry of the journal).
"""

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from platform_assets.base.settings import Settings
from platform_assets.operations.experiments import tune
from platform_assets.training.train import Loop
from tests.doubles import tiny_product as tiny
from tests.doubles.tuned_product import SPEC, product


def main(root: str, state: str, trials: str, point: str | None = None) -> None:
    if point is not None:
        kind, count = point.split()
        seen, append, step = [0], JournalFileBackend.append_logs, Loop.step

        def is_here(*kinds: str) -> bool:
            seen[0] += kind in kinds
            return kind in kinds and seen[0] == int(count)

        def appended(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            is_now = is_here("before", "half", "after")
            if is_now and kind == "half":
                path = Path(self._file_path)
                path.with_name(f"{path.name}.lock").symlink_to(path)
                with path.open("ab") as file:
                    file.write(json.dumps(logs[0]).encode()[:-9])
            if is_now and kind != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            append(self, logs)
            if is_now:
                os.kill(os.getpid(), signal.SIGKILL)

        def stepped(self: Loop) -> float:
            if is_here("step"):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self)

        JournalFileBackend.append_logs = appended  # type: ignore[method-assign]
        Loop.step = stepped  # type: ignore[method-assign]
    settings = Settings(root=root, state=Path(state))
    ended = tune.run(product(settings), tiny.CUTOFF, int(trials), Console(file=io.StringIO()))
    print(tune.report(SPEC, tiny.CUTOFF, ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
