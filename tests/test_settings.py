"""The environment: defaults that work on a laptop, and messages that name the variable."""

import os
import re
from pathlib import Path

import pytest

from platform_assets.base.settings import AUTHORITY_VARIABLES, REPOSITORY, Settings, SettingsProblem, variable

RECORD = "RECORD_SETTINGS"


def test_an_empty_environment_means_a_laptop() -> None:
    settings = Settings.from_environment({})
    assert (settings.environment, settings.launcher) == ("local", "subprocess")
    assert settings.state == REPOSITORY / ".driftline"
    assert settings.root == str(REPOSITORY / ".driftline" / "store")


def test_code_outside_of_a_checkout_keeps_its_state_with_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("platform_assets.base.settings.REPOSITORY", tmp_path / "bento" / "src")
    monkeypatch.setenv("HOME", str(tmp_path))
    absolute = {"XDG_STATE_HOME": str(tmp_path / "kept")}
    states = [Settings.from_environment(environ).state for environ in ({}, {"XDG_STATE_HOME": "kept"}, absolute)]
    assert states == [tmp_path / ".local/state/driftline"] * 2 + [tmp_path / "kept/driftline"]


def test_a_user_without_a_home_must_name_the_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def without_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platform_assets.base.settings.REPOSITORY", tmp_path)
    monkeypatch.setattr(Path, "home", without_home)
    with pytest.raises(SettingsProblem, match=r"DRIFTLINE_STATE is not set, and this user has no home folder"):
        Settings.from_environment({})


def test_empty_variables_count_as_unset() -> None:
    assert Settings.from_environment({"DRIFTLINE_ENV": "", "DRIFTLINE_ROOT": ""}) == Settings.from_environment({})


def test_the_state_moves_everything_that_is_not_data(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)})
    for folder in (settings.dagster_home, settings.bentoml_home, settings.prediction_log, settings.scratch):
        assert folder.parent == tmp_path
    assert settings.root == str(tmp_path / "store")


def test_a_cluster_starts_pods_and_names_its_root() -> None:
    settings = Settings.from_environment({"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://models/driftline"})
    assert (settings.environment, settings.launcher, settings.root) == (
        "cluster",
        "kubernetes",
        "s3://models/driftline",
    )
    with pytest.raises(SettingsProblem, match="DRIFTLINE_ROOT"):
        Settings.from_environment({"DRIFTLINE_ENV": "cluster"})


def test_services_of_a_cluster_ship_their_log_unless_told_otherwise() -> None:
    cluster = {"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://models/driftline"}
    ships = [
        Settings.from_environment(environ).serving_ships
        for environ in (
            {},
            cluster,
            {**cluster, "DRIFTLINE_SERVING_SHIPS": "false"},
            {"DRIFTLINE_SERVING_SHIPS": "true"},
        )
    ]
    assert ships == [False, True, False, True]


def test_services_of_a_cluster_answer_for_a_while_after_they_were_asked_to_end() -> None:
    cluster = {"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://models/driftline"}
    settings = [Settings.from_environment(environ) for environ in ({}, cluster)]
    assert [item.serving_drain_s for item in settings] == [0.0, 5.0]
    assert [item.probes_port(3000) for item in settings] == [3001, 3001]
    assert settings[0].replace(serving_probes_port=9000).probes_port(3000) == 9000


def test_every_field_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_are_frozen_and_a_copy_is_validated(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), state=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.root = "elsewhere"  # type: ignore[misc]
    assert settings.replace(serving_in_flight=3).serving_in_flight == 3
    with pytest.raises(SettingsProblem, match="DRIFTLINE_SERVING_IN_FLIGHT is 0; expected a whole number of at least"):
        settings.replace(serving_in_flight=0)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("DRIFTLINE_SERVING_IN_FLIGHT", "2.5", "a whole number of at least 1"),
        ("DRIFTLINE_SERVING_POLL_S", "0.01", "a number of at least 0.05"),
        ("DRIFTLINE_SERVING_POLL_S", "soon", "a number of at least 0.05"),
        ("DRIFTLINE_SENSOR_PATIENCE_S", "nan", "a number of at least 0"),
        ("DRIFTLINE_SERVING_NEEDS_STORE", "yes", "one of true, false"),
        ("DRIFTLINE_SERVING_ROOM_BYTES", "0", "a whole number of at least 1"),
        ("DRIFTLINE_SERVING_PROBES_PORT", "70000", "a port from 1 to 65535"),
        ("DRIFTLINE_SERVING_IN_FLIGHT", "0", "a whole number of at least 1"),
        ("DRIFTLINE_SERVING_WAIT_S", "0", "a number of at least 0.001"),
        ("DRIFTLINE_SERVING_DRAIN_S", "-1", "a number of at least 0"),
        (
            "DRIFTLINE_SERVICE_NETWORKS",
            "10.0.0.7/8",
            "addresses and networks with commas between them: 10.0.0.7/8 has host bits set",
        ),
        ("DRIFTLINE_BROKEN_PRODUCTS", "hide", "one of refuse, show"),
        ("DRIFTLINE_DAGSTER_URL", "javascript:alert(1)", "an http or https address"),
        ("DRIFTLINE_SERVING_DIGEST", "a" * 63, "the 64 hexadecimal digits of a bundle's digest"),
        ("AWS_ENDPOINT_URL", "s3.example", "an address such as https://s3.example:8333"),
        ("AWS_ENDPOINT_URL", "http://s3.example:99999", "an address such as https://s3.example:8333"),
        ("AWS_ENDPOINT_URL", "https://[::1", "an address such as https://s3.example:8333"),
        ("AWS_ALLOW_HTTP", "1", "one of true, false"),
        ("DRIFTLINE_ENV", "moon", "one of local, cluster"),
        ("DRIFTLINE_LAUNCHER", "moon", "one of subprocess, kubernetes"),
    ],
)
def test_a_wrong_value_gives_one_message(name: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsProblem) as caught:
        Settings.from_environment({name: text})
    assert str(caught.value) == f"{name} is {text!r}; expected {expected}."


