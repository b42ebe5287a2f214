"""The trainer image, as deploy/images builds it, and the same with the steps and products of tests in it.

An image is built once per content of what goes into it, and kept in podman's storage under a name that contains the
digest of that content. So a second session, and a second checkout with the same files, builds nothing.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE = "DRIFTLINE_TRAINER_IMAGE"
"""Names an image that is built already, as `make images` prints it."""
LIBRARIES = '{{index .Labels "driftline.libraries"}}'
INPUTS = ("pyproject.toml", "deploy/images", "driftline", "platform_assets")
STEPS = """\
FROM {trainer}
COPY tests/doubles/*.py /app/tests/doubles/
COPY tests/doubles/products/*.py /app/platform_assets/products/
"""


@dataclass(frozen=True)
class TrainerImage:
    """A trainer image.

    Attributes:
        name: by digest, in podman's storage or in a registry.
        libraries: its label, for DRIFTLINE_TRAINER_LIBRARIES.
    """

    name: str
    libraries: str


def missing(environment: Mapping[str, str]) -> str:
    """Return one sentence that says what is missing to build the image, or an empty string."""
    needed = ("podman",) if environment.get(IMAGE) else ("podman", "runc", "mmdebstrap")
    packages = [name for name in needed if not shutil.which(name, path=environment.get("PATH"))]
    return f"the trainer image needs packages that are not installed: apt-get install {' '.join(packages)}" * bool(
        packages
    )


def trainer_image(repository: Path) -> TrainerImage:
    """Return the trainer image of a checkout, built on this machine's Debian unless the environment names one."""
    if given := os.environ.get(IMAGE):
        return TrainerImage(given, _podman("image", "inspect", "--format", LIBRARIES, given))
    name = f"localhost/driftline-{digest(repository, INPUTS)}"

    def build() -> None:
        run([str(repository / "deploy/images/build.sh"), "trainer"], repository, NAME=name)

    return _built(f"{name}-trainer", build)


def steps_image(repository: Path, trainer: TrainerImage) -> TrainerImage:
    """Return the trainer image with the steps and products of tests."""
    content = hashlib.sha256(f"{trainer.name} {digest(repository, ('tests/doubles',))}".encode()).hexdigest()[:16]
    name = f"localhost/driftline-steps-{content}"

    return _built(name, lambda: layer(repository, name, STEPS.format(trainer=trainer.name)))


def layer(repository: Path, name: str, file: str) -> str:
    """Build an image by the text of its Dockerfile, with the checkout as its context; return its name by digest."""
    # Its own list of what to leave out: the images' admits nothing of tests.
    with tempfile.NamedTemporaryFile("w", suffix=".dockerignore") as ignored:
        ignored.write("**/__pycache__\n")
        ignored.flush()
        argv = ["podman", "build", "--quiet", "--pull=never", "--format=oci", f"--ignorefile={ignored.name}"]
        run([*argv, f"--tag={name}:latest", "--file=-", "."], repository, given=file)
    return _podman("image", "inspect", "--format", f"{name}@{{{{.Digest}}}}", f"{name}:latest")


def _built(name: str, build: Callable[[], object]) -> TrainerImage:
    """Return an image by its digest; one session builds it, and others wait meanwhile."""
    with _locked(name.rpartition("/")[2]):
        # build.sh labels the image last: without the label its build was interrupted.
        if not (libraries := _label(name)):
            build()
            libraries = _label(name)
    return TrainerImage(_podman("image", "inspect", "--format", f"{name}@{{{{.Digest}}}}", f"{name}:latest"), libraries)


def _label(name: str) -> str:
    """Return an image's label, or nothing if there is no such image."""
    argv = ["podman", "image", "inspect", "--format", LIBRARIES, f"{name}:latest"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"{name}.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(repository: Path, places: tuple[str, ...]) -> str:
    """Return a short digest of files' paths and content; of folders, of all sources in them."""
    total = hashlib.sha256()
    for place in places:
        path = repository / place
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        for file in sorted(files):
            if "__pycache__" not in file.parts:
                total.update(
                    f"{file.relative_to(repository)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
                )
    return total.hexdigest()[:16]


def _podman(*argv: str) -> str:
    return run(["podman", *argv], Path.cwd())


def run(argv: list[str], folder: Path, given: str | None = None, **variables: str) -> str:
    """Run a command and return what it prints.

    podman reads deploy/images/containers.conf unless the environment names another file.
    """
    settings = Path(__file__).resolve().parents[2] / "deploy/images/containers.conf"
    environment = {"CONTAINERS_CONF": str(settings), "PODMAN_IGNORE_CGROUPSV1_WARNING": "true", **os.environ}
    ended = subprocess.run(
        argv, cwd=folder, env={**environment, **variables}, input=given, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {ended.returncode}: {ended.stderr}")
    return ended.stdout.strip()
