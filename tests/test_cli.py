"""The `driftline` command: output, records, exit codes."""

import getpass
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.instance import home
from platform_assets.serving.run import build, child
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents, watched

pytestmark = pytest.mark.slow

PRODUCT = "flight_delays"
OLD, NEW = "a" * 64, "b" * 64
RELEASED = datetime(2013, 3, 1, 5, tzinfo=UTC)
QUALITY = {"auc": 0.76, "log_loss": 0.46, "brier": 0.15, "ece": 0.02}
VERDICT = documents.verdict(
    NEW,
    rows={"labelled": 1_234, "first_key": "2013-02-14", "last_key": "2013-02-27"},
    models={"challenger": QUALITY, "baseline constant": QUALITY | {"auc": 0.5}},
)


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    clock.move(settings, PRODUCT, RELEASED + timedelta(hours=36))
    return Ledgers(settings.root, PRODUCT)


def _release(ledgers: Ledgers, digest: str, previous: int | None = None) -> None:
    members = {"product": PRODUCT, "at_utc": RELEASED.isoformat(), "previous": previous}
    ledgers.append(naming.RELEASES, documents.release("2013-03-01", digest, **members))


def test_rollback_writes_the_next_release_and_shows_it_in_dagster(ledgers: Ledgers, settings: Settings, capsys):
    _release(ledgers, OLD)
    _release(ledgers, NEW, previous=1)
    assert main(["rollback", PRODUCT, "--why", "pages at night"]) == 0
    number, record = ledgers.latest(naming.RELEASES)
    assert (number, documents.live_digest(record), record["outcome"], record["why"]) == (
        3,
        OLD,
        "rolled_back",
        "pages at night",
    )
    assert record["at_utc"] == "2013-03-02T17:00:00+00:00"
    assert f"release 3 of {PRODUCT}: model {OLD}" in capsys.readouterr().out
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(naming.asset_key(PRODUCT, "release")))
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (metadata["release"], metadata["digest"], metadata["outcome"]) == (3, OLD, "rolled_back")


def test_rollback_without_a_release_to_go_back_to_says_so(ledgers: Ledgers, capsys):
    assert main(["rollback", PRODUCT]) == 1
    assert "nothing has been released yet" in capsys.readouterr().err
    _release(ledgers, OLD)
    assert main(["rollback", PRODUCT]) == 1
    assert f"{PRODUCT} has no other model before release 1" in capsys.readouterr().err
    assert ledgers.latest(naming.RELEASES)[0] == 1


def test_a_rollback_overtaken_by_another_one_follows_it(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, capsys):
    _release(ledgers, OLD)
    _release(ledgers, NEW, previous=1)
    now, overtaken = clock.now, []

    def overtaking(*arguments, **named):
        if not overtaken:
            overtaken.append(_release(ledgers, "e" * 64, previous=2))
        return now(*arguments, **named)

    monkeypatch.setattr(clock, "now", overtaking)
    assert main(["rollback", PRODUCT]) == 0
    number, record = ledgers.latest(naming.RELEASES)
    assert (number, record["previous"], documents.live_digest(record)) == (4, 3, NEW)


def _bundle(settings: Settings, product: str = PRODUCT) -> str:
    store = ArtifactStore(settings.root)
    return store.write_bundle(
        {"model.onnx": b""}, {"product": product, "cutoff": "2013-03-01", "contract_sha256": "c" * 64}
    )


def test_release_without_a_verdict_names_the_person_and_the_reason(ledgers: Ledgers, settings: Settings, capsys):
    _release(ledgers, OLD)
    digest = _bundle(settings)
    assert main(["release", PRODUCT, digest, "--override", "the holdout is broken"]) == 0
    number, record = ledgers.latest(naming.RELEASES)
    assert (number, record["previous"], documents.live_digest(record)) == (2, 1, digest)
    assert record["override"] == {"by": getpass.getuser(), "reason": "the holdout is broken"}
    assert "without a passing verdict: the holdout is broken" in capsys.readouterr().out
    assert main(["rollback", PRODUCT]) == 0
    assert ledgers.latest(naming.RELEASES)[1]["override"] is None


@pytest.mark.parametrize("reason", ["", "  "])
def test_release_without_a_reason_is_refused(ledgers: Ledgers, settings: Settings, capsys, reason: str):
    assert main(["release", PRODUCT, _bundle(settings), "--override", reason]) == 1
    assert "--override is empty" in capsys.readouterr().err
    assert ledgers.latest(naming.RELEASES) is None


