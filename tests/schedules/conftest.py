"""A site with schedules, on each database."""

import pytest
from sites import Site


@pytest.fixture
def site(url, clock, tmp_path):
    return Site(url, clock, tmp_path / "state")
