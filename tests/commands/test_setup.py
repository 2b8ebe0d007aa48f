"""What a site does first: init."""

from calling import flagsweep
from rig import count


def test_init_creates_the_tables_says_where_and_may_be_called_again(folder, db_path, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", "sqlite:///site.db")
    assert flagsweep("init").stdout == f"{db_path}: tables created\n"
    assert flagsweep("init").stdout == f"{db_path}: the tables are there already\n"
    assert count(db_path) == 0
