"""Record the checks of keyed assets key by key, each with the materialisation that it judged.

A key that failed stays failed while others are repaired. Dagster's badge of an asset shows the newest evaluation
whatever key it is of, so the check `all_keys` fails while any key's newest evaluation failed.

Checks with partitions are a preview in Dagster, used here alone and tested with 1.13.27. A class that Dagster does not
export is imported, because an evaluation of a range run counts for no key without it.
`DRIFTLINE_CHECKS_PER_KEY=false` turns this off; each check is then evaluated once per run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from platform_assets.base.settings import checks_per_key
from platform_assets.base.wording import counted
from platform_assets.engine import metadata, partitions
from platform_assets.engine.metadata import Metadata

ALL_KEYS = "all_keys"
MOST_SHOWN = 20
Events = Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output[None]]


@dataclass(frozen=True, kw_only=True)
class KeyCheck:
    """A check's result for one key.

    Attributes:
        passed: whether the key is as it should be.
        description: one sentence; of a failure it begins with what failed, such as a source's name.
        metadata: more about the key.
        is_warning: whether a failure is a warning and not an error.
    """

    passed: bool
    description: str
    metadata: Metadata = field(default_factory=dict)
    is_warning: bool = False

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """Dagster's."""
        return dg.AssetCheckSeverity.WARN if self.is_warning else dg.AssetCheckSeverity.ERROR


def specs(
    asset: dg.AssetKey, checks: Mapping[str, str], definition: dg.PartitionsDefinition[str] | None
) -> list[dg.AssetCheckSpec]:
    """Return the checks of an asset, by name and description; with partitions, one more for all keys together."""
    if definition is None or not checks or not checks_per_key():
        return [dg.AssetCheckSpec(name, asset=asset, description=text) for name, text in checks.items()]
    with partitions.beta_allowed():
        keyed = [
            dg.AssetCheckSpec(name, asset=asset, description=text, partitions_def=definition)
            for name, text in checks.items()
        ]
    text = f"No key fails {' or '.join(checks)}, as each was judged last. Blocks nothing."
    return [*keyed, dg.AssetCheckSpec(ALL_KEYS, asset=asset, description=text)]


def report(
    instance: dg.DagsterInstance, asset: dg.AssetKey, name: str, results: Mapping[str, KeyCheck], *, is_keyed: bool
) -> Events:
    """Yield a check's evaluations for the keys of a run, once these keys' materialisations are stored.

    Args:
        asset: that the check is of.
        name: the check's.
        results: by key; a key that was not judged has none.
        is_keyed: whether the asset has keys.
    """
    if not is_keyed or not checks_per_key():
        yield _of_run(asset, name, results, results)
        return
    spec = dg.AssetCheckSpec(name, asset=asset)
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=list(results))
    records = instance.fetch_materializations(wanted, limit=max(1, len(results))).records if results else []
    # Dagster gives the newest first, so that one stays.
    targets = {record.partition_key: record for record in reversed(records)}
    for key, result in results.items():
        target = targets.get(key)
        yield dg.AssetCheckEvaluation(
            asset_key=asset,
            check_name=name,
            passed=result.passed,
            description=result.description,
            severity=result.severity,
            metadata=result.metadata,
            partition=key,
            target_materialization_data=None
            if target is None
            else AssetCheckEvaluationTargetMaterializationData(
                storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp
            ),
        )
    # An evaluation of a partition is an event alone; the step still owes the output that stands for the check.
    yield dg.Output(None, output_name=spec.get_python_identifier())
    before = instance.event_log_storage.get_asset_check_partition_info([spec.key])
    passed = {
        info.partition_key: info.latest_execution_status.value != "FAILED" for info in before if info.partition_key
    }
    passed |= {key: result.passed for key, result in results.items()}
    yield _of_run(asset, ALL_KEYS, results, passed, [key for key, is_good in passed.items() if not is_good])


def _of_run(
    asset: dg.AssetKey,
    name: str,
    results: Mapping[str, KeyCheck],
    judged: Iterable[str],
    failed: Iterable[str] | None = None,
) -> dg.AssetCheckResult:
    """Return one result for several keys: the newest that fails speaks for the others."""
    judged = set(judged)
    failing = sorted((key for key in results if not results[key].passed) if failed is None else failed)
    known = [results[key] for key in failing if key in results]
    if not failing:
        description = f"All of {counted(len(judged), 'key')} passed." if judged else "No key was judged."
    else:
        newest = f"{known[-1].description} " if known else ""
        more = f" and {len(failing) - MOST_SHOWN} more" if len(failing) > MOST_SHOWN else ""
        description = (
            f"{newest}{len(failing)} of {counted(len(judged), 'key')} fail: {', '.join(failing[-MOST_SHOWN:])}{more}."
        )
    rows = [{"key": key, "why": results[key].description if key in results else ""} for key in failing[-MOST_SHOWN:]]
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not failing,
        severity=dg.AssetCheckSeverity.WARN
        if known and all(item.is_warning for item in known)
        else dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata={"keys_judged": len(judged), "keys_failed": len(failing), "failed": metadata.table(rows)},
    )
