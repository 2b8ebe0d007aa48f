"""Which consumers run older code than there is."""

import os

import pytest

from flagsweep.models import Consumer
from flagsweep.operations.older_code import file_of, older_than

AT = 1_767_225_600


@pytest.fixture
def handlers(flags, tmp_path, monkeypatch):
    """Give the handlers of a module whose file was changed at `AT`."""
    (tmp_path / "site_of_old.py").write_text("def send():\n    pass\n")
    os.utime(tmp_path / "site_of_old.py", (AT, AT))
    monkeypatch.syspath_prepend(tmp_path)
    import site_of_old

    flags.handler("send")(site_of_old.send)
    return flags.handlers


def consumer(started=AT - 60, host="here", app="other, site_of_old"):
    started = started * 1_000_000 if isinstance(started, int) else started
    return Consumer(id=1, mode="run", pid=7, host=host, started_at=started, app=app)


def test_who_started_before_a_change_of_its_module_is_named_with_the_time(handlers):
    row = consumer()
    assert older_than(handlers, [row], "here") == [("site_of_old", AT * 1_000_000, row)]
    assert file_of("site_of_old") == "site_of_old.py"


@pytest.mark.parametrize(
    "other",
    [{"started": AT + 1}, {"host": "there"}, {"app": "other"}, {"app": None}, {"started": "then"}],
    ids=["started since", "another host", "another application", "damaged", "damaged start"],
)
def test_who_has_the_code_of_now_or_none_of_it_is_not_named(handlers, other):
    assert older_than(handlers, [consumer(**other)], "here") == []


def test_a_module_without_a_file_is_left_out(flags):
    def send(): ...

    send.__module__ = "nowhere_to_be_found"
    flags.handler("send")(send)
    assert older_than(flags.handlers, [consumer(app="nowhere_to_be_found")], "here") == []
