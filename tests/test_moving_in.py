"""docs/from-*.md: what other queues' constructs become is run, block by block, and does its work."""

import ast
import re
from pathlib import Path

import pytest

import flagsweep
from flagsweep.testing import FakeClock, sweep_all
from flagsweep.testing.lending import clocked

DOCS = Path(flagsweep.__file__).resolve().parent / "docs"
PAGES = {
    "from-huey.md": {"send_mail", "nightly", "poll", "sync"},
    "from-celery.md": {"send_mail", "report", "poll", "fetch", "parse", "resize", "publish"},
    "from-django-tasks.md": {"send_mail", "report", "send_receipt"},
}


def _blocks(page):
    """Return the blocks of a page: whose they are, nothing for ours, and their text."""
    return re.findall(r"```python ?([\w-]*)\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """Give `moved(page)`: the names of a page's blocks, once they have run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "moved"}

    def moved(page):
        for whose, source in _blocks(page):
            if not whose:
                exec(compile(source, page, "exec"), names)
        return names

    yield moved
    if huey := names.get("huey"):
        huey.storage.close()
    names["flags"].database.close()
    names["flags"].connections.close_thread()


def test_every_page_of_the_kind_is_tried():
    assert set(PAGES) == {path.name for path in DOCS.glob("from-*.md")}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_construct_becomes_does_its_work(moved, page):
    names = moved(page)
    flags = names["flags"]
    assert set(flags.handlers) == PAGES[page]
    with clocked(flags, FakeClock()):
        raised = {flag.kind for flag in flags.find(limit=None)}
        assert raised and flags.sweep(raise_errors=True)["lowered"] >= len(raised) - 1
        flags.clock.advance("5m")
        flags.sweep(raise_errors=True)
        assert flags.find(kind="send_mail") == [], "what was delayed is done, too"
        assert {info.name for info in flags.schedules.list()} == {"nightly", "poll"} & PAGES[page] | flags_named(page)
        flags.clock.advance("7d")
        assert flags.sweep(raise_errors=True)["lowered"] >= 1, "schedules fire"


def flags_named(page):
    """Return the schedules of a page that have another name than their handler."""
    return {"from-huey.md": set(), "from-celery.md": {"nightly"}, "from-django-tasks.md": {"report"}}[page]


@pytest.mark.parametrize("page", PAGES)
def test_what_stands_on_the_left_is_python_and_each_has_a_right(page):
    whose = [name for name, _ in _blocks(page)]
    for at, name in enumerate(whose):
        if name:
            assert name in ("huey", "celery", "django", "django-q") and whose[at + 1] == "", "ours follows theirs"
    for _, source in _blocks(page):
        ast.parse(source)


def test_a_group_ends_with_what_each_of_it_raises(moved):
    names = moved("from-celery.md")
    names["put_online"] = (published := []).append
    sweep_all(names["flags"])
    assert published == [1]


@pytest.mark.parametrize("page", PAGES)
def test_every_option_command_and_method_that_a_page_names_is_there(page):
    from flagsweep.cli import cli
    from flagsweep.handlers import Options

    text = (DOCS / page).read_text(encoding="utf-8")
    for name in re.findall(r"`(?:@)?flags\.(\w+)", text):
        assert hasattr(flagsweep.FlagSweep, name), name
    for name in re.findall(r"`flagsweep (?:--app \S+ )?(\w+)`", text):
        assert name in cli.commands, name
    columns = [row.split("|")[2] for row in text.splitlines() if row.startswith("| `")]
    options = {name for column in columns for name in re.findall(r"`(\w+)=", column)} - {"lanes", "at"}
    assert options <= set(Options.names()) | {"kind"}, options
