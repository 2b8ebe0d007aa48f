"""What the tests of hosts share: a generated Django site on each kind of database."""

import pytest
from django_sites import DjangoSite, skeleton


@pytest.fixture(scope="session")
def _django_skeleton(tmp_path_factory):
    return skeleton(tmp_path_factory.mktemp("django"))


@pytest.fixture
def django_site(_django_skeleton, tmp_path, env, url):
    """Give `django_site(**database)`: a generated Django project on this test's database."""
    return lambda **database: DjangoSite(_django_skeleton, tmp_path / "project", env, url, **database)


@pytest.fixture
def site(django_site):
    """Return a generated Django project on each kind of database."""
    return django_site()