def test_release_of_a_digest_without_a_model_of_the_product_is_refused(ledgers: Ledgers, settings: Settings, capsys):
    assert main(["release", PRODUCT, NEW, "--override", "x"]) == 1
    assert "cannot be released" in capsys.readouterr().err
    assert main(["release", PRODUCT, _bundle(settings, "another"), "--override", "x"]) == 1
    assert "is a model of 'another'" in capsys.readouterr().err
    assert ledgers.latest(naming.RELEASES) is None


def test_release_accepts_the_twelve_printed_letters(ledgers: Ledgers, settings: Settings, capsys):
    digest, tables = _bundle(settings), TableStore(settings.root, PRODUCT)
    tables.record("onnx", "2013-03-01", content_digest=digest, inputs={}, code="0")
    assert main(["release", PRODUCT, digest[:12], "--override", "x"]) == 0
    assert documents.live_digest(ledgers.latest(naming.RELEASES)[1]) == digest
    tables.record("onnx", "2013-03-08", content_digest=digest[:12] + "0" * 52, inputs={}, code="0")
    for begins, count in ((digest[:12], 2), ("zz", 0), ("", 2)):
        assert main(["release", PRODUCT, begins, "--override", "x"]) == 1
        assert f"{count} models of {PRODUCT} have a digest that begins with" in capsys.readouterr().err


