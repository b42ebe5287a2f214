"""Axe finds nothing serious on the reports: in both colour schemes, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.operations.report import pages
from platform_assets.store.ledgers import Ledgers
from tests.doubles import documents, recorded, watched

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")
BROKEN = Broken(
    name="torn", file="platform_assets/products/torn.py", error="torn: no SPEC in it.", cause=ValueError("torn")
)
WIDTHS_PX = {"desk": 1280, "phone": 390}
WORST = ("serious", "critical")


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the reports of a product with a held key and of a broken one; return their folder."""
    folder = tmp_path_factory.mktemp("accessible")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    watched.write(settings, SPEC, KEYS)
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[3]}", documents.fault("fault", KEYS[3], "plans"))
    for product in (SPEC, BROKEN):
        pages.write(settings, product, folder / f"{product.name}.html")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.mark.costly
@pytest.mark.parametrize("name", [SPEC.name, BROKEN.name])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS_PX)
def test_axe_finds_nothing_serious_and_the_page_fits(report_folder: Path, browser, name: str, scheme: str, width: str):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(
        viewport={"width": WIDTHS_PX[width], "height": 900},
        color_scheme=scheme,
        bypass_csp=True,  # the page's own policy forbids scripts, and axe is one
    )
    page.goto((report_folder / f"{name}.html").as_uri())
    response = Axe().run(page).response
    assert len(response["passes"]) > 10, "axe ran"
    violations = [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
        for rule in response["violations"]
        if rule["impact"] in WORST
        for node in rule["nodes"]
    ]
    assert violations == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS_PX[width], "the page scrolls sideways"
    page.close()
