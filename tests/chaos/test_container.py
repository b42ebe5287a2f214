"""The trainer image, and steps in it by the container launcher; as pods they run in `tests/cluster`.

Each test needs `DRIFTLINE_TRAINER_IMAGE` and podman.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.launchers import ContainerLauncher, StepFailure, StepLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.store.tables import TableStore
from tests.doubles import cluster_environment as environment
from tests.doubles import s3_server
from tests.doubles.images_lock import building, removing
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

TRAINER_IMAGE = os.environ.get("DRIFTLINE_TRAINER_IMAGE", "")
pytestmark = pytest.mark.skipif(
    not TRAINER_IMAGE or shutil.which("podman") is None,
    reason="needs podman, and DRIFTLINE_TRAINER_IMAGE as `make images` prints it",
)
STEP = "tests.doubles.step"
MODULE = "platform_assets.training.libraries"
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
SMALL = PROFILES["cpu_small"].replace(cores=1, memory_gb=0.3, larger_memory_gb=0.4, shm_gb=0.05, grace_s=30.0)
KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
CUTOFF = SPEC.grain.shift(KEYS[-1], 1)
TWO = {f"DRIFTLINE_PROFILE__{name}__PROCESSES": "2" for name in ("CPU_SMALL", "CPU_SPOT")}
BUCKET = "driftline"
IMPORTS = """
import importlib, importlib.util, os, pkgutil
from platform_assets.engine import product_files
from platform_assets.training import steps
for module in pkgutil.iter_modules(steps.__path__):
    importlib.import_module(f"platform_assets.training.steps.{module.name}")
for spec in product_files.load_all():
    for function in (spec.sources[0].schema,):
        function()
import boto3, deltalake, onnx, onnxruntime, onnxscript, psutil, pynvml
assert importlib.util.find_spec("dagster") is None, "Dagster is in the image"
assert os.getuid() == 10001
print(",".join(sorted(product_files.names())))
"""
LEFTOVERS = """
import os
for folder, folders, files in os.walk("/"):
    folders[:] = [each for each in folders if not os.path.ismount(os.path.join(folder, each)) and each != "ensurepip"]
    for path in (os.path.join(folder, each) for each in files if each == "pip.conf" or each.endswith(".whl")):
        if os.path.getsize(path):
            print(path)
"""
AS_A_POD = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--network=none")


def podman(*words: str, given: bytes = b"") -> str:
    ended = subprocess.run(["podman", *words], input=given, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode().strip()


def in_the_image(code: str) -> str:
    text = ("run", "--rm", "--interactive", "--pull=never", *AS_A_POD, TRAINER_IMAGE, "python", "-")
    return podman(*text, given=code.encode())


def by_digest(name: str) -> str:
    return f"{name}@{podman('image', 'inspect', '--format={{.Digest}}', name)}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The trainer image with two more files: a product and a step that only tests know."""
    path, name = tmp_path_factory.mktemp("image"), f"localhost/driftline-test-{os.getpid()}"
    shutil.copy(Path(str(slow_batches.__file__)), path / f"{SPEC.name}.py")
    for file in ("step.py", "marks.py"):
        shutil.copy(REPOSITORY / "tests/doubles" / file, path)
    lines = [f"FROM {TRAINER_IMAGE}", f"COPY {SPEC.name}.py /app/platform_assets/products/"]
    (path / "Dockerfile").write_text(
        "\n".join([*lines, "COPY step.py marks.py /app/tests/doubles/", ""]), encoding="utf-8"
    )
    with building():
        podman("build", "--quiet", "--pull=never", f"--tag={name}", str(path))
    yield by_digest(name)
    with removing():
        podman("rmi", "--force", name)