def test_status_shows_model_age_and_verdict_also_as_json(ledgers: Ledgers, settings: Settings, capsys):
    _release(ledgers, NEW)
    TableStore(settings.root, PRODUCT).record("decision", "2013-03-04", content_digest="d", inputs={}, code="0")
    ledgers.create(naming.VERDICTS, NEW, VERDICT)
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Store: {settings.root}\n") and "never set (recording)" in out, (
        "of a product without records"
    )
    for text in (NEW[:12], "4 days old", "passed on 1,234 rows, 2013-02-14 to 2013-02-27", "AUC 0.7600", "AUC 0.5000"):
        assert text in out
    assert main(["status", PRODUCT, "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)["products"]
    assert state["product"] == PRODUCT
    assert state["now_utc"] == "2013-03-02T17:00:00+00:00"
    assert (state["release"]["number"], state["release"]["digest"], state["release"]["age_hours"]) == (1, NEW, 36.0)
    assert state["release"]["verdict"] == {name: VERDICT[name] for name in ("passed", "rows", "models")}


def test_status_shows_the_others_and_names_a_product_whose_records_are_damaged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(product_files, "names", lambda: [PRODUCT, "garment_photos"])
    Ledgers(settings.root, PRODUCT).append(naming.RELEASES, {"x": 1})
    (record,) = Path(settings.root, "ledgers", PRODUCT, naming.RELEASES).glob("*.json")
    record.write_text('{"x":')
    for options in ([], ["--json"]):
        assert main(["status", *options]) == 1
        printed = capsys.readouterr()
        assert "garment_photos" in printed.out
        assert "it was changed" in printed.err and f"`driftline doctor {PRODUCT}`" in printed.err
    assert main(["status", "garment_photos"]) == 0


@pytest.fixture
def keys(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Store keys of the product that commands use by default: the first one, whatever products a checkout has."""
    monkeypatch.setattr(product_files, "names", lambda: [PRODUCT])
    spec = product_files.load(PRODUCT)
    keys = spec.grain.span("2013-03-01", "2013-03-04")
    watched.write(settings, spec, keys)
    return keys


@pytest.mark.costly
def test_trace_prints_every_step_back_also_as_json(keys: tuple[str, ...], capsys):
    prediction = watched.prediction_id(keys[0])
    assert main(["trace", prediction]) == 0
    out = capsys.readouterr().out
    for text in (prediction, "model ", "verdict   passed", "training  2 attempts", "landing/"):
        assert text in out
    assert main(["trace", PRODUCT, prediction, "--json", "--key", keys[0]]) == 0
    assert json.loads(capsys.readouterr().out)["answer"]["key"] == keys[0]
    assert main(["trace", "nobody"]) == 1
    assert "the newest 4 keys with answers has the id 'nobody'" in capsys.readouterr().err


@pytest.mark.costly
def test_report_is_written_to_the_printed_path(keys: tuple[str, ...], settings: Settings, tmp_path: Path, capsys):
    assert main(["report", PRODUCT, "--out", str(tmp_path / "page.html")]) == 0
    assert main(["report", PRODUCT]) == 0
    chosen, default = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert chosen == tmp_path / "page.html"
    assert default.is_relative_to(settings.state)
    assert chosen.read_text(encoding="utf-8") == default.read_text(encoding="utf-8")


def test_report_that_cannot_be_written_names_its_folder(
    keys: tuple[str, ...], settings: Settings, tmp_path: Path, capsys
):
    (tmp_path / "file").write_text("")
    assert main(["report", PRODUCT, "--out", str(tmp_path / "file" / "page.html")]) == 1
    message = capsys.readouterr().err
    assert f"Check that the folder {tmp_path} exists" in message
    assert "DRIFTLINE_STATE" not in message


def test_report_without_a_product_writes_every_report_that_can_be_read(settings: Settings, capsys):
    ledger = Path(settings.root, "ledgers", "flight_delays", naming.RELEASES)
    ledger.mkdir(parents=True)
    (ledger / "00000001.json").write_text('{"x":')
    assert main(["report"]) == 1
    out, err = capsys.readouterr()
    assert [Path(line) for line in out.splitlines()] == [settings.state / "reports" / "garment_photos.html"]
    assert "it was changed" in err and "`driftline doctor flight_delays` names all that is damaged." in err
    assert main(["report", "--out", "all.html"]) == 1
    assert "--out is one file; expected PRODUCT before it" in capsys.readouterr().err


def test_env_can_be_evaluated_by_a_shell(settings: Settings, capsys):
    assert main(["env"]) == 0
    script = f'{capsys.readouterr().out}\necho "$DAGSTER_HOME $DRIFTLINE_ROOT"'
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout.split() == [str(settings.dagster_home), settings.root]
    assert (settings.dagster_home / "dagster.yaml").exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train flight_delays --cutoff 2013-03-01", "flight_delays/features has no keys 2013-01-01, "),
        ("tune flight_delays --cutoff 2013-03-01 --trials 0", "--trials is 0; expected at least 1."),
        ("tune flight_delays --cutoff 2013-03-01 --at-once 0", "--at-once is 0; expected 1 to "),
        ("tune flight_delays --cutoff 2013-03-01 --trials 1", "flight_delays has no search; expected one or more in "),
        ("backtest flight_delays --first 2013-03-01 --last 2013-03-09", "flight_delays has no labelled key yet; "),
    ],
)
def test_an_experiment_that_cannot_begin_says_what_is_missing(settings: Settings, command: str, sentence: str, capsys):
    assert main(command.split()) == 1
    assert capsys.readouterr().err.startswith(f"driftline: {sentence}")


def test_demo_of_more_keys_than_are_recorded_starts_nothing(settings: Settings, capsys):
    assert main(["demo", "--keys", "999"]) == 1
    assert "--keys is 999" in capsys.readouterr().err
    assert not (settings.state / "logs").exists()


@pytest.mark.costly
@pytest.mark.parametrize("command", ["demo", "dev"])
def test_wrong_profiles_are_an_error_message_before_a_server_starts(settings: Settings, tmp_path: Path, command: str):
    (tmp_path / "profiles.toml").write_text("[cpu_small]\nprice = 1\n")
    environment = {**os.environ, **settings.to_environment(), "DRIFTLINE_PROFILES": str(tmp_path / "profiles.toml")}
    process = subprocess.run(
        [Path(sys.executable).with_name("driftline"), command], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert process.stderr.startswith(f"driftline: {tmp_path / 'profiles.toml'}, [cpu_small]: price is not a field")
    assert not (settings.state / "logs").exists()


@pytest.mark.parametrize("command", ["demo", "check", "status", "trace", "report", "release", "rollback"])
def test_every_command_takes_the_product_first(command: str, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    usage = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
    positional = [word.strip("[]") for word in usage.split() if word.strip("[]").isupper()]
    after = {
        "demo": ["N", "S"],
        "trace": ["KEY"],
        "report": ["FILE", "URL"],
        "release": ["REASON"],
        "rollback": ["WHY"],
        "status": ["DATE"],
    }
    assert next(word for word in positional if word not in after.get(command, [])) == "PRODUCT"


def test_serve_becomes_the_server_of_the_products_bento(
    settings: Settings, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, capsys
):
    built: list[str] = []

    def build_it(_settings: Settings, _store: object, digest: str) -> build.Built:
        built.append(digest)
        return build.Built(f"{PRODUCT}:1", Path(), "", was_built=False)

    started: list[tuple[list[str], str | None]] = []

    def become(_path: str, command: list[str], environment: dict[str, str]) -> None:
        started.append((command, environment.get("DRIFTLINE_SERVING_DIGEST")))
        sys.exit(0)

    monkeypatch.setattr(build, "build", build_it)
    monkeypatch.setattr(os, "execve", become)
    assert main(["serve", PRODUCT]) == 1
    assert f"{PRODUCT} has no release in {settings.root}: there is no model to serve yet." in capsys.readouterr().err
    _release(ledgers, OLD)
    for options in (["--port", "3001"], ["--digest", NEW, "--host", "0.0.0.0"]):
        with pytest.raises(SystemExit):
            main(["serve", PRODUCT, *options])
    assert built == [OLD, NEW]
    tag = f"{PRODUCT}:1"
    assert started == [(child.command(tag, 3001), ""), (child.command(tag, 3000, "0.0.0.0"), NEW)]
    assert main(["serve", PRODUCT, "--digest", "abc"]) == 1
    assert f"0 models of {PRODUCT} have a digest that begins with 'abc'" in capsys.readouterr().err


def test_without_arguments_the_commands_are_printed(capsys):
    assert main([]) == 0
    output = capsys.readouterr().out
    assert all(f"\n    {command} " in output for command in ("demo", "check", "status", "trace", "report", "rollback"))


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"driftline {version('driftline')}\n"


COMMANDS = (
    ["status"],
    ["report"],
    ["trace", "1-2"],
    ["rollback", PRODUCT],
    ["release", PRODUCT, OLD, "--override", "x"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("text", ["s3:/b", "s3://", "ftp://x/y", "s3://no such/x", "S3://Bucket"])
def test_an_invalid_root_gives_an_error_message(monkeypatch, capsys, command: list[str], text: str):
    monkeypatch.setenv("DRIFTLINE_ROOT", text)
    assert main(command) == 1
    message = capsys.readouterr().err
    assert message == f"driftline: DRIFTLINE_ROOT is {text!r}; expected a folder or a URL such as s3://bucket/path.\n"


@pytest.mark.parametrize("command", [*COMMANDS, ["env"]], ids=lambda command: command[0])
@pytest.mark.parametrize("name", ["DRIFTLINE_STATE", "DRIFTLINE_ROOT"])
def test_a_file_in_place_of_a_folder_gives_an_error_message(
    settings: Settings, monkeypatch, tmp_path: Path, capsys, command: list[str], name: str
):
    (tmp_path / "file").write_text("")
    for variable in ("DRIFTLINE_STATE", "DRIFTLINE_ROOT"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(name, str(tmp_path / "file"))
    is_needed = name == "DRIFTLINE_STATE" or command != ["env"]
    assert main(command) == (1 if is_needed else 0)
    message = capsys.readouterr().err
    if is_needed:
        assert message.startswith("driftline: ") and message.count("\n") == 1, message
        assert str(tmp_path / "file") in message


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_s3_that_does_not_answer_gives_an_error_message(monkeypatch, settings: Settings, capsys, command: list[str]):
    endpoint = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "x", "AWS_ALLOW_HTTP": "true"}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "DRIFTLINE_ROOT": "s3://bucket/path"}
    for name, value in (endpoint | keys).items():
        monkeypatch.setenv(name, value)
    assert main(command) == 1
    message = capsys.readouterr().err
    assert message.startswith("driftline: ") and message.count("\n") == 1, message


def test_an_internal_error_is_raised_and_not_reported_as_a_users_mistake(monkeypatch, settings: Settings):
    monkeypatch.setattr("platform_assets.operations.status.of_product", lambda *_: None.nothing)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nothing"):
        main(["status"])


@pytest.mark.parametrize(
    ("verb", "name"), [("runs", ""), ("status", "nobody"), ("rollback", "nobody"), ("demo", "nobody")]
)
def test_a_product_that_is_not_there_is_named_with_those_that_are(
    settings: Settings, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    assert main([verb, name]) == 1
    message = capsys.readouterr().err
    assert f"{name!r} is not the name of a product" in message and PRODUCT in message


def test_in_another_project_its_own_dagster_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(home, "SOURCE", tmp_path / "nowhere" / "dagster.yaml")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert home.existing(settings) is None
    with pytest.raises(ValueError, match="DAGSTER_HOME is not set; set it to the folder of your project's Dagster"):
        home.prepare(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "theirs"))
    assert home.prepare(settings) == home.existing(settings) == tmp_path / "theirs"
    assert not (tmp_path / "theirs").exists()
    assert main(["env"]) == 0
    printed = capsys.readouterr().out
    assert "export DRIFTLINE_ROOT=" in printed
    assert "DAGSTER_HOME" not in printed
