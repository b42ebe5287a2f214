"""A product's state at a past moment, by the times of its records, in a store whose history is known in closed form."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.operations import status
from platform_assets.operations.status.state import Past
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents, recorded, watched

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-11", "2020-01-16")
"""Each is decided when it ends; the third has a fault, whose source is left out when the last one ends."""
SECOND, BACK = "2020-01-13T09:00:00+00:00", "2020-01-15T09:00:00+00:00"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> ProductStore:
    """Return a product whose second model was live for two days, until it was rolled back."""
    folder = tmp_path_factory.mktemp("kept")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    first = watched.write(settings, SPEC, KEYS)
    ledgers = Ledgers(settings.root, SPEC.name)
    for digest, at, members in (
        ("2" * 64, SECOND, {"previous": 1}),
        (first, BACK, {"previous": 2, "restores": 1, "outcome": "rolled_back"}),
    ):
        ledgers.append(naming.RELEASES, documents.release(KEYS[1], digest, product=SPEC.name, at_utc=at, **members))
    return ProductStore(SPEC, settings)


def at(product: ProductStore, text: str) -> Past:
    return status.at(product, status.parse(text))


def releases(product: ProductStore, *texts: str) -> list[int | None]:
    states = [at(product, text) for text in texts]
    return [None if state.release is None else state.release.number for state in states]


@pytest.mark.costly
def test_the_live_model_is_the_newest_release_of_then(product: ProductStore) -> None:
    assert releases(product, "2020-01-11", "2020-01-12", "2020-01-13", "2020-01-14", "2020-01-15") == [1, 1, 2, 2, 3]
    assert releases(product, "2020-01-13T08:59:59", SECOND, "2020-01-13T10:00+01:00", "2020-01-13T09:59+01:00") == [
        1,
        2,
        2,
        1,
    ]


def test_what_was_decided_is_the_newest_decision_of_then(product: ProductStore) -> None:
    assert at(product, "2020-01-11T12:00").decision is None, "the first key had not ended"
    for before, key in pairwise(KEYS):
        state = at(product, f"{key}T00:00")
        assert state.decision is not None
        assert (state.newest_closed_key, state.decision.key) == (before, before)
    faulty = at(product, KEYS[3]).decision
    assert faulty is not None
    assert faulty.action == "alert_fault"


def test_held_is_what_was_held_then_whatever_followed(product: ProductStore) -> None:
    held = {text: [key.key for key in at(product, text).held] for text in (KEYS[2], KEYS[3], KEYS[-1], "2020-01-17")}
    assert held == {KEYS[2]: [], KEYS[3]: [KEYS[2]], KEYS[-1]: [KEYS[2]], "2020-01-17": []}


def test_the_age_is_that_of_then(product: ProductStore) -> None:
    release = at(product, "2020-01-14T09:00").release
    assert release is not None
    assert (release.age_keys, release.age_hours) == (2, 24.0), "cutoff the 12th, closed the 13th"


def test_a_date_that_has_not_ended_is_now(product: ProductStore) -> None:
    assert at(product, "2020-01-17").at_utc == "2020-01-17T00:00:00+00:00", "the recording's clock"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2020-01-10", r"2020-01-10T23:59:59\+00:00 is before the first record of recorded, of 2020-01-11T00:00:00"),
        (
            "2020-01-17T00:00:01",
            r"2020-01-17T00:00:01\+00:00 is in the future of recorded, whose clock shows 2020-01-17T",
        ),
        ("2999-01-01", r"2999-01-01T00:00:00\+00:00 is in the future of recorded"),
    ],
)
def test_a_moment_of_which_nothing_is_on_record_is_refused(product: ProductStore, text: str, sentence: str) -> None:
    with pytest.raises(status.NotOnRecord, match=sentence):
        at(product, text)


@pytest.mark.parametrize("text", ["yesterday", "", "2020-13-01", "2020-01-01T25:00", "0001-01-01T00:00+23:00", "12:00"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--at is .*; expected a date, such as 2026-11-30, or a moment"):
        status.parse(text)


def test_a_product_without_records_says_so(tmp_path: Path) -> None:
    empty = ProductStore(SPEC, Settings(root=str(tmp_path / "store"), state=tmp_path / "state"))
    with pytest.raises(status.NotOnRecord, match=r"no record of recorded in .* has a time yet"):
        at(empty, "2020-01-12")


def test_the_text_names_model_decision_and_held_keys(product: ProductStore) -> None:
    lines = status.as_text(at(product, KEYS[3])).splitlines()
    assert lines[0] == "recorded: Recorded, at 2020-01-14T23:59:59+00:00"
    assert lines[1] == f"  closed     {KEYS[2]}"
    assert any(line.startswith("  release    2, released: ") for line in lines)
    assert any(line.startswith(f"  decision   {KEYS[2]}: alert fault. ") for line in lines)
    assert lines[-1].startswith(f"  kept out   {KEYS[2]} held (")


def test_the_command_prints_each_product_that_has_a_state_and_a_sentence_for_each_other(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    grain = product_files.load("flight_delays").grain
    clock.move(settings, "flight_delays", grain.instant("2013-03-09"))
    moment = grain.instant("2013-03-02").isoformat()
    record = documents.release("2013-03-01", product="flight_delays", at_utc=moment)
    Ledgers(settings.root, "flight_delays").append(naming.RELEASES, record)
    assert main(["status", "--at", moment, "--json"]) == 1
    out, err = capsys.readouterr()
    (state,) = json.loads(out)["products"]
    assert (state["product"], state["release"]["number"], state["held"]) == ("flight_delays", 1, [])
    assert "driftline: no record of garment_photos in " in err
    assert main(["status", "flight_delays", "--at", moment]) == 0
    assert "  release    1, released: it is better" in capsys.readouterr().out
    assert main(["status", "flight_delays", "--at", "tomorrow"]) == 1
    assert capsys.readouterr().err.startswith("driftline: --at is 'tomorrow'; expected a date")
