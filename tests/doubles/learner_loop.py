"""Play a product's loop with its real sensors and jobs: `python -m tests.doubles.learner_loop PRODUCT`, in a checkout.

It trains and releases its first model, trains again when that one is too old, and goes back. Prints `driftline status`
after each of the three, below a line `=== STAGE`, and at last one JSON line.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from tests.doubles.products import live_parts

MOST_TICKS = 60


class Loop:
    """The product's definitions, an instance, and the cursors of its sensors."""

    def __init__(self, product: str, instance: dg.DagsterInstance) -> None:
        from platform_assets.definitions import defs

        self.defs, self.product, self.instance = defs, product, instance
        self.cursors: dict[str, str | None] = {}
        self.runs: list[str] = []

    def land(self, index: int, at: datetime) -> None:
        from platform_assets.base.settings import Settings

        for place, text in live_parts.files(index, at).items():
            path = Path(Settings.from_environment().root, "landing", place.replace(live_parts.SPEC.name, self.product))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def tick(self, name: str) -> int:
        """Evaluate a sensor as the daemon does, and run what it requests; return how many runs that were."""
        sensor = self.defs.get_sensor_def(name)
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(name), sensor_name=name)
        result: Any = sensor(context)
        self.cursors[name] = result.cursor
        for request in result.run_requests or ():
            job = self.defs.resolve_job_def(request.job_name)
            tags = {**request.tags, "dagster/sensor_name": name}
            job.execute_in_process(
                instance=self.instance, tags=tags, partition_key=request.partition_key, run_config=request.run_config
            )
            self.runs.append(request.job_name)
        return len(result.run_requests or ())

    def settle(self) -> None:
        """Evaluate both sensors until neither asks for a run."""
        for _ in range(MOST_TICKS):
            if self.tick("landings") + self.tick("retrain") == 0:
                return
        raise AssertionError(f"the sensors still request runs after {MOST_TICKS} ticks: {self.runs}")


def main(product: str) -> None:
    from platform_assets.base.settings import Settings
    from platform_assets.cli import main as cli
    from platform_assets.engine import product_files
    from platform_assets.store.product_store import ProductStore

    def show(stage: str) -> None:
        print(f"=== {stage}")
        assert cli(["status", product]) == 0

    spec, now = product_files.load(product), datetime.now(UTC).replace(microsecond=0)
    with dg.DagsterInstance.ephemeral() as instance:
        loop = Loop(product, instance)
        count = live_parts.LEARNED + spec.retraining.max_age
        for index in range(count):
            loop.land(index, now - timedelta(days=count - index))
            if index >= live_parts.LEARNED - 1:
                loop.settle()
            if index == live_parts.LEARNED - 1:
                show("released")
        show("trained again by the sensors")
        history = ProductStore(spec, Settings.from_environment()).history
        assert cli(["rollback", product, "--why", "a test of rollback"]) == 0
        show("rolled back")
        digests = [release.digest for _, release in history.releases()]
        print(json.dumps({"runs": loop.runs, "live": digests}))


if __name__ == "__main__":
    main(sys.argv[1])
