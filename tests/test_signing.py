"""Releases and verdicts are signed where a key is set; without one, a product's first release says so."""

import logging
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.evaluation import releases, signing
from platform_assets.serving.follow import releases as followed
from platform_assets.store.artifacts import sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.verdicts import VERDICTS
from tests.doubles import documents

PRODUCT = "flight_delays"
AT = datetime(2013, 3, 1, 5, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "signing.pem"
    return path, signing.make_key(path)


@pytest.fixture
def product(settings: Settings) -> ProductStore:
    clock.move(settings, PRODUCT, AT)
    return ProductStore(product_files.load(PRODUCT), settings)


def with_key(product: ProductStore, path: Path) -> ProductStore:
    return ProductStore(product.spec, product.settings.replace(signing_key_file=path))


def judge(product: ProductStore, digest: str) -> None:
    document = documents.verdict(digest, product=PRODUCT)
    signing.write_verdict(product, digest, VERDICTS.read(document, "a verdict"))


def release(product: ProductStore, digest: str, previous: int | None = None, **changes: Any) -> int:
    record = releases.next_release(
        product=PRODUCT,
        digest=digest,
        contract_sha256="c" * 64,
        cutoff="2013-03-01",
        reason="passed",
        author="a test",
        at=AT,
        previous=previous,
        **changes,
    )
    return signing.write_release(product, record)[0]


def stored(product: ProductStore, ledger: str, name: str | int) -> bytes:
    name = f"{name:08d}" if isinstance(name, int) else name
    return Ledgers(product.settings.root, PRODUCT).stored(ledger, name) or b""


def follow(product: ProductStore, number: int, *pinned: str) -> str:
    ledgers = Ledgers(product.settings.root, PRODUCT)
    return followed.read(ledgers, number, 0, None, pinned).digest


def test_what_the_platform_signs_is_followed_by_a_service_with_its_key(product: ProductStore, key: tuple[Path, str]):
    path, public = key
    signed = with_key(product, path)
    for number, digest in enumerate((A, B), start=1):
        judge(signed, digest)
        assert release(signed, digest, number - 1 or None) == number
        assert follow(signed, number, public) == digest
    record = product.history.release(2)
    assert record is not None
    assert record.format == 3
    assert record.previous_sha256 == sha256(stored(product, naming.RELEASES, 1))
    assert record.verdict_sha256 == sha256(stored(product, naming.VERDICTS, B))


def test_a_secret_in_the_environment_signs_too(product: ProductStore, key: tuple[Path, str]) -> None:
    signed = ProductStore(product.spec, product.settings.replace(signing_key=key[0].read_text()))
    judge(signed, A)
    release(signed, A)
    assert follow(signed, 1, key[1]) == A
    secret = "".join(key[0].read_text().splitlines()[1:-1])
    assert secret not in repr(signed.settings) + str(signed.settings.to_environment())
    for path in Path(product.settings.root).rglob("*.json"):
        assert secret not in path.read_text()


def test_without_a_key_the_first_release_says_so_once(
    product: ProductStore, key: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    def warning_count() -> int:
        count = sum("are not signed" in record.getMessage() for record in caplog.records)
        caplog.clear()
        return count

    caplog.set_level(logging.INFO)
    judge(product, A)
    release(product, A)
    assert warning_count() == 1
    for number in (1, 2):
        release(product, A, number)
    assert warning_count() == 0
    assert follow(product, 3) == A
    with pytest.raises(followed.Refusal, match="release 3 is not signed"):
        follow(product, 3, key[1])
    release(with_key(product, key[0]), A, 3, override=releases.Override(by="ada", reason="signed from now on"))
    release(product, A, 4)
    assert warning_count() == 1, "records were signed before, and are not any more"


def test_a_model_whose_verdict_nobody_signed_is_not_released(product: ProductStore, key: tuple[Path, str]) -> None:
    judge(product, A)
    with pytest.raises(signing.KeyProblem, match=r"is not released: its verdict is not signed.*--override"):
        release(with_key(product, key[0]), A)
    other = key[0].with_name("other.pem")
    signing.make_key(other)
    judge(with_key(product, other), B)
    with pytest.raises(signing.KeyProblem, match="its verdict is signed by"):
        release(with_key(product, key[0]), B)


def test_the_verdict_of_an_older_key_counts_while_it_is_pinned(product: ProductStore, key: tuple[Path, str]) -> None:
    path = key[0].with_name("next.pem")
    public = signing.make_key(path)
    judge(with_key(product, key[0]), A)
    settings = product.settings.replace(signing_key_file=path, serving_keys=(key[1], public))
    release(ProductStore(product.spec, settings), A)
    assert follow(product, 1, key[1], public) == A


def test_a_rollback_to_a_model_from_before_signatures_names_its_author(product: ProductStore, key: tuple[Path, str]):
    judge(product, A)
    release(product, A)
    signed = with_key(product, key[0])
    judge(signed, B)
    release(signed, B, 1)
    assert release(signed, A, 2, restores=1) == 3
    record = product.history.release(3)
    assert record is not None
    assert record.override
    assert record.override.by == "a test"
    assert "its verdict is older than signatures" in record.override.reason
    assert follow(product, 3, key[1]) == A


@pytest.mark.costly
def test_what_a_shell_releases_and_rolls_back_is_signed(
    product: ProductStore, key: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_SIGNING_KEY_FILE", str(key[0]))
    signed = with_key(product, key[0])
    facts = {"product": PRODUCT, "cutoff": "2013-03-01", "contract_sha256": "c" * 64}
    first, second = (product.artifacts.write_bundle({"x": data}, facts) for data in (b"1", b"2"))
    judge(signed, first)
    release(signed, first)
    assert main(["release", PRODUCT, second, "--override", "the holdout is broken"]) == 0
    assert follow(product, 2, key[1]) == second
    assert main(["rollback", PRODUCT]) == 0
    assert follow(product, 3, key[1]) == first


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_wrong_key_is_named_without_its_content(product: ProductStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.pem"
    path.write_bytes(content)
    with pytest.raises(signing.KeyProblem, match=r"DRIFTLINE_SIGNING_KEY_FILE \(.*wrong.pem\) is not an Ed25519") as it:
        judge(with_key(product, path), A)
    assert content.decode() not in str(it.value) or not content
    assert stored(product, naming.VERDICTS, A) == b""
    with pytest.raises(signing.KeyProblem, match="cannot be read: No such file"):
        judge(with_key(product, tmp_path / "gone.pem"), A)


def test_the_command_makes_a_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "signing.pem"
    assert main(["keys", str(path)]) == 0
    first, data = capsys.readouterr().out, path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["keys", str(path)]) == 0
    assert (capsys.readouterr().out, path.read_bytes()) == (first, data)
    public = first.strip()
    assert Settings.from_environment({"DRIFTLINE_SERVING_KEYS": f" {public} , {public}"}).serving_keys == (public,) * 2
    with pytest.raises(SettingsProblem, match="DRIFTLINE_SERVING_KEYS is 'x'; expected a public key"):
        Settings.from_environment({"DRIFTLINE_SERVING_KEYS": f"{public},x"})
    path.write_bytes(b"something else")
    assert main(["keys", str(path)]) == 1
    assert f"{path} exists and is not an Ed25519 private key in PEM without a password; name another" in (
        capsys.readouterr().err
    )
    assert path.read_bytes() == b"something else"
