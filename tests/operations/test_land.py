"""`driftline land` splits one file into landed files: shown first, each whole or not at all, no row lost silently."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.product.spec import Product
from platform_assets.store import objects
from tests.doubles.shop_orders import KEYS, SPEC

HEADER = "id,at,amount\n"


@pytest.fixture
def product(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Product:
    """A product of landed files, on the third of January."""
    return use(monkeypatch, settings)


def use(monkeypatch: pytest.MonkeyPatch, settings: Settings, **changes: Any) -> Product:
    orders = replace(SPEC.sources[0], asset=None, read=None, **changes)
    spec = replace(SPEC, sources=(orders, *SPEC.sources[1:]))
    monkeypatch.setattr(product_files, "load_each", lambda: ([spec], []))
    monkeypatch.setattr(product_files, "load", lambda _: spec)
    clock.move(settings, spec.name, datetime(2026, 1, 3, tzinfo=UTC))
    return spec


def write(folder: Path, rows: str) -> str:
    (folder / "orders.csv").write_text(HEADER + rows)
    return str(folder / "orders.csv")


def row(name: str, day: int) -> str:
    return f"{name},2026-01-0{day}T10:00:00Z,1.0\n"


def landed(settings: Settings, key: str, suffix: str = ".csv") -> str | None:
    path = naming.landing_location("", "shop_orders/orders", key, suffix).lstrip("/")
    data = objects.read(objects.open_store(settings.root), path)
    return None if data is None else data.decode()


@pytest.mark.usefixtures("product")
def test_it_shows_what_it_will_write_and_writes_it_when_told(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, row("b", 1) + row("c", 2) + row("a", 1) + row("d", 3) + "e,2025-01-01T10:00:00Z,1\n")
    assert main(["land", file]) == 0
    folder = naming.join(settings.root, "landing", "shop_orders/orders")
    assert capsys.readouterr().out == (
        f"{file}: 4 rows of 3 keys by at, for orders of shop_orders, in {folder}\n"
        "  2 new: 2026-01-01 to 2026-01-02\n"
        "  1 not over yet, left out: 2026-01-03\n"
        "  1 row outside of daily keys from 2026-01-01 to 2026-03-31 (UTC), left out\n"
        "Nothing was written; add --write to write.\n"
    )
    assert [landed(settings, key) for key in KEYS] == [None, None, None]
    assert main(["land", file, "shop_orders", "--write"]) == 0
    assert "Wrote 2 files." in capsys.readouterr().out
    assert [landed(settings, key) for key in KEYS] == [HEADER + row("b", 1) + row("a", 1), HEADER + row("c", 2), None]
    assert main(["land", file, "--write"]) == 0
    assert "2 there with these rows, left as they are: 2026-01-01 to 2026-01-02" in capsys.readouterr().out


@pytest.mark.usefixtures("product")
def test_a_file_of_other_rows_is_kept_until_one_says_so(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["land", write(tmp_path, row("a", 1)), "--write"]) == 0
    file = write(tmp_path, row("a", 1) + row("b", 1) + row("c", 2))
    assert main(["land", file, "--write"]) == 1
    text = capsys.readouterr().out
    assert "1 there with other rows, which --overwrite replaces: 2026-01-01" in text
    assert "Nothing was written; add --overwrite to write." in text
    assert [landed(settings, key) for key in KEYS[:2]] == [HEADER + row("a", 1), None]
    assert main(["land", file, "--overwrite"]) == 0
    assert [landed(settings, key) for key in KEYS[:2]] == [HEADER + row("a", 1) + row("b", 1), HEADER + row("c", 2)]


@pytest.mark.usefixtures("product")
def test_moments_are_written_as_landed_files_have_them(settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path, "a,01.01.2026 10:00,1.5\nb,02.01.2026 10:00,\n")
    assert main(["land", file, "--write", "--time-format", "%d.%m.%Y %H:%M"]) == 0
    assert landed(settings, KEYS[0]) == HEADER + "a,2026-01-01T10:00:00Z,1.5\n"
    file = write(tmp_path, "a,2026-01-02 10:00:00.5,1.5\n")
    assert main(["land", file, "--overwrite"]) == 0
    assert landed(settings, KEYS[1]) == HEADER + "a,2026-01-02 10:00:00.5,1.5\n", "for validation to name"


def test_a_landed_file_is_complete_by_its_sources_convention(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, settings, arrives="manifest")
    assert main(["land", write(tmp_path, row("a", 1)), "--write"]) == 0
    document = landed(settings, KEYS[0], ".csv.manifest.json")
    assert document is not None
    assert json.loads(document)["rows"] == 1
    use(monkeypatch, settings, arrives="marker")
    assert main(["land", write(tmp_path, row("b", 2)), "--write"]) == 0
    assert landed(settings, KEYS[1], ".csv.done") == ""


def test_parquet_lands_as_parquet(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, settings, suffix=".parquet")
    at = [datetime(2026, 1, day, 10, tzinfo=UTC) for day in (1, 2, 1)]
    pl.DataFrame({"id": ["a", "b", "c"], "at": at, "amount": [1.0] * 3}).write_parquet(tmp_path / "orders.parquet")
    assert main(["land", str(tmp_path / "orders.parquet"), "--write"]) == 0
    path = Path(naming.landing_location(settings.root, "shop_orders/orders", KEYS[0], ".parquet"))
    assert pl.read_parquet(path)["id"].to_list() == ["a", "c"]


@pytest.mark.usefixtures("product")
def test_a_file_that_fits_no_source_is_refused(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    assert main(["land", str(tmp_path / "other.csv"), "--write"]) == 1
    assert "has the columns x, y, and they fit no source of landed files (shop_orders)" in capsys.readouterr().err
    assert main(["land", write(tmp_path, row("a", 1) + "b,13/01/2026,1\n"), "--write"]) == 1
    assert "has '13/01/2026' in 'at' of record 3" in capsys.readouterr().err
    assert landed(settings, KEYS[0]) is None


@pytest.mark.usefixtures("product")
def test_a_failed_write_leaves_no_half_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, row("a", 1) + row("b", 2))
    real = objects.replace

    def replace_once(store: Any, path: str, data: bytes) -> None:
        if KEYS[1] in path:
            raise OSError(28, "No space left on device")
        real(store, path, data)

    monkeypatch.setattr(objects, "replace", replace_once)
    assert main(["land", file, "--write"]) == 1
    assert [landed(settings, key) for key in KEYS[:2]] == [HEADER + row("a", 1), None]
    monkeypatch.setattr(objects, "replace", real)
    assert main(["land", file, "--write"]) == 0
    assert landed(settings, KEYS[1]) == HEADER + row("b", 2)
