"""The mail server of the demo: real SMTP on 127.0.0.1, as slow and as moody as real ones, and with a journal.

Some recipients are refused once or twice with a 421; the seed says which. The journal has one JSON object a line,
`{"event": "accepted" | "refused", "to": ...}`; that of an accepted mail also has its `id` and the recipient's `name`,
as the server understood it.
SIGTERM closes the port, lets the sessions that are open come to their end, and exits.
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import random
import signal
from collections import Counter

from aiosmtpd.smtp import SMTP

TAKES = (0.03, 0.11)
"""A mail takes between these, in seconds."""


class Journal:
    """Append to the file; a new server goes on where an earlier one ended."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event, **facts):
        """Add one line, in one piece."""
        os.write(self._file, json.dumps({"event": event, **facts}).encode() + b"\n")


class JournalReader:
    """Read what has been added to a journal since the last look."""

    def __init__(self, path):
        self.accepted = []
        self.refused = Counter()
        self._path = path
        self._offset = 0

    def look(self):
        """Take in every line that is complete by now."""
        if not os.path.exists(self._path):
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(lines) + len(newline)
        for line in lines.splitlines():
            self._take(json.loads(line))

    def _take(self, entry):
        if entry["event"] == "accepted":
            self.accepted.append(entry)
        else:
            self.refused[entry["to"]] += 1


class Clerk:
    """Decide about recipients and mails, and write the journal: what aiosmtpd calls a handler."""

    def __init__(self, journal, refused, seed):
        self._journal = journal
        self._refused = refused
        self._seed = seed

    async def handle_RCPT(self, server, session, envelope, address, options):
        """Refuse this recipient as often as the seed says."""
        if self._refused[address] < self._dice(address, "refusals").choices((0, 1, 2), weights=(88, 9, 3))[0]:
            self._refused[address] += 1
            self._journal.write("refused", to=address)
            return "421 4.3.2 Busy, please come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        """Accept the mail. A client that dies between the journal and the answer cannot know that it was accepted."""
        pause = self._dice(envelope.rcpt_tos[0], "pace").uniform(*TAKES) / 2
        await asyncio.sleep(pause)
        # Decoded first: given bytes, Python's parser does not take raw UTF-8 in a header for text.
        mail = email.message_from_string(envelope.content.decode(), policy=email.policy.SMTPUTF8)
        name = mail["To"].addresses[0].display_name
        self._journal.write("accepted", id=mail["Message-ID"].strip(), to=envelope.rcpt_tos[0], name=name)
        await asyncio.sleep(pause)
        return "250 2.6.0 Accepted"

    def _dice(self, address, purpose):
        return random.Random(f"{self._seed} {purpose} {address}")


class Session(SMTP):
    """Speak SMTP with one client, and be listed while it lasts."""

    def __init__(self, clerk, open_sessions):
        # A host name of our own: aiosmtpd would ask the resolver for one.
        super().__init__(clerk, hostname="mail.example", enable_SMTPUTF8=True, timeout=30, loop=asyncio.get_running_loop())
        self._open_sessions = open_sessions

    def connection_made(self, transport):
        self._open_sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error):
        self._open_sessions.discard(self)
        super().connection_lost(error)


async def serve(port, clerk):
    """Listen until SIGTERM, then finish what was begun."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    open_sessions = set()
    server = await loop.create_server(lambda: Session(clerk, open_sessions), "127.0.0.1", port)
    await stop.wait()
    server.close()
    deadline = loop.time() + 5
    while open_sessions and loop.time() < deadline:
        await asyncio.sleep(0.005)


def main():
    """Serve mails on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("journal")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    past = JournalReader(options.journal)
    past.look()
    asyncio.run(serve(options.port, Clerk(Journal(options.journal), past.refused, options.seed)))


if __name__ == "__main__":
    main()
