"""A real SMTP server: Debian's exim, with TLS, one user, and a folder for the mail of example.org.

It has an account of its own, so only root can start it, and its folder is one that it can reach.
"""

from __future__ import annotations

import email
import email.policy
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

from platform_assets.serving.run.child import free_port
from tests.doubles.program import Program

USER, PASSWORD = "driftline", "s3cr3t-mail"
ACCOUNT = "Debian-exim"
START_S = 30.0
CONFIGURATION = """
keep_environment =
spool_directory = {folder}/spool
log_file_path = {folder}/spool/%slog
pid_file_path = {folder}/spool/pid
primary_hostname = mail.example
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
tls_advertise_hosts = ${{if exists{{{folder}/without-tls}}{{}}{{*}}}}
tls_certificate = {folder}/certificate
tls_privatekey = {folder}/key
begin acl
rcpt:
  defer condition = ${{if exists{{{folder}/away}}}}
  deny !authenticated = *
  deny !domains = example.org
  accept
begin routers
all:
  driver = accept
  transport = kept
begin transports
kept:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  batch_max = 100
  return_path_add
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
"""


@dataclass(frozen=True)
class MailServer:
    """A server that answers.

    Attributes:
        folder: with its mail, and `certificate`, which names localhost.
    """

    folder: Path
    port: int

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate"

    def environment(self) -> dict[str, str]:
        """The variables of our settings by which it gets alerts."""
        return {
            "DRIFTLINE_MAIL_SERVER": f"smtp://localhost:{self.port}",
            "DRIFTLINE_MAIL_USER": USER,
            "DRIFTLINE_MAIL_PASSWORD": PASSWORD,
            "DRIFTLINE_MAIL_SENDER": "driftline@example.org",
            "DRIFTLINE_MAIL_TO": "others@example.org, team:shop=shop@example.org, page=oncall@example.org",
            "SSL_CERT_FILE": str(self.certificate),
        }

    def mails(self, count: int) -> list[EmailMessage]:
        """Return the mail that came, in order, once there are as many."""
        deadline = time.monotonic() + START_S
        while len(files := sorted((self.folder / "mail/new").glob("*"), key=_time)) < count:
            assert time.monotonic() < deadline, (len(files), (self.folder / "spool/mainlog").read_text())
            time.sleep(0.05)
        return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]

    def switch(self, name: str, *, on: bool) -> None:
        """Have it answer 451 to every recipient (`away`), or offer no TLS (`without-tls`)."""
        file = self.folder / name
        file.touch() if on else file.unlink(missing_ok=True)


def _time(file: Path) -> tuple[int, str]:
    return file.stat().st_mtime_ns, file.name


@contextmanager
def running() -> Iterator[MailServer]:
    """Run a server; skip the test where there is none, or this user may not start it."""
    program = shutil.which("exim4", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("needs an SMTP server: apt-get install exim4-daemon-light")
    if os.geteuid() != 0:
        pytest.skip("needs root: to start an SMTP server")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's folders are closed to other accounts
    try:
        folder.chmod(0o755)
        for name in ("spool", "mail"):
            (folder / name).mkdir()
            shutil.chown(folder / name, ACCOUNT)
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        made = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate"), "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *made]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "key").chmod(0o644)
        configuration = folder / "configuration"
        configuration.write_text(CONFIGURATION.format(folder=folder, user=USER, password=PASSWORD), encoding="utf-8")
        port = free_port()
        arguments = [program, "-C", str(configuration), "-bdf", "-oX", f"127.0.0.1.{port}"]
        exim = Program(arguments, folder, {})
        try:
            _wait(port, exim)
            yield MailServer(folder, port)
        finally:
            exim.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, exim: Program) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and exim.process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the SMTP server did not start: {exim.log()}")