def test_the_file_of_profiles_reaches_child_processes_and_no_pod(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DRIFTLINE_PROFILES": str(tmp_path / "profiles.toml")})
    assert settings.child_environment()["DRIFTLINE_PROFILES"] == str(tmp_path / "profiles.toml")
    assert "DRIFTLINE_PROFILES" not in settings.to_environment()


HERE = dict.fromkeys(AUTHORITY_VARIABLES, "/etc/driftline-ca/ca.crt")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (HERE, HERE),
        (dict.fromkeys(HERE, "/etc/ssl/certs/ca-certificates.crt"), {}),
        (dict.fromkeys(HERE, "/etc/driftline-ca/../ssl/cert.pem"), {}),
        (dict.fromkeys(HERE, "/etc/driftline-cad/ca.crt"), {}),
        (dict.fromkeys(HERE, "/etc/driftline-ca"), {}),
        (dict.fromkeys(HERE, "ca.crt"), {}),
        (dict.fromkeys(HERE, ""), {}),
    ],
)
def test_a_file_of_authorities_reaches_steps_only_where_pods_have_it(environ: dict[str, str], expected: dict[str, str]):
    assert dict(Settings.from_environment(environ).store_environment) == expected


@pytest.mark.parametrize("name", AUTHORITY_VARIABLES)
@pytest.mark.parametrize("other", [{}, {"SSL_CERT_FILE": "/home/me/ca.pem", "AWS_CA_BUNDLE": "/home/me/ca.pem"}])
def test_one_of_the_two_variables_of_authorities_alone_is_refused(name: str, other: dict[str, str]) -> None:
    (missing,) = set(AUTHORITY_VARIABLES) - {name}
    with pytest.raises(SettingsProblem, match=f"^{missing} names no file below /etc/driftline-ca.*set both"):
        Settings.from_environment({**other, name: HERE[name]})


def test_relative_folders_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({"DRIFTLINE_STATE": "here", "DRIFTLINE_ROOT": "data"})
    assert (settings.state, settings.root) == (tmp_path / "here", str(tmp_path / "data"))


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    for settings in (
        Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}),
        Settings.from_environment({"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://models"}),
        Settings.from_environment({"DRIFTLINE_TRAINER_LIBRARIES": "numpy=2.3 torch=2.13"}),
    ):
        assert Settings.from_environment(settings.to_environment()) == settings
    assert settings.trainer_libraries == "numpy=2.3 torch=2.13"
    assert settings.to_environment()["BENTOML_DO_NOT_TRACK"] == "true"


def test_machine_and_cluster_store_as_many_events_at_once(repository: Path) -> None:
    lines = (repository / "deploy/kubernetes/base/driftline.env").read_text(encoding="utf-8").splitlines()
    name = "DAGSTER_EVENT_BATCH_SIZE"
    assert f"{name}={Settings.from_environment().to_environment()[name]}" in lines


def test_the_page_of_settings_is_written_from_the_code(repository: Path) -> None:
    page = repository / "docs/settings.md"
    local = Settings.from_environment({})
    cluster = Settings.from_environment({"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://bucket"})
    introduction, _, _ = page.read_text(encoding="utf-8").partition("| variable |")
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        here, there = (_default(None if name == "profiles" else getattr(each, name)) for each in (local, cluster))
        default = here if here == there or name in ("environment", "root") else f"{here}; in a cluster {there}"
        rows += [f"| `{variable(name)}` | {field.description} | {default} |"] if variable(name) else []
    text = introduction + "\n".join(rows) + "\n"
    if os.environ.get(RECORD):
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text, f"write it again: {RECORD}=1"


def _default(value: object) -> str:
    if value is None or value == ():
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text.removeprefix(f'{REPOSITORY}/')}`"


def test_every_metric_and_limit_is_documented(repository: Path) -> None:
    from platform_assets.serving.run import metrics

    rules = (repository / "deploy/monitoring/rules.yaml").read_text(encoding="utf-8")
    text = metrics.Metrics().text().decode()
    names = set(re.findall(r"^# TYPE (driftline_\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    assert names
    services = (repository / "docs/serve.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in services} == set()
    assert f"(driftline_event_loop_lag_seconds) > {metrics.LAG_ALERT_S:g}\n" in rules
    assert f"(driftline_in_flight_requests) > {metrics.IN_FLIGHT_ALERT}\n" in rules


def test_settings_do_not_hold_the_keys_of_the_store() -> None:
    result = Settings.from_environment({"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "whisper"})
    assert "whisper" not in repr(result) + repr(result.to_environment())
