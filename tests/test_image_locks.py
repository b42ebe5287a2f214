"""The locks of the images agree with constraints.txt and name the sha256 of each file."""

import re

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.run.build import PACKAGES

PACKAGE = re.compile(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", re.MULTILINE)


def locked(image: str) -> list[tuple[str, str, str]]:
    return PACKAGE.findall((REPOSITORY / f"deploy/images/{image}.lock").read_text(encoding="utf-8"))


@pytest.mark.parametrize("image", ["platform", "service", "trainer", "sbom"])
def test_every_package_of_a_lock_has_hashes(image: str) -> None:
    packages = locked(image)
    assert len(packages) > 30
    assert [name for name, _, rest in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}", rest)] == []


@pytest.mark.parametrize("image", ["platform", "service", "trainer"])
def test_a_lock_has_the_versions_of_the_project(image: str) -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    here = {name: version for name, version, rest in locked(image) if "sys_platform == 'win32'" not in rest}
    assert {name: pins.get(name) for name in here} == here, "run `make lock`"


def test_images_hold_what_they_are_for_and_no_torch() -> None:
    names = {image: {name for name, _, _ in locked(image)} for image in ("platform", "service", "trainer")}
    assert set(PACKAGES) <= names["service"]
    assert not names["service"] & {"dagster", "polars", "deltalake"}
    assert not {name for name in names["trainer"] if name.startswith("dagster")} - {"dagster-pipes"}
    assert not any("torch" in locked_names for locked_names in names.values())