@pytest.fixture(scope="module")
def own_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A profile's own image: one more package, installed as the cookbook says, but from a wheel of the test."""
    path, name = tmp_path_factory.mktemp("own"), f"localhost/driftline-own-{os.getpid()}"
    text = (REPOSITORY / "docs/cookbook.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```dockerfile\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for printed, tried in (
        ("localhost/driftline-trainer@sha256:DIGEST", image),
        ("USER root\n", "USER root\nCOPY more-1.0-py3-none-any.whl /tmp/\n"),
        ("xgboost==3.1.2", "--no-index /tmp/more-1.0-py3-none-any.whl"),
    ):
        assert recipe.count(printed) == 1
        recipe = recipe.replace(printed, tried)
    about = "more-1.0.dist-info"
    with zipfile.ZipFile(path / "more-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("more.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: more\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (path / "Dockerfile").write_text(recipe, encoding="utf-8")
    with building():
        podman("build", "--quiet", "--pull=never", f"--tag={name}", str(path))
    yield by_digest(name)
    with removing():
        podman("rmi", "--force", name)


# The image ------------------------------------------------------------------------------------------------------------


def test_the_image_imports_every_step_and_product_and_no_dagster() -> None:
    assert in_the_image(IMPORTS) == "flight_delays,garment_photos"


def test_the_image_holds_nothing_of_the_machine_that_built_it() -> None:
    message = podman(
        "run", "--rm", "-i", "--pull=never", *AS_A_POD, TRAINER_IMAGE, "python", "-", given=LEFTOVERS.encode()
    )
    assert message == ""


# One training, wherever it runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[dict[str, tuple[str, str]]]:
    """Digests of checkpoint and bundle of one training on the same files, by the place of its steps."""
    path = tmp_path_factory.mktemp("trained")
    checkout = environment.checkout(REPOSITORY, path / "checkout", slow_batches)
    arguments = (SPEC.name, KEYS[0], KEYS[-1], CUTOFF)
    result = {}
    with ExitStack() as stack:
        (path / "s3").mkdir()
        s3 = stack.enter_context(s3_server.running(path / "s3"))
        s3.make_bucket(BUCKET)
        in_a_container = {"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": image}
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        for where, messages, on_s3 in (
            ("process", {}, False),
            ("container", in_a_container, False),
            ("container on S3", in_a_container, True),
            ("two processes", TWO, False),
            ("two processes in a container", {**in_a_container, **TWO}, False),
        ):
            state = path / where.replace(" ", "_")
            root = f"s3://{BUCKET}/{state.name}" if on_s3 else str(state / "store")
            environment.land(root, slow_batches.files())
            messages = {**messages, "DRIFTLINE_ROOT": root, **(s3.environment() if on_s3 else {})}
            with environment.training(checkout, state, messages, *arguments):
                pass
            stages = (TableStore(root, SPEC.name).records(stage, [CUTOFF])[CUTOFF] for stage in ("checkpoint", "onnx"))
            result[where] = tuple(record.content_digest for record in stages)
            ledger = Ledgers(root, SPEC.name).of(ATTEMPTS).records()
            result[f"{where}: launchers"] = [entry.launcher for _, entry in unique_attempts(ledger)]
        yield result


@pytest.mark.parametrize(
    ("where", "there"),
    [
        ("container", "process"),
        ("container on S3", "process"),
        ("two processes in a container", "two processes"),
    ],
)
def test_a_training_gives_the_same_bytes_wherever_it_runs(trained: dict[str, Any], where: str, there: str) -> None:
    assert trained[where] == trained[there]
    assert set(trained[f"{where}: launchers"]) == {"container"}
    assert len(trained[f"{where}: launchers"]) == 2


# One try, however it ends ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContainerLauncher, "longest_pause_s", 0.0)


def launcher_of(folder: Path, image: str) -> ContainerLauncher:
    places = {"DRIFTLINE_STATE": str(folder / "state"), "DRIFTLINE_ROOT": str(folder / "store")}
    how = {"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": image}
    return ContainerLauncher(Settings.from_environment({**places, **how}))


def run(
    folder: Path,
    image: str,
    *ends: str,
    profile: StepProfile = SMALL,
    module: str = STEP,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder / "store"), "ends": list(ends), **(more or {})}
        return dg.MaterializeResult(
            metadata=launcher.run(context=context, module=module, extras=extras, profile=profile, work=WORK)
        )

    (folder / "store").mkdir(exist_ok=True)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([waits], resources={"launcher": launcher_of(folder, image)}, instance=instance)
        message = "\n".join(event.message for event in instance.all_logs(result.run_id))
    (metadata,) = [item.metadata for item in result.asset_materializations_for_node("waits")]
    return {"said": message, **{name: value.value for name, value in metadata.items()}}


def records(folder: Path) -> list[Mapping[str, Any]]:
    """Return each attempt once, the oldest first."""
    result = unique_attempts(Ledgers(str(folder / "store"), WORK.product).of(ATTEMPTS).records())
    return [record.document() for _, record in reversed(result)]


def left() -> list[str]:
    output = json.loads(podman("ps", "--all", "--format=json", "--filter=label=driftline/product=tiny") or "[]")
    return [item["Names"][0] for item in output]


def test_a_result_comes_back_and_the_record_says_where_it_was_made(image: str, tmp_path: Path) -> None:
    result = run(tmp_path, image, "well")
    assert (result["value"], result["root"]) == (1, str(tmp_path / "store"))
    assert "a line on stdout" in result["said"]
    (record,) = records(tmp_path)
    assert (record["launcher"], record["reason"], record["exit_code"]) == ("container", "finished", 0)
    assert record["host"].startswith("driftline-tiny-train-")
    assert record["wall_s"] > 0
    assert (tmp_path / "store/starts").owner() == tmp_path.owner(), "what a step writes belongs to whoever started it"
    assert not list((tmp_path / "store/pipes").iterdir())
    assert left() == []


