"""A database without tables."""

import pytest
from places import Place


@pytest.fixture
def place(request, tmp_path):
    kind = request.param
    if kind == "sqlite":
        return Place(kind, f"sqlite:///{tmp_path}/site.db")
    return Place(kind, request.getfixturevalue({"postgresql": "postgres_url", "mysql": "mysql_url"}[kind]))
