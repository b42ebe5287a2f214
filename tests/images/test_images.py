"""The three images: what they hold, what they do not, and that each does its work on a read-only root.

Needs podman, and the images by digest as `make images` prints them in `DRIFTLINE_PLATFORM_IMAGE`,
`DRIFTLINE_SERVICE_IMAGE` and `DRIFTLINE_TRAINER_IMAGE`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.serving.run import build, child
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training import libraries
from platform_assets.training.steps.instructions import PROTOCOL
from tests.doubles import cluster_environment as environment
from tests.doubles import models
from tests.doubles.checkout import copied
from tests.doubles.images_lock import building, removing
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

NAMES = ("platform", "service", "trainer")
IMAGES = {name: os.environ.get(f"DRIFTLINE_{name.upper()}_IMAGE", "") for name in NAMES}
pytestmark = pytest.mark.skipif(
    not all(IMAGES.values()) or shutil.which("podman") is None,
    reason="needs podman, and the images in DRIFTLINE_PLATFORM_IMAGE, DRIFTLINE_SERVICE_IMAGE, DRIFTLINE_TRAINER_IMAGE",
)
MOST_BYTES = {"platform": 1_000_000_000, "service": 450_000_000}
ABSENT = {
    "platform": ("torch", "onnx", "tests"),
    "service": (
        "torch",
        "polars",
        "dagster",
        "deltalake",
        "platform_assets.products",
        "platform_assets.product",
        "tests",
    ),
    "trainer": ("dagster", "tests"),
}
AS_A_POD = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
WRITABLE = ("--tmpfs=/tmp", "--tmpfs=/scratch:mode=1777")
CANARY = "driftline-canary-c2b1"
PATIENCE_S = 180.0
PRESENT = """
import importlib.util, os, sys
def is_present(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
assert os.getuid() == 12345, os.getuid()
print(*[name for name in sys.argv[1:] if is_present(name)])
"""
INSTALLED = """
import importlib.metadata, json
print(json.dumps({package.name: package.version for package in importlib.metadata.distributions()}))
"""
LOOP = """
import sys, types
import dagster as dg
from platform_assets.training import libraries
from platform_assets.launch import local

first, last, cutoff, python, versions = sys.argv[1:]
# Steps start where torch is; their versions come from there, as they do from a trainer image's label.
local.sys = types.SimpleNamespace(executable=python)
libraries.installed = lambda: libraries.from_text(versions)
from platform_assets.definitions import defs

keys = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
with dg.DagsterInstance.ephemeral() as instance:
    defs.resolve_job_def("advance__slow_batches").execute_in_process(instance=instance, tags=keys)
    chosen = [dg.AssetKey(["slow_batches", stage]) for stage in ("checkpoint", "onnx", "evaluation", "service")]
    job = defs.resolve_job_def("retrain__slow_batches")
    job.execute_in_process(instance=instance, partition_key=cutoff, asset_selection=chosen)
heavy = sorted({"torch", "onnx", "onnxscript"} & set(sys.modules))
print("loaded:", *heavy)
"""

IMPORTS = """
import importlib, importlib.util, pkgutil
from platform_assets.engine import product_files
from platform_assets.training import steps
for module in pkgutil.iter_modules(steps.__path__):
    importlib.import_module(f"platform_assets.training.steps.{module.name}")
for spec in product_files.load_all():
    for function in (spec.sources[0].schema,):
        function()
import boto3, deltalake, onnx, onnxruntime, onnxscript, pynvml
assert importlib.util.find_spec("dagster") is None, "Dagster is in the image"
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


def podman(*words: str, text: str = "", **variables: str) -> str:
    ended = subprocess.run(
        ["podman", *words], input=text, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
    return ended.stdout.strip()


def in_image(image: str, *command: str, text: str = "") -> str:
    argv = ("run", "--rm", "--interactive", "--pull=never", "--network=none", "--user=12345:12345")
    return podman(*argv, *AS_A_POD, *WRITABLE, IMAGES[image], *command, text=text)


def described(image: str) -> dict[str, Any]:
    return json.loads(podman("image", "inspect", IMAGES[image]))[0]


@pytest.mark.parametrize("image", NAMES)
def test_an_image_lacks_what_it_does_not_need_and_runs_under_any_user(image: str) -> None:
    assert in_image(image, "python", "-", *ABSENT[image], text=PRESENT) == ""


@pytest.mark.parametrize("image", NAMES)
def test_an_image_has_its_labels_and_no_root_user(image: str) -> None:
    labels, user = described(image)["Labels"], described(image)["User"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels["org.opencontainers.image.revision"])
    assert labels["driftline.protocol"] == str(PROTOCOL)
    assert re.search(r"\bpython=\d", labels["driftline.versions"])
    assert re.search(r"\bnumpy=\d", labels["driftline.versions"])


@pytest.mark.parametrize("image", MOST_BYTES)
def test_an_image_is_below_its_size_limit(image: str) -> None:
    size = described(image)["Size"]
    print(f"{image}: {size / 1e6:.0f} MB")
    assert size <= MOST_BYTES[image]


@pytest.mark.parametrize("image", NAMES)
def test_the_sbom_lists_every_package(image: str) -> None:
    sbom = json.loads(in_image(image, "cat", "/opt/venv/share/sbom.cdx.json"))
    components = {item["name"]: item for item in sbom["components"]}
    assert sbom["bomFormat"] == "CycloneDX"
    debian = in_image(image, "dpkg-query", "-W", "-f", "${Package} ${Version}\n").splitlines()
    installed = json.loads(in_image(image, "python", "-", text=INSTALLED)) | dict(line.split() for line in debian)
    installed.pop("driftline", None)
    assert {name: components[name]["version"] for name in installed} == installed
    if image == "trainer":
        assert components["torch"]["hashes"][0]["content"] == described(image)["Labels"]["driftline.torch.sha256"]


def test_the_trainer_image_imports_every_step_and_product_and_no_dagster() -> None:
    assert in_image("trainer", "python", "-", text=IMPORTS) == "flight_delays,garment_photos"


def test_a_profiles_own_image_has_a_package_more_as_the_cookbook_installs_it(tmp_path: Path) -> None:
    recipe = re.findall(
        r"^```dockerfile\n(.*?)^```$",
        (REPOSITORY / "docs/cookbook.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )[0]
    for printed, tried in (
        ("localhost/driftline-trainer@sha256:DIGEST", IMAGES["trainer"]),
        ("USER root\n", "USER root\nCOPY more-1.0-py3-none-any.whl /tmp/\n"),
        ("xgboost==3.1.2", "--no-index /tmp/more-1.0-py3-none-any.whl"),  # no registry: a wheel of the test
    ):
        assert recipe.count(printed) == 1
        recipe = recipe.replace(printed, tried)
    about, name = "more-1.0.dist-info", f"localhost/driftline-own-{os.getpid()}"
    with zipfile.ZipFile(tmp_path / "more-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("more.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: more\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (tmp_path / "Dockerfile").write_text(recipe, encoding="utf-8")
    with building():
        podman("build", "--quiet", "--pull=never", f"--tag={name}", str(tmp_path))
    try:
        ask = ("run", "--rm", "--pull=never", "--network=none", *AS_A_POD, *WRITABLE, name, "python", "-m")
        versions = libraries.from_text(podman(*ask, "platform_assets.training.libraries", "more"))
        assert versions["more"] == "1.0"
        assert "torch" in versions
        assert podman("image", "inspect", "--format={{.Config.User}}", name) == "10001:10001"
    finally:
        with removing():
            podman("rmi", "--force", name)


def test_the_trainer_image_holds_nothing_of_the_machine_that_built_it() -> None:
    assert in_image("trainer", "python", "-", text=LEFTOVERS) == ""


@pytest.mark.parametrize("image", ["platform", "service"])
def test_no_secret_and_no_checkout_get_into_an_image(tmp_path: Path, image: str) -> None:
    """Plant canaries where secrets lie on a builder's machine, build, and look into every layer."""
    checkout = tmp_path / "checkout"
    copied(REPOSITORY, checkout)
    for path in (".env", ".git/config", "tests/canary.py", "profiles.toml", ".netrc", "platform_assets/.env"):
        (checkout / path).parent.mkdir(exist_ok=True)
        (checkout / path).write_text(CANARY, encoding="utf-8")
    # A changed lock makes pip run in the build of one image, with a configuration that holds a canary.
    lock = checkout / "deploy/images/service.lock"
    lock.write_text(f"# {CANARY}\n{lock.read_text(encoding='utf-8')}", encoding="utf-8")
    name = f"localhost/driftline-canary-{os.getpid()}"
    variables = {"NAME": name, "PIP_TRUSTED_HOST": f"{CANARY}.invalid", "AWS_SECRET_ACCESS_KEY": CANARY}
    argv = [str(checkout / "deploy/images/build.sh"), image]
    with building():
        ended = subprocess.run(argv, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    try:
        archive = tmp_path / "image.tar"
        podman("image", "save", "--format=docker-archive", f"--output={archive}", f"{name}-{image}:latest")
        assert CANARY.encode() not in archive.read_bytes()
    finally:
        with removing():
            podman("rmi", "--force", f"{name}-{image}:latest")


def test_runs_need_no_torch(tmp_path: Path) -> None:
    """The platform image lands, judges, builds a Bento and asks it; only steps run in this machine's environment."""
    state, products = tmp_path / "state", tmp_path / "products"
    environment.land(str(state / "store"), slow_batches.files())
    copied_products = REPOSITORY / "platform_assets/products"
    shutil.copytree(copied_products, products, ignore=shutil.ignore_patterns("__pycache__", "flight*", "garment*"))
    shutil.copy(Path(str(slow_batches.__file__)), products / f"{SPEC.name}.py")
    last = SPEC.grain.key_at(slow_batches.BATCHES - 1)
    output = podman(
        *("run", "--rm", "--interactive", "--pull=never", "--network=none", "--user=0:0", *AS_A_POD[:2], *WRITABLE),
        *(f"--volume={path}:{path}:ro" for path in (sys.prefix, sys.base_prefix)),
        *(f"--volume={products}:/app/platform_assets/products:ro", f"--volume={state}:/state"),
        *("--env=DRIFTLINE_STATE=/state", "--env=DRIFTLINE_ROOT=/state/store", IMAGES["platform"]),
        *("python", "-", SPEC.grain.first, last, SPEC.grain.shift(last, 1), f"{sys.prefix}/bin/python"),
        libraries.as_text(libraries.installed()),
        text=LOOP,
    )
    assert output.splitlines()[-1] == "loaded:"


@contextmanager
def served(state: Path, digest: str, port: int) -> Iterator[None]:
    """Fetch a Bento in the service image as an init container does, and serve it in another container meanwhile."""
    pod = (*AS_A_POD, "--pull=never", "--network=host", "--user=12345:12345", f"--volume={state}:/state:ro")
    bento, scratch = state.parent / "bento", state.parent / "scratch"
    for folder in (bento, scratch):
        folder.mkdir()
        folder.chmod(0o777)
    mounts = (
        f"--volume={bento}:/bento",
        "--tmpfs=/tmp",
        f"--volume={scratch}:/scratch",
        "--env=DRIFTLINE_ROOT=/state/store",
    )
    fetch = ("python", "-m", "platform_assets.serving.run.fetch", digest, "/bento")
    podman("run", "--rm", *pod, *mounts, IMAGES["service"], *fetch)
    name = f"driftline-service-{os.getpid()}"
    serve = ("python", "-m", "platform_assets.serving.run.pod", "--host", child.HOST, "--port", str(port))
    variables = ("--env=DRIFTLINE_STATE=/scratch/state", "--workdir=/bento/src")
    podman("run", "--detach", f"--name={name}", *pod, *mounts, *variables, IMAGES["service"], *serve)
    try:
        yield
    finally:
        print(podman("logs", name)[-3000:])
        podman("rm", "--force", "--time=5", name)


def test_the_service_image_fetches_and_serves_a_bento(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"DRIFTLINE_STATE": str(tmp_path / "build"), "DRIFTLINE_ROOT": str(tmp_path / "state/store")}
    )
    store = ArtifactStore(settings.root)
    model = models.write_bundle(store, bias=0.0)
    models.release(settings.root, model)
    digest = build.stored(store, build.build(settings, store, model))
    port = child.free_port()
    with served(tmp_path / "state", digest, port):
        server = child.Server(f"http://{child.HOST}:{port}", f"http://{child.HOST}:{port + 1}", None, Path())  # type: ignore[arg-type]  # only sends requests
        ready: dict[str, Any] = {}
        deadline = time.monotonic() + PATIENCE_S
        while not ready.get("is_ready") and time.monotonic() < deadline:
            time.sleep(0.5)
            with suppress(OSError, ValueError):
                ready = json.loads(server.probe("/readyz")[1])
        assert ready["digest"] == model
