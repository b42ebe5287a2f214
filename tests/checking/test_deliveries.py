"""A product without a recording is checked on what has landed, and what cannot be tried is skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from platform_assets import checking, naming
from platform_assets.cli import main
from platform_assets.keys import HourlyGrain
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from tests.doubles import numbered_batches as batches
from tests.doubles.products import hourly_temperature

RECORDED = hourly_temperature.SPEC
LIVE = replace(
    RECORDED, history=None, is_live=True, grain=HourlyGrain(start=hourly_temperature.GRAIN.start), min_keys=30
)
LABEL_CHECKS = {"label", "entities", "model"}


def states(spec: ProductSpec) -> dict[str, str]:
    return {line.check: line.state for line in checking.of_product(spec)}


def said(spec: ProductSpec, what: str) -> str:
    return next(line.message for line in checking.of_product(spec) if line.check == what)


def land(settings: Settings, first: str, last: str, *, labels_until: str | None) -> None:
    """Land what the recording delivers, as the live product's upstream would."""
    assert RECORDED.history is not None
    for source in RECORDED.sources:
        for key in RECORDED.grain.span(first, last):
            if not source.is_label or (labels_until is not None and key <= labels_until):
                put(settings, LIVE, source.name, key, RECORDED.history.deliver(source.name, key) or b"")


def put(settings: Settings, spec: ProductSpec, source: str, key: str, data: bytes) -> Path:
    place = Path(naming.landing_location(settings.root, spec.landing_of(spec.source(source)), key, ".csv"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def test_a_live_product_passes_every_check_on_what_has_landed(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-04T05", labels_until="2013-01-04T03")
    found = states(LIVE)
    assert set(found.values()) == {"ok"}
    assert {"keys", "features", "all keys", "lookback", "point in time", "requests", "slices", *LABEL_CHECKS} <= set(
        found
    )
    assert said(LIVE, "landing") == "no recording; checked on 72 keys that have landed, 2013-01-01T06 to 2013-01-04T05"
    assert said(LIVE, "keys") == "70 labelled have landed (30 needed), the last 24 held out"


def test_a_mistake_in_a_live_product_is_found_in_its_landing_folder(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-04T05", labels_until="2013-01-04T03")
    assert "raise lookback (it is 5) to 24" in said(replace(LIVE, lookback=5), "lookback")
    refusing = put(settings, LIVE, "observations", "2013-01-04T03", b"station,temp\nJFK,1\n")
    problem = said(LIVE, "source observations")
    assert "the file of observations, key 2013-01-04T03, cannot be read: the file has the columns" in problem
    assert "Fix the delivery, or the source, in" in problem
    refusing.write_bytes(b"")
    assert states(LIVE)["source observations"] == "problem"


def test_without_labels_only_what_needs_them_is_skipped(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-03T23", labels_until=None)
    found = states(LIVE)
    skipped = {what for what, state in found.items() if state == "skipped"}
    assert skipped == {"keys", "source readings", *LABEL_CHECKS}
    assert set(found.values()) == {"ok", "skipped"}
    assert "no file of these keys is in landing/hourly_temperature/readings" in said(LIVE, "source readings")


def test_labels_of_other_keys_than_those_of_the_features_are_none(settings: Settings) -> None:
    batches.land_all(settings.root, "0001", "0006", labels_until="0001")
    (Path(settings.root) / "landing" / "numbered_batches" / "readings" / "0001.csv").unlink()
    found = states(batches.SPEC)
    assert {what for what, state in found.items() if state == "skipped"} == {"keys", "source verdicts", *LABEL_CHECKS}
    assert "problem" not in found.values()


def test_too_few_landed_keys_are_no_mistake(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-01T09", labels_until="2013-01-01T07")
    found = states(LIVE)
    assert (found["keys"], found["lookback"], found["features"]) == ("skipped", "skipped", "ok")
    assert said(LIVE, "keys") == "2 labelled keys have landed; a training needs 30 (min_keys)"
    assert "problem" not in found.values()


def test_a_source_that_has_not_landed_skips_the_features(settings: Settings) -> None:
    """The slow source of the batches is missing; everything that reads rows rests on it."""
    batches.land_all(settings.root, "0001", "0010")
    (Path(settings.root) / "landing" / "numbered_batches" / "catalogue" / "all.csv").unlink()
    found = states(batches.SPEC)
    assert found["source readings"] == found["source verdicts"] == "ok"
    assert {what for what, state in found.items() if state == "skipped"} == {
        "source catalogue",
        "features",
        *LABEL_CHECKS - {"label"},
    }


@pytest.mark.parametrize("is_there", [False, True])
def test_nothing_landed_is_skipped_and_makes_nothing(settings: Settings, is_there: bool) -> None:
    if is_there:
        Path(settings.root).mkdir()
    lines = list(checking.of_product(batches.SPEC))
    assert (lines[-1].check, lines[-1].state) == ("recording", "skipped")
    assert lines[-1].message.startswith("there is no recording, and no file has landed")
    assert lines[-1].message.endswith("; only the declarations were checked")
    assert Path(settings.root).exists() == is_there


def test_a_file_in_the_making_and_other_files_are_left_out(settings: Settings) -> None:
    batches.land_all(settings.root, "0001", "0010")
    for name in ("0011.waiting", "notes.csv", "0099.csv"):
        (Path(settings.root) / "landing" / "numbered_batches" / "readings" / name).write_text("x")
    assert "checked on 10 keys that have landed, 0001 to 0010" in said(batches.SPEC, "landing")
    assert "problem" not in states(batches.SPEC).values()


def test_landed_files_are_read_on_s3_too(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.storage.objects import open_store

    monkeypatch.setenv("DRIFTLINE_ROOT", s3_root)
    store = open_store(s3_root)
    put = {"catalogue/all": batches.catalogue()}
    for key in batches.GRAIN.span("0001", "0008"):
        put |= {f"readings/{key}": batches.readings(key), f"verdicts/{key}": batches.verdicts(key)}
    for name, text in put.items():
        store.put(f"landing/numbered_batches/{name}.csv", text.encode())
    assert "checked on 8 keys that have landed, 0001 to 0008" in said(batches.SPEC, "landing")
    assert set(states(batches.SPEC).values()) == {"ok"}


def test_the_command_says_skipped_and_ends_with_0(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from platform_assets import specs

    text = "from dataclasses import replace\n\nfrom tests.doubles.numbered_batches import SPEC as SOUND\n\n"
    (tmp_path / "elsewhere_live.py").write_text(text + 'SPEC = replace(SOUND, name="elsewhere_live")\n')
    monkeypatch.setattr(specs, "__path__", [*specs.__path__, str(tmp_path)])
    assert main(["check", "elsewhere_live"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split()[:2] == ["skipped", "recording"]
