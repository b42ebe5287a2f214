"""A run that launches one step as a pod, as a process of its own: `python -m tests.cluster.launched_run REQUEST`.

The process starts in the cluster's network, and a test may kill it as a whole.
"""

import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes.gang.launcher import GangLauncher
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.launchers import StepLauncher
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.store.records.values import member


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to launch, and where to write how it ended."""

    work: Work
    profile: dict[str, Any]
    extras: dict[str, Any]
    patience_s: float
    result: str
    module: str
    is_shared: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended.

    Attributes:
        lines: of the run's log.
        took_s: from the request to the end.
        value: of the step's result; None without one.
        error: of the asset that waited; empty if it went well.
        records: of the attempts in the ledger, oldest first.
    """

    lines: list[str]
    took_s: float
    value: int | None
    error: str
    records: list[dict[str, Any]]

    @property
    def reasons(self) -> list[str]:
        return [record["reason"] for record in self.records]


def main() -> None:
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    settings = Settings.from_environment()
    launcher = KubernetesLauncher(settings, patience_s=request.patience_s)
    launcher.of_several_nodes = gangs = GangLauncher(settings, patience_s=request.patience_s)
    launcher.longest_pause_s = gangs.longest_pause_s = 1.0

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        profile = StepProfile(**request.profile)
        result = launcher.run(
            context=context,
            module=request.module,
            extras=request.extras,
            profile=profile,
            work=request.work,
            is_shared=request.is_shared,
        )
        results.append(member(result, "value"))
        return dg.MaterializeResult()

    results: list[Any] = []
    began_s = time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([waits], resources={"launcher": launcher}, instance=instance, raise_on_error=False)
        took_s = time.monotonic() - began_s
        lines = [entry.message for entry in instance.all_logs(run.run_id)]
    failures = [event for event in run.all_events if event.is_step_failure]
    error = (
        str(failures[0].step_failure_data.user_failure_data or failures[0].step_failure_data.error) if failures else ""
    )
    ledger = Ledgers(settings.root, request.work.product).of(ATTEMPTS)
    records = [record.document() for _, record in reversed(unique_attempts(ledger.records()))]
    value = results[0] if results else None
    result = Result(lines=lines, took_s=took_s, value=value, error=error, records=records)
    result_path = Path(request.result)
    new = result_path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(result))
    new.rename(result_path)


if __name__ == "__main__":
    main()
