"""Mail in a real SMTP server: to owner and severity, with ids that stay the same, and no password without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from platform_assets.automation.receivers.api import Message
from platform_assets.automation.receivers.mail import Mail
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.store.records.alerts import Alert, Severity
from tests.doubles import mail_server
from tests.doubles.mail_server import MailServer

AT = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def running() -> Iterator[MailServer]:
    with mail_server.running() as server:
        yield server


@pytest.fixture
def server(running: MailServer, monkeypatch: pytest.MonkeyPatch) -> MailServer:
    monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
    for file in (running.folder / "mail/new").glob("*"):
        file.unlink()
    return running


def message(owner: str = "team:shop", severity: Severity = "ticket", *, is_over: bool = False) -> Message:
    alert = Alert(
        id="fault-1..odd",
        product="shop",
        kind="fault",
        text="12 of 1,000 rows – too few.",
        at_utc=AT.isoformat(),
        details={},
        severity=severity,
    )
    return Message(alert=alert, owner=owner, ended_at=AT if is_over else None)


def mail_of(server: MailServer, **changes: str) -> Mail:
    return Mail(Settings.from_environment(server.environment() | changes))


def test_a_mail_says_what_happened_and_the_end_answers_it(server: MailServer) -> None:
    mail = mail_of(server)
    assert [mail.send(message(is_over=is_over)).outcome for is_over in (False, True)] == ["sent", "sent"]
    first, last = server.mails(2)
    if first["Subject"].startswith("Over"):
        first, last = last, first
    assert (first["Subject"], last["Subject"]) == ("shop: fault (ticket)", "Over: shop: fault (ticket)")
    assert "12 of 1,000 rows – too few." in first.get_content() and "id: shop/fault-1..odd" in first.get_content()
    assert "It was over at 2026-11-30T00:00:00+00:00." in last.get_content()
    assert (last["In-Reply-To"], first["To"]) == (first["Message-ID"], "shop@example.org")
    assert last["Message-ID"] != first["Message-ID"]


@pytest.mark.parametrize(
    ("owner", "severity", "recipients"),
    [
        ("team:shop", "ticket", ["shop@example.org"]),
        ("team:shop", "page", ["oncall@example.org", "shop@example.org"]),
        ("team:new", "ticket", ["others@example.org"]),
        ("ada@example.org", "ticket", ["ada@example.org"]),
    ],
)
def test_owner_and_severity_decide_who_gets_it(
    owner: str, severity: Severity, recipients: list[str], server: MailServer
) -> None:
    assert mail_of(server).send(message(owner, severity)).outcome == "sent"
    (mail,) = server.mails(1)
    assert mail["To"].split(", ") == recipients


def test_a_password_is_not_sent_without_tls(server: MailServer) -> None:
    server.switch("without-tls", on=True)
    try:
        delivery = mail_of(server).send(message())
    finally:
        server.switch("without-tls", on=False)
    assert (delivery.outcome, delivery.message) == ("unreachable", "server: SMTPNotSupportedError")


def test_a_wrong_password_is_retried_and_an_unknown_recipient_is_not(server: MailServer) -> None:
    wrong = mail_of(server, DRIFTLINE_MAIL_PASSWORD="wrong").send(message())
    assert (wrong.outcome, wrong.message) == ("unreachable", "the server answered 535 (SMTPAuthenticationError)")
    refused = mail_of(server, DRIFTLINE_MAIL_TO="somebody@elsewhere.example").send(message())
    assert (refused.outcome, refused.message) == ("refused", "the server refused somebody@elsewhere.example (550)")
    partly = mail_of(server, DRIFTLINE_MAIL_TO="somebody@elsewhere.example, others@example.org").send(message())
    assert (partly.outcome, partly.message) == ("sent", "the server refused somebody@elsewhere.example (550)")
    assert len(server.mails(1)) == 1


def test_a_certificate_of_nobody_we_trust_is_refused(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    delivery = mail_of(server).send(message())
    assert (delivery.outcome, delivery.message) == ("unreachable", "server: SSLCertVerificationError")


FIT = {
    "DRIFTLINE_MAIL_SERVER": "smtp://mail.example:587",
    "DRIFTLINE_MAIL_SENDER": "driftline@example.org",
    "DRIFTLINE_MAIL_TO": "ops@example.org",
}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DRIFTLINE_MAIL_SERVER", "mail.example", "is 'mail.example'; expected an address such as smtp://mail.example"),
        ("DRIFTLINE_MAIL_SERVER", "smtp://mail:x", "is 'smtp://mail:x'; expected an address such as smtp://"),
        ("DRIFTLINE_MAIL_TO", "team:shop=shop@example.org", "and one without an owner for all the others"),
        ("DRIFTLINE_MAIL_TO", "ops", "is 'ops'; expected addresses with commas"),
        ("DRIFTLINE_MAIL_TO", "", "is not set; with DRIFTLINE_MAIL_SERVER it must be"),
        ("DRIFTLINE_MAIL_SENDER", "ops", "is 'ops'; expected an e-mail address"),
        ("DRIFTLINE_ALERTMANAGER", "here:9093", "is not an http or https address (its value is a secret"),
        ("DRIFTLINE_ALERTMANAGER_LABELS", "cluster", "expected labels as NAME=VALUE with commas"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(name: str, value: str, sentence: str) -> None:
    Settings.from_environment(FIT)
    with pytest.raises(SettingsProblem) as problem:
        Settings.from_environment(FIT | {name: value})
    assert str(problem.value).startswith(f"{name} ") and sentence in str(problem.value)
