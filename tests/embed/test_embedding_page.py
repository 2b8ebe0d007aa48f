"""What docs/embedding.md shows runs: each host's lines are a site that signs somebody up and welcomes them."""

import ast
import asyncio
import importlib
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from asgi_server import serve
from rig import let_go

import flagsweep

pytestmark = pytest.mark.long

PAGE = (Path(flagsweep.__file__).resolve().parent / "docs" / "embedding.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}


def blocks(section):
    return re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Give `site(section)`: a module of all that the section shows, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def site(section):
        (tmp_path / "shown.py").write_text("\n".join(blocks(section)), encoding="utf-8")
        made.append(importlib.import_module("shown"))
        return made[-1]

    yield site
    del sys.modules["shown"]
    for module in made:
        module.flags.connections.close_thread()
    let_go(tmp_path)


def test_every_section_shows_its_lines():
    assert [name for name in SECTIONS if not blocks(name)] == ["No second process", "What holds where"]
    for name in SECTIONS:
        ast.parse("\n".join(blocks(name)))


def test_every_host_of_the_table_has_a_section():
    anchors = set(re.findall(r"\]\(#([a-z-]+)\)", PAGE))
    assert anchors == {re.sub(r"[^a-z -]", "", name.lower()).replace(" ", "-") for name in SECTIONS} - {"what-holds-where"}


def test_flask(site, tmp_path):
    shown = site("Flask")
    for number in (1, 2):  # As tests do: an application for each.
        app = shown.create_app(f"sqlite:///{tmp_path}/site-{number}.db")
        with app.app_context():
            shown.db.create_all()
        assert app.test_cli_runner().invoke(args=["flagsweep", "init"]).exit_code == 0
        assert app.test_client().post("/users", data={"email": f"ada-{number}@example.com"}).json == {"id": 1}
        assert f"Welcome, ada-{number}@example.com" in app.test_cli_runner().invoke(args=["flagsweep", "sweep"]).output
        with app.app_context():
            shown.db.engine.dispose()


def test_fastapi(site, capsys):
    shown = site("FastAPI and Starlette")
    shown.flags.init()
    with shown.database:
        shown.database.create_tables([shown.User])
    assert serve(shown.app, "/users?email=ada@example.com", "POST") == (200, '{"id":1}')
    assert shown.flags.sweep(raise_errors=True) == {"lowered": 1}
    assert "Welcome, ada@example.com" in capsys.readouterr().out


def test_sqlalchemy(site, capsys):
    shown = site("SQLAlchemy alone")
    shown.Base.metadata.create_all(shown.engine)
    shown.flags.init()
    assert (shown.sign_up("ada@example.com"), asyncio.run(shown.sign_up_async("bob@example.com"))) == (1, 2)
    shown.Session.remove()
    assert shown.flags.sweep(raise_errors=True) == {"lowered": 2}
    assert set(capsys.readouterr().out.splitlines()) == {"Welcome, ada@example.com", "Welcome, bob@example.com"}
    shown.engine.dispose()
    asyncio.run(shown.AsyncSession.kw["bind"].dispose())


def test_a_driver(site, capsys):
    shown = site("A driver alone")
    shown.flags.init()
    with sqlite3.connect("site.db") as connection:
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT)")
    connection.close()
    assert shown.sign_up("ada@example.com") == 1
    assert shown.flags.sweep(raise_errors=True) == {"lowered": 1}
    assert capsys.readouterr().out == "Welcome, number 1\n"


def test_peewee(site, capsys):
    shown = site("Peewee")
    shown.flags.init()
    with shown.database:
        shown.database.create_tables([shown.User])
    assert shown.sign_up("Ada@Example.com") == 1
    assert shown.flags.sweep(raise_errors=True) == {"lowered": 1}
    assert capsys.readouterr().out == "Welcome, Ada@Example.com\n"
    assert [flag.kind for flag in shown.flags.find()] == ["rename"]
    shown.database.close()
