"""A step of numbered small steps that saves, resumes and ends on SIGTERM: `python -m proof.doubles.counting_step`.

It holds a real `Attempt`: lease, progress and record are those of a training. Its state is a number on S3.
"""

import time

import obstore

from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.records.attempts import Launch
from platform_assets.training.steps import process
from platform_assets.training.steps.attempt import Attempt
from platform_assets.training.steps.instructions import open_context
from tests.doubles.marks import BucketMarks

LEASE_S = 3.0
"""How long its lease remains after its end."""


def main() -> None:
    stop = process.StopRequest().listen()
    with open_context() as pipes:
        launch = Launch.read(pipes.extras["attempt"])
        assert launch.product is not None and launch.fingerprint is not None and launch.cutoff is not None
        settings = Settings.from_environment()
        attempt = Attempt(
            settings,
            Ledgers(settings.root, launch.product),
            fingerprint=launch.fingerprint,
            cutoff=launch.cutoff,
            profile_name=launch.profile,
            ttl_s=LEASE_S,
            launch=launch,
        )
        with attempt:
            if not attempt.acquire(wait=lambda: not stop.is_set):
                raise process.Preempted
            count(attempt, stop, **pipes.extras["count"])
        pipes.report_custom_message({"kind": "result", "checkpoint": launch.fingerprint})


def count(attempt: Attempt, stop: process.StopRequest, *, folder: str, steps: int, step_s: float, every: int) -> None:
    """Do what is left of the steps, and save after every so many; a mark `fail` in the folder is an own error."""
    store, marks = open_store(folder), BucketMarks(folder)
    done = int(bytes(obstore.get(store, "saved").bytes())) if marks.exists("saved") else 0
    attempt.note(resumed_from_step=done, steps_done=done, steps_saved=done)
    while done < steps:
        time.sleep(step_s)
        done += 1
        attempt.note(steps_done=done)
        if done % every == 0 and marks.exists("fail"):
            marks.remove("fail")
            raise ValueError("the double was told to fail")
        if stop.is_set or done % every == 0 or done == steps:
            obstore.put(store, "saved", str(done).encode())
            attempt.note(steps_saved=done)
        attempt.beat()
        stop.check()


if __name__ == "__main__":
    main()
