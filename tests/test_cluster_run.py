"""The process of one of our runs in its pod: it executes the row that it has checked, with the image's own code."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.instance import cluster_run, own_runs
from platform_assets.instance.run_coordinator import RunRefused
from tests.doubles.numbered_batches import SPEC
from tests.doubles.rows import row

pytestmark = pytest.mark.slow

VERIFY = naming.job("verify", SPEC.name)
STARTING = dg.DagsterRunStatus.STARTING


@pytest.fixture
def instance(
    settings: Settings, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance as in a pod without a token, but for its databases."""
    monkeypatch.setattr(own_runs, "MODULE", "tests.doubles.asked_location")
    monkeypatch.setattr(own_runs, "_products", lambda: frozenset([SPEC.name]))
    environment = settings.to_environment() | {"DRIFTLINE_NAMESPACE": "driftline", "DRIFTLINE_PLATFORM_IMAGE": "ours@x"}
    (home := tmp_path / "home").mkdir()
    for name, value in (environment | {"DAGSTER_HOME": str(home)}).items():
        monkeypatch.setenv(name, value)
    shipped = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    kept = {name: shipped[name] for name in ("run_launcher", "run_monitoring", "telemetry")}
    (home / "dagster.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    with dg.DagsterInstance.get() as instance:
        yield instance


def own(job: str = VERIFY, **claims: object) -> dg.DagsterRun:
    pointer = own_runs.origin(job).repository_origin.code_pointer
    return row(job, status=STARTING, **{"code_pointer": pointer, "tags": {}, **claims})  # type: ignore[arg-type]


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return "\n".join(f"{entry.message} {entry.dagster_event}" for entry in instance.all_logs(run.run_id))


@pytest.mark.costly
def test_a_run_is_executed_and_its_page_says_so(instance: dg.DagsterInstance) -> None:
    run = own()
    instance.add_run(run)
    cluster_run.main(run.run_id, VERIFY, "advance")
    after = instance.get_run_by_id(run.run_id)
    assert after is not None and after.status is dg.DagsterRunStatus.SUCCESS, said(instance, run)
    assert "Started process for run" in said(instance, run) and "Process for run exited" in said(instance, run)


def test_a_row_that_was_changed_after_its_launch_fails_with_the_reason_and_its_code_is_not_loaded(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')\n", encoding="utf-8")
    from dagster._core.code_pointer import FileCodePointer

    run = own(code_pointer=FileCodePointer(str(evil), "defs"))
    instance.add_run(run)
    with pytest.raises(RunRefused, match="has the origin code"):
        cluster_run.main(run.run_id, VERIFY, "advance")
    after = instance.get_run_by_id(run.run_id)
    assert after is not None and after.status is dg.DagsterRunStatus.FAILURE
    assert "has the origin code" in said(instance, run)
    assert not (tmp_path / "was_here").exists()


def test_a_run_that_was_cancelled_before_its_process_began_is_not_executed(instance: dg.DagsterInstance) -> None:
    run = own().with_status(dg.DagsterRunStatus.CANCELED)
    instance.add_run(run)
    cluster_run.main(run.run_id, VERIFY, "advance")
    assert "Not starting execution since the run was canceled" in said(instance, run)


def test_a_row_that_is_gone_is_named(instance: dg.DagsterInstance) -> None:
    with pytest.raises(RunRefused, match=r"run x of .* is not in Dagster's database any more"):
        cluster_run.main("x", VERIFY, "advance")
