"""A component changes nothing in the project that it is added to, and its product works there."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.doubles import hosts
from tests.doubles.hosts import Host

PRODUCT = "live_parts"
OURS = (PRODUCT, "churn", "visits", "driftline_", "__ASSET_JOB")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "own resources and executor"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, Host]:
    folder = tmp_path_factory.mktemp("hosts")
    before = hosts.project(folder / "before", resources=request.param)
    after = hosts.copied(before, folder / "after")
    after.add(PRODUCT)
    return before, after


def of_host(value: Any) -> Any:
    """Return a snapshot without what is the product's, and without the job of all assets."""
    if isinstance(value, dict):
        return {name: of_host(item) for name, item in value.items() if not is_ours(name)}
    return [of_host(item) for item in value if not is_ours(item)] if isinstance(value, list) else value


def is_ours(item: Any) -> bool:
    """Return whether text, the key of an asset, or something with such a name is the product's."""
    if isinstance(item, str):
        return any(mark in item for mark in OURS)
    if isinstance(item, dict):
        keys = [part.get("path", ()) for part in item.values() if isinstance(part, dict)]
        return any(
            is_ours(part) for part in (*item.values(), *(name for key in keys for name in key)) if isinstance(part, str)
        )
    return isinstance(item, list) and any(is_ours(part) for part in item)


@pytest.mark.costly
def test_what_dagster_knows_of_the_host_is_equal_with_and_without_it(pair: tuple[Host, Host]) -> None:
    before, after = (host.snapshot() for host in pair)
    assert json.dumps(of_host(after), sort_keys=True) == json.dumps(of_host(before), sort_keys=True)


@pytest.mark.costly
def test_it_is_green_in_the_checks_of_dg(pair: tuple[Host, Host]) -> None:
    pair[1].run("dg", "check", "defs")


@pytest.mark.costly
def test_what_a_pull_request_makes_again_is_that_of_the_project_one_stands_in(pair: tuple[Host, Host]) -> None:
    """Also where another commit of the project is installed, as in a job that checks one out next to the other."""
    base = hosts.copied(pair[1], pair[1].folder.with_name("base"))
    product = pair[1].package / "defs" / PRODUCT / "product.py"
    text = product.read_text(encoding="utf-8")
    try:
        product.write_text(text.replace('.sort("key", "part")', '.sort("key", "part", maintain_order=True)'), "utf-8")
        digests = pair[1].folder / "base.json"
        digests.write_text(replace(base, package=pair[1].package).run("driftline", "stale"), encoding="utf-8")
        comment = pair[1].run("driftline", "stale", "--since", str(digests))
    finally:
        product.write_text(text, encoding="utf-8")
    assert comment.splitlines()[2:] == [f"- **{PRODUCT}**: `drift`, `features`."]
