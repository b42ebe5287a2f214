"""`driftline doctor receivers` sends a test alert to each receiver, and says what came of it in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_assets.base.settings import Settings
from platform_assets.cli import main
from tests.doubles import alertmanager_server, mail_server, webhook_server


def test_each_receiver_gets_a_test_alert(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    with (
        webhook_server.running() as webhook,
        alertmanager_server.running(folder) as alertmanager,
        mail_server.running() as mail,
    ):
        addresses = {"DRIFTLINE_ALERT_WEBHOOK": webhook.address, "DRIFTLINE_ALERTMANAGER": alertmanager.address}
        for name, value in {**addresses, **mail.environment()}.items():
            monkeypatch.setenv(name, value)
        assert main(["doctor", "receivers"]) == 0
        assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
            ["ok", "alertmanager"],
            ["ok", "mail"],
            ["ok", "webhook"],
        ]
        alertmanager.wait_for(lambda: alertmanager.names() == [("firing", "DriftlineTest")])
        assert [body["kind"] for body, _ in webhook.received] == ["test"]
        assert "Nothing is wrong" in mail.mails(1)[0].get_content()
    assert main(["doctor", "receivers"]) == 1
    assert "alertmanager  receiver: FileNotFoundError" in capsys.readouterr().out, "there is no file SSL_CERT_FILE"
    monkeypatch.delenv("SSL_CERT_FILE")
    assert main(["doctor", "receivers"]) == 1
    output = capsys.readouterr().out
    assert output.splitlines() == [
        "FAILED  alertmanager  receiver: ConnectError: look at DRIFTLINE_ALERTMANAGER.",
        "FAILED  mail          server: ConnectionRefusedError: look at DRIFTLINE_MAIL_SERVER.",
        "FAILED  webhook       receiver: ConnectError: look at DRIFTLINE_ALERT_WEBHOOK.",
    ]
    assert not list(Path(settings.root).glob("**/alerts/*")), "a test is not on record"


def test_without_a_receiver_it_says_which_settings_name_one(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "receivers"]) == 1
    assert capsys.readouterr().out == (
        "No receiver is set, so alerts are recorded only. Set one of DRIFTLINE_ALERTMANAGER, DRIFTLINE_ALERT_WEBHOOK, "
        "DRIFTLINE_MAIL_SERVER.\n"
    )
