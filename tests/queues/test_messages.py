"""What may be believed: a message that is signed with our key, for this database, less than a minute ago."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_rig import NOW

from flagsweep.queues.messages import LARGEST, Refused, Seal

KEYS = [b"the key that signs", b"the key before it"]


def test_a_seal_opens_what_it_has_closed():
    assert Seal(KEYS, "q").open(Seal(KEYS, "q").close("mail", NOW), NOW) == "mail"


def test_while_keys_change_the_old_one_is_accepted_and_the_new_one_signs():
    old, both, new = Seal(KEYS[1:], "q"), Seal(KEYS, "q"), Seal(KEYS[:1], "q")
    assert both.open(old.close("mail", NOW), NOW) == new.open(both.close("mail", NOW), NOW) == "mail"
    with pytest.raises(Refused, match="not signed with our key"):
        new.open(old.close("mail", NOW), NOW)


def test_a_message_for_another_database_is_refused():
    with pytest.raises(Refused, match="not signed with our key"):
        Seal(KEYS, "q").open(Seal(KEYS, "other").close("mail", NOW), NOW)


def test_a_message_counts_for_a_minute():
    seal = Seal(KEYS, "q")
    message = seal.close("mail", NOW)
    assert seal.open(message, NOW + 60_000_000) == "mail"
    with pytest.raises(Refused, match="too old"):
        seal.open(message, NOW + 61_000_000)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"17", b'{"sweep": "mail"}', b'{"sweep": "mail", "until": []}', b"[" * 4000])
def test_what_is_signed_and_says_nothing_is_refused_too(body):
    seal = Seal(KEYS, "q")
    with pytest.raises(Refused, match="no nudge"):
        seal.open(seal._sign(KEYS[0], body) + b" " + body, NOW)


def test_any_change_to_a_message_is_seen():
    seal = Seal(KEYS, "q")
    message = seal.close("mail", NOW)
    for place in range(len(message)):
        changed = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
        with pytest.raises(Refused):
            seal.open(changed, NOW)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(Refused):
        Seal(KEYS, "q").open(data, NOW)


def test_what_is_too_large_is_refused_before_anything_reads_it(monkeypatch):
    seal = Seal(KEYS, "q")
    body = json.dumps({"sweep": "mail", "until": NOW, "more": "x" * LARGEST}).encode()
    message = seal._sign(KEYS[0], body) + b" " + body
    monkeypatch.setattr(seal, "_sign", None)
    with pytest.raises(Refused, match="too large"):
        seal.open(message, NOW)