def test_a_profiles_own_image_has_a_package_more_and_its_versions_are_what_the_profile_states(
    image: str, own_image: str, tmp_path: Path
) -> None:
    own = SMALL.replace(image=own_image)
    assert run(tmp_path, image, "import more", profile=own)["value"] == 1
    with pytest.raises(StepFailure, match="No module named 'more'"):
        run(tmp_path, image, "import more")
    versions = podman("run", "--rm", "--pull=never", *AS_A_POD, own_image, "python", "-m", MODULE, "more")
    stated = launcher_of(tmp_path, image).libraries(own.replace(libraries=versions))
    assert stated["more"] == "1.0"
    assert "torch" in stated
    assert podman("image", "inspect", "--format={{.Config.User}}", own_image) == "10001:10001"


def test_memory_is_enforced_and_more_is_asked_for_once(image: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailure) as caught:
        run(tmp_path, image, "memory")
    assert caught.value.kind == "out_of_memory"
    assert [(record["reason"], record["memory_gb"]) for record in records(tmp_path)] == [
        ("out_of_memory", 0.3),
        ("out_of_memory", 0.4),
    ]
    assert left() == []


def test_a_step_that_is_still_at_work_at_its_deadline_is_told_to_stop(image: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailure, match="still at work after the profile's 31 s") as caught:
        run(tmp_path, image, "wait", profile=SMALL.replace(deadline_s=31.0))
    assert (caught.value.kind, caught.value.exit_code) == ("deadline", 143)
    assert (tmp_path / "store/saved").exists()


def test_an_error_of_the_step_comes_back_with_its_last_lines(image: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailure, match="ValueError: the double was told to fail") as caught:
        run(tmp_path, image, "code")
    assert (caught.value.kind, len(records(tmp_path))) == ("code", 1)


def test_an_unavailable_image_fails_with_its_own_class(tmp_path: Path) -> None:
    with pytest.raises(StepFailure, match="cannot pull localhost/absent@sha256:0") as caught:
        run(tmp_path, f"localhost/absent@sha256:{0:064}", "well")
    assert caught.value.kind == "image"
    assert {record["wall_s"] for record in records(tmp_path)} == {0.0}


def test_a_container_that_cannot_start_fails_with_its_own_class(tmp_path: Path) -> None:
    name = f"localhost/driftline-empty-{os.getpid()}"
    podman("import", "--quiet", "-", name, given=subprocess.check_output(["tar", "-cf", "-", "-T", "/dev/null"]))
    try:
        with pytest.raises(StepFailure, match=r"its container could not start: .*python") as caught:
            run(tmp_path, by_digest(name), "well")
    finally:
        with removing():
            podman("rmi", "--force", name)
    assert caught.value.kind == "init"
    assert len(records(tmp_path)) == 2, "once more, for it may pass"
    assert left() == []


def test_a_step_of_other_code_is_refused(image: str, tmp_path: Path) -> None:
    extras = {"code": {"platform_assets.training.train": "0" * 64}}
    with pytest.raises(StepFailure, match=r"build the image again \(`make images`\)") as caught:
        run(tmp_path, image, module="platform_assets.launch.train", more=extras, profile=PROFILES["cpu_small"])
    assert caught.value.kind == "code"


DRIVER = """
import sys
from pathlib import Path
from tests.chaos.test_container import run
run(Path(sys.argv[1]), sys.argv[2], *sys.argv[3:])
"""


def driver(folder: Path, image: str, *ends: str) -> subprocess.Popen[bytes]:
    """Run a step in a process of its own until it waits."""
    (folder / "store").mkdir(exist_ok=True)
    command = [sys.executable, "-c", DRIVER, str(folder), image, *ends]
    with (folder / "driver.log").open("wb") as message:
        started = subprocess.Popen(command, cwd=REPOSITORY, stdout=message, stderr=message)
    wait_for(lambda: (folder / "store/ready").exists() or started.poll() is not None)
    assert started.poll() is None, (folder / "driver.log").read_text(encoding="utf-8")[-4000:]
    return started


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited a minute in vain")


def running() -> Sequence[str]:
    return podman("ps", "--format={{.Names}}", "--filter=label=driftline/product=tiny").split()


def test_a_cancelled_run_ends_its_container_after_it_has_saved(image: str, tmp_path: Path) -> None:
    started = driver(tmp_path, image, "wait")
    started.send_signal(signal.SIGTERM)
    started.wait(60)
    assert (tmp_path / "store/saved").exists()
    assert [record["reason"] for record in records(tmp_path)] == ["cancelled"]
    assert left() == []


def test_when_the_run_is_killed_its_step_saves_and_ends_and_the_next_one_clears_up(image: str, tmp_path: Path) -> None:
    started = driver(tmp_path, image, "wait", "well")
    started.kill()
    started.wait(60)
    wait_for(lambda: not running())
    assert (tmp_path / "store/saved").exists()
    assert len(left()) == 1
    assert run(tmp_path, image, "wait", "well")["value"] == 2
    assert left() == []


def test_a_container_that_is_killed_for_no_reason_is_tried_again(image: str, tmp_path: Path) -> None:
    started = driver(tmp_path, image, "wait", "well")
    podman("kill", "--signal=KILL", *running())
    assert started.wait(60) == 0
    assert [record["reason"] for record in records(tmp_path)] == ["killed", "finished"]
    assert left() == []
