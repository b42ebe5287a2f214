"""The report of a product and the index: actions first, all numbers from records, no requests and no scripts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.data import unlabelled
from platform_assets.engine.product_files import Broken
from platform_assets.launch import costs
from platform_assets.operations.report import facts, faults, index, pages, quarantine, render
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
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
        self.full_text = ""
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "style", "action")]
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.full_text += data
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings.append(data)


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.text = text
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return a store that no test of this file writes to."""
    folder = tmp_path_factory.mktemp("kept")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    watched.write(settings, SPEC, KEYS)
    return settings


@pytest.fixture(scope="module")
def page(stored: Settings) -> _Reader:
    return _read(pages.page(stored, SPEC)[1])


def test_actions_come_first_then_the_fault_and_the_rest_in_order(page: _Reader):
    assert page.headings == [
        "Recorded",
        "Nothing to do now",
        f"Faulty delivery: plans of {KEYS[2]}",
        "Quality per day",
        "Drift and decisions",
        "Releases",
        "Calibration",
        "Latency",
        "Quarantine by reason",
        "Cost",
    ]


def test_titles_are_unique(page: _Reader):
    titles = [*page.headings, *re.findall(r">([^<>]+)</text>", page.text)]
    assert len(page.headings) == len(set(page.headings))
    assert not set(page.headings) & set(titles[len(page.headings) :]), "a chart repeats its section's heading"


def test_fault_shows_delivery_expectation_time_and_action(page: _Reader):
    for text in (
        watched.ARRIVED,
        watched.EXPECTED,
        f"when {KEYS[2]} was closed",
        "An alert was raised",
        "The source was left out",
    ):
        assert text in page.full_text


def test_page_makes_no_requests_and_runs_no_scripts(page: _Reader):
    assert not {"script", "link", "iframe", "object", "form", "a", "img"} & set(page.tags)
    assert not [address for address in page.addresses if ":" in address.removeprefix("width:") and "var(" not in address
                and not re.match(r"[a-z-]+: ", address)]  # fmt: skip
    assert not re.search(r"url\((?!#)|@import|https?://", page.text), "clip paths of charts are in the page itself"


def test_charts_take_the_colours_of_the_page(page: _Reader):
    assert page.tags.count("figure") == 3
    assert page.tags.count("svg") == 6, "one for a desktop and one for a phone"
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", drawn)) <= {"#ffffff"}
    assert "prefers-color-scheme: dark" in page.text


def test_assets_keys_and_runs_are_linked_if_the_address_is_given(stored: Settings):
    reader = _read(pages.page(stored, SPEC, dagster="http://dagster.test/")[1])
    links = [address for address in reader.addresses if address.startswith("http")]
    assert f"http://dagster.test/assets/recorded/drift?view=partitions&partition={KEYS[2]}" in links
    assert "http://dagster.test/assets/recorded/performance" in links


