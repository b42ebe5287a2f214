"""A step's result comes back, its lines appear in the run, and each way to die has its name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.base.settings import REPOSITORY, Settings, SettingsProblem
from platform_assets.launch import local
from platform_assets.launch.launchers import StepFailure, StepLauncher, SubprocessLauncher, launcher
from platform_assets.launch.profiles import PROFILES, StepProfile

pytestmark = pytest.mark.slow

STEP = "tests.doubles.step"


def settings(folder: Path, **changes: str) -> Settings:
    return Settings.from_environment(
        {"DRIFTLINE_STATE": str(folder / "state"), "DRIFTLINE_ROOT": str(folder / "store"), **changes}
    )


def run(
    folder: Path, *ends: str, retries: int = 2, raise_on_error: bool = True, profile: StepProfile | None = None
) -> dg.ExecuteInProcessResult:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": list(ends)}
        result = launcher.run(context=context, module=STEP, extras=extras, profile=profile)
        return dg.MaterializeResult(metadata=result)

    child = SubprocessLauncher(settings(folder), retries=retries)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [waits], resources={"launcher": child}, instance=instance, raise_on_error=raise_on_error
        )
        result.lines = [event.message for event in instance.all_logs(result.run_id)]
    return result


def failure(folder: Path, *ends: str, retries: int = 2) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        run(folder, *ends, retries=retries)
    return caught.value


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text(encoding="utf-8").splitlines())


def test_the_result_is_the_custom_message_of_that_kind(tmp_path: Path) -> None:
    result = run(tmp_path, "well")
    metadata = result.asset_materializations_for_node("waits")[0].metadata
    assert metadata["value"].value == 1
    assert metadata["root"].value == str(tmp_path / "store")
    assert "epoch 1 of the double" in "\n".join(result.lines)
    assert "a line on stdout" in "\n".join(result.lines)


def test_a_process_says_that_it_cannot_use_a_profiles_image(tmp_path: Path) -> None:
    size = PROFILES["cpu_small"].replace(image="own@sha256:" + "1" * 64)
    lines = "\n".join(run(tmp_path, "well", profile=size).lines)
    assert "profile cpu_small has an image of its own, own@sha256:1" in lines
    assert "the step runs with the packages installed here" in lines


@pytest.mark.parametrize("end", ["killed", "preempted"])
def test_a_killed_step_is_started_again_and_resumes(tmp_path: Path, end: str) -> None:
    assert run(tmp_path, end, "well").asset_materializations_for_node("waits")[0].metadata["value"].value == 2
    assert starts(tmp_path) == 2


def test_a_step_that_is_always_killed_fails_with_its_kind(tmp_path: Path) -> None:
    problem = failure(tmp_path, "killed", retries=1)
    assert (problem.kind, problem.exit_code) == ("killed", -signal.SIGKILL)
    assert starts(tmp_path) == 2


def test_an_error_of_its_own_is_not_tried_again_and_shows_its_last_lines(tmp_path: Path) -> None:
    problem = failure(tmp_path, "code")
    assert problem.kind == "code"
    assert "ValueError: the double was told to fail" in (problem.description or "")
    assert starts(tmp_path) == 1


def test_success_without_a_result_is_a_failure(tmp_path: Path) -> None:
    problem = failure(tmp_path, "quiet")
    assert (problem.kind, problem.exit_code) == ("code", 0)


def test_settings_that_a_launcher_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsProblem, match="DRIFTLINE_TRAINER_IMAGE is not set"):
        launcher(settings(tmp_path, DRIFTLINE_LAUNCHER="kubernetes"))
    for image in ("trainer", "trainer:1", "trainer@sha256:1", "sha256:" + "0" * 64, f"trainer@sha256:{'0' * 63}"):
        named = settings(tmp_path, DRIFTLINE_LAUNCHER="kubernetes", DRIFTLINE_TRAINER_IMAGE=image)
        with pytest.raises(SettingsProblem, match=rf"DRIFTLINE_TRAINER_IMAGE is '{image}'; expected name@sha256:"):
            launcher(named)  # it may mean another image tomorrow
    with pytest.raises(SettingsProblem, match="DRIFTLINE_LAUNCHER is 'rocket'"):
        settings(tmp_path, DRIFTLINE_LAUNCHER="rocket")
    assert isinstance(launcher(settings(tmp_path)), SubprocessLauncher)


def test_a_child_that_will_not_end_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with local.child([sys.executable, "-c", deaf], {}, grace_s=0.1) as child:
        assert child.stdout is not None
        with child.stdout:
            child.stdout.readline()
    assert child.returncode == -9


DRIVER = """
import sys
from pathlib import Path
from tests.launch.test_launchers import run
run(Path(sys.argv[1]), "wait")
"""


@pytest.mark.costly
@pytest.mark.parametrize(("how", "is_saved"), [(signal.SIGTERM, True), (signal.SIGKILL, True)])
def test_the_child_ends_with_its_run(tmp_path: Path, how: signal.Signals, is_saved: bool) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "ready").exists())
    child = int((tmp_path / "starts").read_text(encoding="utf-8"))
    driver.send_signal(how)
    driver.wait(60)
    wait_for(lambda: not is_running(child))
    assert (tmp_path / "saved").exists() is is_saved


def wait_for(condition: object) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited a minute in vain")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split(")")[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
