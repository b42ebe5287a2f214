"""The report of a product: actions first, all numbers from records, no requests and no scripts."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import unlabelled
from platform_assets.launch import costs
from platform_assets.operations.report import faults, pages
from platform_assets.operations.status.facts import Episode, Reported
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import Attempt
from platform_assets.store.records.releases import RELEASES, Release
from platform_assets.store.tables import TableStore
from tests.doubles import attempts, documents, recorded, watched

pytestmark = pytest.mark.slow

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
    return _read(pages.html(stored, SPEC))


@pytest.mark.costly
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
    assert page.tags.count("svg") == 3
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", drawn)) <= {"#ffffff"}
    assert "prefers-color-scheme: dark" in page.text


def test_numbers_come_from_records(stored: Settings, page: _Reader):
    gathered = Reported(ProductStore(SPEC, stored))
    quality = gathered.quality.quality
    assert f"{quality['auc'].value:.4f}" in page.full_text
    assert f"{len(KEYS) * watched.ROWS:,}" in page.full_text
    cost_usd = costs.total_usd(gathered.attempts)
    assert cost_usd == pytest.approx(3 * 90 / 3600 * 0.08)
    assert f"{cost_usd:.4f} USD" in page.full_text
    aside, landed = gathered.quarantine
    assert aside["plans", "is not a <plans>"] == landed["plans"] / 3 > len(KEYS)


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
    ledgers.append(naming.OVERSPENDINGS, documents.overspending(KEYS[3], "f", why="the fair <opens>"))
    text = _read(pages.html(settings, SPEC)).full_text
    assert "2020-01420.20600.2020" in text, "four attempts, two trainings, USD, lost or failed"
    assert Reported(ProductStore(SPEC, settings)).usd_of_models == {1: pytest.approx(0.006)}
    assert "0.0060passed its evaluation" in text
    assert "4 attempts cost 0.2060 USD at list prices, 0.4000 less than on demand." in text
    assert f"For cutoff {KEYS[3]}, in 2020-01 it is too much. Allowed: the fair <opens>" in text


def test_an_accepted_model_costs_every_attempt_since_the_one_before_it(stored: Settings):
    def tried(cutoff: str, reason: str = "finished", step: str = "train", digest: str | None = None) -> Attempt:
        hour = {"wall_s": 3600.0, "usd_per_hour": 1.0}
        return Attempt(cutoff=cutoff, reason=reason, step=step, fingerprint=f"f{cutoff}", digest=digest, **hour)

    def release(cutoff: str, digest: str, outcome: str = "released") -> Release:
        return RELEASES.read(documents.release(cutoff, digest, outcome=outcome), "")

    oldest_first = [
        *(
            tried("01", "preempted"),
            tried("01"),
            tried("01", step="trial"),
            tried("01", step="export", digest="1" * 64),
        ),
        *(tried("02", "code"), tried("03"), tried("01", step="export", digest="2" * 64), tried("04")),
    ]
    reported = Reported(ProductStore(SPEC, stored))
    vars(reported)["attempts"] = attempts.newest_first(*reversed(oldest_first))
    history = (
        *(release("01", "1" * 64), release("01", "2" * 64), release("01", "1" * 64, "rolled_back")),
        *(release("01", "2" * 64), release("05", "3" * 64)),
    )
    vars(reported)["releases"] = tuple(enumerate(history, start=1))
    assert reported.usd_of_models == {1: 3.0, 2: 3.0, 5: 0.0}, "trials, rollbacks and what is open cost no model"


def test_late_labels_are_shown_where_there_are_any(settings: Settings, page: _Reader):
    title = "Late labels"
    assert title not in page.headings
    watched.write(settings, SPEC, KEYS)
    tables, at = TableStore(settings.root, SPEC.name), datetime(2026, 1, 1, tzinfo=UTC)
    unlabelled.give_up(tables, [KEYS[1]], cutoff=KEYS[4], why="<late> by 7 keys", at=at)
    read = _read(pages.html(settings, SPEC))
    assert title in read.headings
    assert f"{KEYS[1]}{KEYS[4]}not yet<late> by 7 keys" in read.full_text


def test_text_from_records_is_never_markup(stored: Settings):
    text = pages.html(stored, SPEC)
    assert "0 &lt;rows&gt; &amp; &#34;nothing&#34;" in text
    assert "is not a &lt;plans&gt;" in text
    assert not re.search(r"<rows>|<plans>", text)


def test_same_records_give_the_same_page(stored: Settings):
    assert pages.html(stored, SPEC) == pages.html(stored, SPEC)


def test_product_without_records_has_a_page_that_claims_nothing(settings: Settings):
    page = _read(pages.html(settings, SPEC))
    assert "No faulty delivery" in page.headings
    assert not [heading for heading in page.headings if "to do" in heading]
    assert "No day has been judged yet." in page.full_text
    assert "Nothing has been released yet." in page.full_text
    assert "every delivery passed" not in page.full_text.lower()


def test_waiting_fault_is_shown_as_such_and_contiguous_keys_are_one_episode(stored: Settings):
    reported = Reported(ProductStore(SPEC, stored))
    (episode,) = reported.episodes
    vars(reported)["episodes"] = (Episode(keys=KEYS[2:4], fault=episode.fault, later=()),)
    (section,) = faults.sections(reported)
    assert section.title == f"Faulty delivery: plans of {KEYS[2]} to {KEYS[3]}"
    (terms,) = section.blocks
    assert terms.items["What was done"][-1] == "Held until someone repairs or accepts it."


def test_held_key_is_named_at_the_top_with_the_commands_that_release_it(settings: Settings):
    watched.write(settings, SPEC, KEYS)
    Ledgers(settings.root, SPEC.name).append(f"{naming.FAULTS}/{KEYS[2]}", documents.fault("fault", KEYS[2], "plans"))
    text = pages.html(settings, SPEC)
    reader = _read(text)
    assert reader.headings[1] == "What to do now"
    assert f'<p class="news red">Held: {KEYS[2]}</p>' in text
    for verb in ("repair", "accept"):
        assert f"dg launch --job {verb}__recorded --config-json" in reader.full_text


def test_file_is_written_atomically(stored: Settings, tmp_path: Path):
    file = pages.write(stored, SPEC, tmp_path / "deep" / "page.html")
    assert file.read_text(encoding="utf-8").endswith("</html>\n")
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]