def test_an_attempt_links_its_run(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    attempt = {"id": "x", "by": "step", "run_id": "r-7", "cutoff": KEYS[3], "fingerprint": "g", "reason": "finished"}
    Ledgers(settings.root, SPEC.name).append(naming.ATTEMPTS, {**attempt, "wall_s": 1.0, "usd_per_hour": 1.0})
    text = pages.page(settings, SPEC, dagster="http://dagster.test")[1]
    assert '<a href="http://dagster.test/runs/r-7">finished</a>' in text
    assert "runs/" not in pages.page(settings, SPEC)[1]


def test_numbers_come_from_records(stored: Settings, page: _Reader):
    gathered = facts.gather(ProductStore(SPEC, stored))
    quality = gathered.state.quality.quality
    assert f"{quality['auc'].value:.4f}" in page.full_text
    assert f"{len(KEYS) * watched.ROWS:,}" in page.full_text
    cost_usd = costs.total_usd(gathered.attempts)
    assert cost_usd == pytest.approx(3 * 90 / 3600 * 0.08)
    assert f"{cost_usd:.4f} USD" in page.full_text
    aside, landed = quarantine.count(ProductStore(SPEC, stored))
    assert aside["plans", "is not a <plans>"] == landed["plans"] / 3 > len(KEYS)
    assert gathered.cpu_s["checkpoint"] == 12.0


def test_cost_of_accepted_models_and_allowed_overspending_are_shown(settings: Settings):
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
    overspending = documents.overspending(KEYS[3], "f", why="the fair <opens>")
    ledgers.append(naming.OVERSPENDINGS, overspending)
    text = _read(pages.page(settings, SPEC)[1]).full_text
    models = f"release 1 ({KEYS[0]}): 0.0060; open, since the newest: 0.2000"
    assert f"2020-01420.20600.2020{models}" in text, "four attempts, two trainings, USD, lost or failed, models"
    assert "4 attempts cost 0.2060 USD at list prices, 0.4000 less than on demand." in text
    assert f"For cutoff {KEYS[3]}, in 2020-01 it is too much. Allowed: the fair <opens>" in text


def test_late_labels_are_shown_where_there_are_any(settings: Settings, page: _Reader):
    title = "Late labels"
    assert title not in page.headings
    watched.write(settings, SPEC, KEYS)
    tables, at = TableStore(settings.root, SPEC.name), datetime(2026, 1, 1, tzinfo=UTC)
    unlabelled.give_up(tables, [KEYS[1]], cutoff=KEYS[4], why="<late> by 7 keys", at=at)
    read = _read(pages.page(settings, SPEC)[1])
    assert title in read.headings
    assert f"{KEYS[1]}{KEYS[4]}not yet<late> by 7 keys" in read.full_text


def test_text_from_records_is_never_markup(stored: Settings):
    text = pages.page(stored, SPEC)[1]
    assert "0 &lt;rows&gt; &amp; &#34;nothing&#34;" in text
    assert "is not a &lt;plans&gt;" in text
    assert not re.search(r"<rows>|<plans>", text)


def test_same_records_give_the_same_page(stored: Settings):
    assert pages.page(stored, SPEC)[1] == pages.page(stored, SPEC)[1]


def test_product_without_records_has_a_page_that_claims_nothing(settings: Settings):
    page = _read(pages.page(settings, SPEC)[1])
    assert "No faulty delivery" in page.headings
    assert not [heading for heading in page.headings if "to do" in heading]
    assert "No day has been judged yet." in page.full_text
    assert "Nothing has been released yet." in page.full_text
    assert "every delivery passed" not in page.full_text.lower()


def test_waiting_fault_is_shown_as_such_and_contiguous_keys_are_one_episode(stored: Settings):
    gathered = facts.gather(ProductStore(SPEC, stored))
    (episode,) = gathered.episodes
    waiting = facts.Episode(keys=KEYS[2:4], fault=episode.fault, later=())
    (section,) = faults.sections(replace(gathered, episodes=(waiting,)))
    assert section.title == f"Faulty delivery: plans of {KEYS[2]} to {KEYS[3]}"
    (terms,) = section.blocks
    assert terms.items["What was done"][-1] == "Held until someone repairs or accepts it."


def test_held_key_is_named_at_the_top_with_the_commands_that_release_it(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", documents.fault("fault", KEYS[2], "plans"))
    text = pages.page(settings, SPEC)[1]
    reader = _read(text)
    assert reader.headings[1] == "What to do now"
    assert f'<p class="news red">Held: {KEYS[2]}</p>' in text
    for verb in ("repair", "accept"):
        assert f"dg launch --job {verb}__recorded --config-json" in reader.full_text


# The index ------------------------------------------------------------------------------------------------------------

BROKEN = Broken(
    name="torn", file="platform_assets/products/torn.py", error="torn: <no> SPEC.", cause=ValueError("torn")
)


def test_index_links_every_report_and_names_the_products_that_need_someone(settings: Settings, tmp_path: Path):
    watched.write(settings, SPEC, KEYS)
    paths = pages.write_all(settings, [SPEC, BROKEN], tmp_path / "reports" / "index.html")
    assert [path.name for path in paths] == ["index.html", "recorded.html", "torn.html"]
    text = paths[0].read_text(encoding="utf-8")
    reader = _read(text)
    assert [address for address in reader.addresses if address.endswith(".html")] == ["torn.html", "recorded.html"]
    assert "1 product needs attention: torn" in reader.full_text
    assert "torn: <no> SPEC." in reader.full_text
    assert "release 1, 6 days old" in reader.full_text
    for path in paths[1:]:
        assert '<a href="index.html">All products</a>' in path.read_text(encoding="utf-8")


def test_index_names_a_product_whose_records_are_damaged_and_the_others_have_their_reports(
    settings: Settings, tmp_path: Path
):
    watched.write(settings, SPEC, KEYS)
    damaged = replace(SPEC, name="damaged")
    Ledgers(settings.root, damaged.name).append(naming.RELEASES, {"x": 1})
    (record,) = Path(settings.root, "ledgers", damaged.name, naming.RELEASES).glob("*.json")
    record.write_text('{"x":')
    with pytest.raises(LedgerProblem, match="it was changed"):
        pages.write_all(settings, [damaged, SPEC], tmp_path / "index.html")
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["index.html", "recorded.html"]
    reader = _read((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert [address for address in reader.addresses if address.endswith(".html")] == ["recorded.html"]
    assert "1 product needs attention: damaged" in reader.full_text
    assert "it was changed" in reader.full_text
    assert "driftline doctor damaged" in reader.full_text


def test_index_does_not_take_the_name_of_a_report(settings: Settings, tmp_path: Path):
    with pytest.raises(ValueError, match=r"recorded\.html.* is the report of a product; expected another name"):
        pages.write_all(settings, [SPEC], tmp_path / "recorded.html")
    assert list(tmp_path.glob("*.html")) == []


def test_report_links_the_index_only_if_it_exists(stored: Settings, tmp_path: Path):
    path = pages.write(stored, SPEC, tmp_path / "page.html")
    assert "index.html" not in path.read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text("")
    assert "index.html" in pages.write(stored, SPEC, path).read_text(encoding="utf-8")


def test_index_without_products_is_a_page(stored: Settings):
    assert "No product needs attention" in _read(render.html(index.page([], {}))).full_text


def test_file_is_written_atomically(stored: Settings, tmp_path: Path):
    file = pages.write(stored, SPEC, tmp_path / "deep" / "page.html")
    assert file.read_text(encoding="utf-8").endswith("</html>\n")
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]
