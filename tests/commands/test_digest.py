"""``flagsweep digest``: printed, as JSON, and mailed."""

import json

from calling import flagsweep
from post import mail_server


def test_digest_prints_one_page_with_its_subject(shop):
    shop.send.raise_flag(1, how="fail")
    shop.flags.sweep()
    told = flagsweep("digest").stdout
    assert told.splitlines()[0].startswith("Subject: flagsweep: ")
    assert "Errors that came most often" in told
    assert all(len(line) <= 72 for line in told.splitlines()[1:])
    assert "\x1b" not in told


def test_digest_mails_it_and_says_so(shop, monkeypatch):
    with mail_server() as box:
        monkeypatch.setenv("FLAGSWEEP_SMTP", box.url)
        monkeypatch.setenv("FLAGSWEEP_DATABASE", str(shop.flags.path))
        monkeypatch.delenv("FLAGSWEEP_APP")
        told = flagsweep("digest", "--to", "owner@example.org").stdout
        assert told.startswith("sent to owner@example.org: flagsweep: ")
        assert json.loads(flagsweep("digest", "--to", "owner@example.org", "--json").stdout)["to"] == "owner@example.org"
    assert len(box.mails) == 2
    assert flagsweep("digest", "--to", "owner@example.org", code=1).stderr.count("was not sent by 127.0.0.1") == 1
