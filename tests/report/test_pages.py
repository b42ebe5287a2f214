"""One page, read by a manager: the fault first, everything from records, nothing fetched and nothing run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from platform_assets import naming
from platform_assets.facts import unlabelled
from platform_assets.handle import Product
from platform_assets.report import facts, faults, markup, pages
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.doubles import documents, recorded, watched

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")


class _Reader(HTMLParser):
    """Collects headings, text, tags and addresses, and refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "style", "action")]
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings.append(data)


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A store that no test here writes to."""
    place = tmp_path_factory.mktemp("kept")
    own = Settings(root=str(place / "store"), state=place / "state")
    watched.write(own, SPEC, KEYS)
    return own


@pytest.fixture(scope="module")
def page(kept: Settings) -> _Reader:
    return _read(pages.of_product(Product(SPEC, kept)))


def test_fault_comes_first_and_the_rest_in_order(page: _Reader):
    assert page.headings == [
        "Recorded",
        f"Caught: plans of {KEYS[2]} came broken",
        "Quality by key",
        "Drift and decisions",
        "Releases",
        "Calibration",
        "How fast it answers",
        "Quarantine by reason",
        "Cost",
    ]


def test_fault_tells_what_came_what_was_expected_when_and_what_was_done(page: _Reader):
    for words in (
        watched.CAME,
        watched.EXPECTED,
        f"when {KEYS[2]} was closed",
        "A person was called",
        "The source was left out",
    ):
        assert words in page.words


def test_page_fetches_nothing_and_runs_nothing(page: _Reader):
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(page.tags)
    assert all(address.startswith(("data:image/png;base64,", "width:")) for address in page.addresses)
    assert "url(" not in markup.STYLE
    assert "@import" not in markup.STYLE


def test_numbers_are_those_on_record(kept: Settings, page: _Reader):
    found = facts.gather(Product(SPEC, kept))
    quality = found.standing.quality.quality
    assert f"{quality['auc'].value:.4f}" in page.words
    assert f"{len(KEYS) * watched.ROWS:,}" in page.words
    assert found.cost_usd == pytest.approx(3 * 90 / 3600 * 0.08)
    assert f"{found.cost_usd:.4f} USD" in page.words
    assert found.quarantine["plans", "is no <plans>"] == found.landed["plans"] / 3 > len(KEYS)
    assert found.cpu_s["checkpoint"] == 12.0


def test_cost_of_accepted_models_and_what_a_person_allowed_are_told(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    ledgers = Ledgers(settings.root, SPEC.name)
    preempted = {
        "id": "x",
        "by": "launcher",
        "cutoff": KEYS[3],
        "fingerprint": "g",
        "profile": "gpu_spot",
        "cpu_s": None,
        "usd_per_hour": 1.0,
        "on_demand_usd_per_hour": 3.0,
        "reason": "preempted",
        "wall_s": 720.0,
    }
    ledgers.append(naming.ATTEMPTS, preempted)
    ledgers.append(naming.ATTEMPTS, {**preempted, "by": "step"})
    over = documents.overspending(KEYS[3], "f", why="the fair <opens>")
    ledgers.append(naming.OVERSPENDINGS, over)
    words = _read(pages.of_product(Product(SPEC, settings))).words
    assert "open, since the newest–0.2000" in words
    assert f"release 1{KEYS[0]}0.006023" in words, "two trainings, three tries"
    assert "4 attempts cost 0.2060 USD at list prices, 0.4000 less than on demand." in words
    assert f"For cutoff {KEYS[3]}, in 2020-01 it is too much. Allowed: the fair <opens>" in words


def test_labels_that_did_not_come_are_told_where_there_are_any(settings: Settings, page: _Reader):
    title = "Labels that did not come in time"
    assert title not in page.headings
    watched.write(settings, SPEC, KEYS)
    tables, at = TableStore(settings.root, SPEC.name), datetime(2026, 1, 1, tzinfo=UTC)
    unlabelled.give_up(tables, [KEYS[1]], cutoff=KEYS[4], why="<late> by 7 keys", at=at)
    read = _read(pages.of_product(Product(SPEC, settings)))
    assert title in read.headings
    assert f"{KEYS[1]}{KEYS[4]}all later<late> by 7 keys" in read.words


def test_text_from_records_is_never_markup(kept: Settings):
    text = pages.of_product(Product(SPEC, kept))
    assert "0 &lt;rows&gt; &amp; &quot;nothing&quot;" in text
    assert "is no &lt;plans&gt;" in text
    assert not re.search(r"<rows>|<plans>", text)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("wind is 1048.3, expected in_range(0, 150)", "wind is not as expected: in_range(0, 150)"),
        ("a is 1, expected x; b is 2, expected y", "a is not as expected: x; b is not as expected: y"),
        ("repeats row 17", "repeats another row"),
        ("arrives before it leaves", "arrives before it leaves"),
    ],
)
def test_rows_with_the_same_trouble_are_counted_together(reason: str, kind: str):
    assert facts.kind_of(reason) == kind


def test_same_records_give_the_same_page(kept: Settings):
    assert pages.of_product(Product(SPEC, kept)) == pages.of_product(Product(SPEC, kept))


def test_product_without_anything_has_a_page_that_claims_nothing(settings: Settings):
    page = _read(pages.of_product(Product(SPEC, settings)))
    assert "No broken delivery" in page.headings
    assert "No key has been judged yet." in page.words
    assert "Nothing has been released yet." in page.words
    assert "every delivery passed" not in page.words.lower()


def test_fault_that_waits_says_so_and_contiguous_keys_are_one_episode(kept: Settings):
    found = facts.gather(Product(SPEC, kept))
    (episode,) = found.episodes
    waiting = facts.Episode(keys=KEYS[2:4], fault=episode.fault, then=())
    told = faults.section(
        facts.Facts(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, "episodes": (waiting,)})
    )
    assert f"plans of {KEYS[2]} to {KEYS[3]} came broken" in told
    assert "held until a person repairs or accepts it" in told


def test_file_is_whole_or_not_there(kept: Settings, tmp_path: Path):
    place = pages.write(kept, SPEC, tmp_path / "deep" / "page.html")
    assert place.read_text(encoding="utf-8").endswith("</html>\n")
    assert [path.name for path in place.parent.iterdir()] == ["page.html"]
