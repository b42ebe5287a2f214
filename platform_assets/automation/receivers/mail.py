"""Send alerts as e-mail by SMTP, to whom the product's owner and the alert's severity name."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from urllib.parse import urlsplit

from platform_assets.automation.receivers.api import TIMEOUT_S, Delivery, Message
from platform_assets.base import clock
from platform_assets.base.settings import Settings, pairs
from platform_assets.store.artifacts import sha256

PORTS = {"smtp": 587, "smtps": 465}


class Mail:
    """The server in `DRIFTLINE_MAIL_SERVER`."""

    name = "mail"

    def __init__(self, settings: Settings) -> None:
        place = urlsplit(settings.mail_server or "")
        self._host, self._port = place.hostname or "", place.port or PORTS[place.scheme]
        self._has_tls = place.scheme == "smtps"
        self._user, self._password = settings.mail_user, settings.mail_password
        self._sender, self._named = settings.mail_sender or "", pairs(settings.mail_to)

    def send(self, message: Message) -> Delivery:
        """Send a message."""
        mail = self._mail(message)
        try:
            server = self._connected()
            try:
                refused = server.send_message(mail)
                with suppress(OSError, smtplib.SMTPException):  # it has the mail, whatever it says to this
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPRecipientsRefused as problem:
            return _refused(problem.recipients)
        except smtplib.SMTPDataError as problem:
            return _refused({"the text": (problem.smtp_code, b"")})
        except smtplib.SMTPResponseException as problem:  # of sender or password: until a setting is corrected
            kind = type(problem).__name__
            return Delivery(outcome="unreachable", message=f"the server answered {problem.smtp_code} ({kind})")
        except (OSError, smtplib.SMTPException) as problem:
            return Delivery(outcome="unreachable", message=f"server: {type(problem).__name__}")
        return Delivery(outcome="sent", message=_refused(refused).message if refused else "the server took it")

    def recipients(self, message: Message) -> list[str]:
        """Return whom a message is for: those of its severity, and those of its owner, or of no other owner."""
        severity = [address for name, address in self._named if name == message.alert.severity]
        owners = [address for name, address in self._named if name == message.owner]
        others = [message.owner] if "@" in message.owner else [address for name, address in self._named if not name]
        return list(dict.fromkeys([*severity, *(owners or others)]))

    def _mail(self, message: Message) -> EmailMessage:
        alert, mail = message.alert, EmailMessage()
        is_end = message.ended_at is not None
        # Ids have letters that no Message-ID may have in a row.
        digest, domain = sha256(message.id.encode())[:32], self._sender.rpartition("@")[2]
        first = f"<{digest}@{domain}>"
        mail["From"], mail["To"] = self._sender, ", ".join(self.recipients(message))
        mail["Subject"] = f"{'Over: ' if is_end else ''}{alert.product}: {alert.kind} ({alert.severity})"
        mail["Date"], mail["Message-ID"] = clock.wall(), f"<{digest}.end@{domain}>" if is_end else first
        mail["Auto-Submitted"] = "auto-generated"
        if is_end:
            mail["In-Reply-To"] = mail["References"] = first
        ended = f"It was over at {message.ended_at.isoformat()}.\n\n" if message.ended_at else ""
        facts = {"product": alert.product, "owner": message.owner, "began": alert.at_utc, "id": message.id}
        mail.set_content(f"{ended}{alert.text}\n\n" + "".join(f"{name}: {text}\n" for name, text in facts.items()))
        return mail

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._has_tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)
        try:
            server.ehlo_or_helo_if_needed()
            if not self._has_tls and (self._user is not None or server.has_extn("starttls")):
                server.starttls(context=context)
            if self._user is not None:
                server.login(self._user, "" if self._password is None else self._password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server


def _refused(refused: Mapping[str, tuple[int, bytes]]) -> Delivery:
    """Return the delivery where a server refused recipients or the text: for the time being if it says so of one."""
    codes = sorted({code for code, _ in refused.values()})
    message = f"the server refused {', '.join(sorted(refused))} ({', '.join(map(str, codes))})"
    return Delivery(outcome="unreachable" if codes[0] < 500 else "refused", message=message)
