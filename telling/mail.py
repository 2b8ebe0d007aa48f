"""Plain mail, by SMTP. The password is shown nowhere, and goes over no line that others read."""

from __future__ import annotations

import platform
import re
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..config import Settings, hidden
from ..errors import ConfigError, FlagSweepError
from ..logs import printable

TIMEOUT = 30.0
"""Seconds that a mail server may take for an answer."""

AT_HOME = ("localhost", "127.0.0.1", "::1")
LONGEST_SUBJECT = 150
ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")


class NotSent(FlagSweepError):
    """Say that a mail was not sent, and by which server, without its password."""


class Server(NamedTuple):
    """Say where mail goes to."""

    host: str
    port: int
    user: str
    password: str
    tls: bool
    """Whether the line is encrypted from the start."""

    @classmethod
    def of(cls, url: str) -> Server:
        """Return what a URL means: ``smtp://user:pw@host:587`` or ``smtps://user:pw@host:465``.

        :raises ConfigError: where it is none. The message shows no password.
        """
        try:
            parts = urlsplit(url)
            tls, host = parts.scheme == "smtps", parts.hostname
            port = parts.port or (465 if tls else 587 if parts.username else 25)
        except ValueError:
            host = None
        if host is None or parts.scheme not in ("smtp", "smtps"):
            raise ConfigError(f"smtp must be 'smtp://user:pw@host:587' or 'smtps://user:pw@host:465', got {hidden(url)!r}")
        return cls(host, port, unquote(parts.username or ""), unquote(parts.password or ""), tls)


def send(settings: Settings, to: str, subject: str, body: str) -> None:
    """Send one mail of plain text.

    :param to: an address, or several with commas.
    :raises NotSent: where the server does not take it.
    """
    server = Server.of(settings.smtp)
    message = _message(settings, to, subject, body)
    try:
        with _connected(server) as smtp:
            smtp.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        why = printable(str(error).replace(server.password, "***") if server.password else str(error))[:300]
        raise NotSent(f"the mail to {printable(to)} was not sent by {server.host}:{server.port}: {why}") from None


def addresses(to: str) -> list[str]:
    """Return the addresses of a text, without names.

    :raises ConfigError: where one is none, as with a line break in it.
    """
    found = [parseaddr(part)[1] for part in str(to).split(",")]
    if not str(to).isprintable() or not all(map(ADDRESS.fullmatch, found)):
        told = printable(str(to))
        raise ConfigError(f"a mail goes to an address such as 'owner@example.org', or several with commas, got {told!r}")
    return found


def _message(settings: Settings, to: str, subject: str, body: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(printable(subject)[:LONGEST_SUBJECT].split())
    message["From"] = ", ".join(addresses(settings.mail_from or f"flagsweep@{platform.node() or 'localhost'}"))
    message["To"] = ", ".join(addresses(to))
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain=platform.node() or "localhost")
    message["Auto-Submitted"] = "auto-generated"  # Nobody's holiday notice answers it.
    message.set_content(body, cte="quoted-printable" if not body.isascii() else "7bit")
    return message


def _connected(server: Server) -> smtplib.SMTP:
    """Return a session, encrypted where the server can; a password is not sent to another host without that."""
    context = ssl.create_default_context()
    if server.tls:
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=context)
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    try:
        smtp.ehlo_or_helo_if_needed()
        away = server.host not in AT_HOME
        if not server.tls and away and smtp.has_extn("starttls"):
            smtp.starttls(context=context)
            smtp.ehlo()
        elif server.user and not server.tls and away:
            raise smtplib.SMTPException("it offers no TLS, and a password is not sent in the clear")
        if server.user:
            smtp.login(server.user, server.password)
    except BaseException:
        smtp.close()
        raise
    return smtp
