"""Be a training in a pod: hold the lease, save every half second, and report a result when the mark `go` is there.

Once it has lost its lease it tries to record and to report a result nevertheless. What it wrote under which lease shows
in the store: the index of saves, the checkpoint, its messages, and its own record among the attempts.
"""

import signal
import sys
import time
from contextlib import suppress

import obstore
import torch

from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Launch
from platform_assets.store.records.trainings import CHECKPOINTS, Checkpoint
from platform_assets.training.loop_state import LoopState
from platform_assets.training.steps.attempt import Attempt
from platform_assets.training.steps.instructions import open_context
from platform_assets.training.steps.state import Saves
from tests.doubles.marks import BucketMarks

TTL_S = 5.0


def main() -> None:
    with open_context() as pipes:
        # The cluster stops a pod that was replaced; this one goes on writing as long as it may.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        launch = Launch.read(pipes.extras["attempt"])
        settings = Settings.from_environment()
        work = {"fingerprint": str(launch.fingerprint), "cutoff": str(launch.cutoff)}
        ledgers, marks = Ledgers(settings.root, str(launch.product)), BucketMarks(pipes.extras["folder"])
        attempt = Attempt(settings, ledgers, **work, profile_name="cpu_small", ttl_s=TTL_S, launch=launch)
        with attempt:
            attempt.acquire(wait=lambda: True)
            saves = Saves(settings.root, work["fingerprint"])
            saves.claim(fence=attempt.fence)
            sys.stdout.write(f"lease {attempt.fence}\n")
            sys.stdout.flush()
            try:
                done = 0
                while not is_let_go(marks):
                    done += 1
                    with suppress(obstore.exceptions.BaseError, LedgerProblem):  # cut off: it tries again
                        facts = {"done": done, "steps": 10_000, "loss_sum": 0.0, "history": []}
                        saves.save(
                            LoopState(tensors={"weights": torch.full((3,), float(done))}, facts=facts),
                            fence=attempt.fence,
                            world_sizes=[(0, 1)],
                        )
                        attempt.beat()
                    time.sleep(0.5)
            finally:
                pipes.report_custom_message({"kind": "result", "value": attempt.fence})
                attempt.conclude(CHECKPOINTS, Checkpoint(manifest=f"of lease {attempt.fence}"))


def is_let_go(marks: BucketMarks) -> bool:
    try:
        return marks.exists("go")
    except obstore.exceptions.BaseError:
        return False


if __name__ == "__main__":
    main()
