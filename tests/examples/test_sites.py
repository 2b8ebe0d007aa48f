"""The example sites, over HTTP: each is killed in the middle and started anew, and each mail that is owed has come."""

import shutil
import sys
from contextlib import suppress

import pytest
from rig import kill_with_descendants
from servers import free_port
from storefront import EXAMPLES, SECRET, MailServer, Shop

pytestmark = pytest.mark.long

PEOPLE = 24
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
THREADS = 4
"""As many mails are on their way at the same time, in each site."""


class Site:
    """An example site in a folder of its own: started, killed, and started anew.

    :param url: of its database; None: the file that it has by itself.
    """

    def __init__(self, folder, spawn, env, mail_port, url=None):
        shutil.copytree(EXAMPLES / self.name, folder, ignore=shutil.ignore_patterns("__pycache__", "*.db*", "instance"))
        self.folder, self.port, self._spawn = folder, free_port(), spawn
        self.env = {**env, "SHOP_MAIL_PORT": str(mail_port), "SHOP_WEBHOOK_SECRET": SECRET.decode(), **self.at(url)}
        for command in self.setup():
            child = self.call(*command)
            assert child.wait(60) == 0, child.log.read_text()
        self.children = []

    def at(self, url):
        """Return the variables that name its database."""
        assert url is None, f"{self.name} has a file"
        return {}

    def call(self, *command):
        return self._spawn(sys.executable, "-m", *command, cwd=self.folder, env=self.env)

    def start(self):
        """Start whatever the README starts, which is not all there is to be killed."""
        self.children = [self.call(*command) for command in self.serve()]

    def kill(self):
        """End all of it as a power cut would."""
        for child in self.children:
            kill_with_descendants(child)


class FlaskSite(Site):
    name = "flask_site"

    def at(self, url):
        scheme, mark, place = (url or "").partition("://")
        return {"SHOP_SQLALCHEMY_DATABASE_URI": f"{DRIVERS[scheme]}{mark}{place}"} if url else {}

    def setup(self):
        return [("flask", "--app", "app", "setup")]

    def serve(self):
        return [("flask", "--app", "app", "run", "--port", str(self.port)), ("flask", "--app", "app", "flagsweep", "run")]


class FlaskInGunicorn(FlaskSite):
    """The site without a consumer beside it: one of two workers sweeps."""

    def at(self, url):
        return {**super().at(url), "FLAGSWEEP_MODE": "embedded"}

    def serve(self):
        options = ("--workers", "2", "--threads", "4", "--bind", f"127.0.0.1:{self.port}")
        return [("gunicorn", *options, "app:create_app()")]


class FastapiSite(Site):
    name = "fastapi_site"

    def setup(self):
        return [("flagsweep", "--app", "work:flags", "init")]

    def serve(self):
        return [("uvicorn", "app:app", "--port", str(self.port), "--log-level", "warning")]


class DjangoSite(Site):
    name = "django_site"

    def setup(self):
        return [("migrate",)]

    def serve(self):
        return [("runserver", "--noreload", str(self.port)), ("flagsweep", "run")]

    def call(self, *command):
        return self._spawn(sys.executable, "manage.py", *command, cwd=self.folder, env=self.env)


@pytest.fixture
def mails(spawn, tmp_path):
    return MailServer(spawn, tmp_path, free_port())


SITES = {
    "flask_site": (FlaskSite, None),
    "flask_site on postgresql": (FlaskSite, "postgres_url"),
    "flask_site on mysql": (FlaskSite, "mysql_url"),
    "flask_site in gunicorn": (FlaskInGunicorn, None),
    "fastapi_site": (FastapiSite, None),
    "django_site": (DjangoSite, None),
}


@pytest.fixture(params=SITES)
def site(request, tmp_path, spawn, env, mails):
    made, database = SITES[request.param]
    url = None if database is None else request.getfixturevalue(database)
    site = made(tmp_path / "site", spawn, {**env, "FLAGSWEEP_STATE_DIR": str(tmp_path / "state")}, mails.port, url)
    site.start()
    return site


@pytest.fixture
def shop(site, until):
    return Shop(site.port, until)


def test_every_mail_that_is_owed_comes_however_often_the_site_is_killed(site, shop, mails, until):
    people = [shop.sign_up(f"first-{number}") for number in range(PEOPLE // 2)]
    until(lambda: len(mails.accepted()) >= 4, 120)
    mails.freeze()  # From here on each of the consumer's threads has a mail in its hands, and the others wait.
    people += [shop.sign_up(f"second-{number}") for number in range(PEOPLE // 2)]
    assert len(set(people)) == PEOPLE and shop.sign_up("first-0") is None
    site.kill()
    mails.thaw()
    site.start()
    orders = [shop.order(user, 100 + user) for user in people]
    for order in orders:
        assert shop.pay(f"evt-{order}", order) == 204
    until(lambda: [id for id in mails.accepted() if id.startswith("<receipt")], 120)
    site.kill()
    site.start()
    for order in orders[:5]:
        assert shop.pay(f"evt-{order}", order) == 204  # The provider says it again, not having heard our answer, as it thinks.
    owed = {f"<welcome-{user}@shop.example>" for user in people} | {f"<receipt-{order}@shop.example>" for order in orders}
    with suppress(BaseException):
        until(lambda: set(mails.accepted()) >= owed, 120)
    accepted = mails.accepted()
    assert (owed - set(accepted), set(accepted) - owed) == (set(), set()), [c.log.read_text()[-2000:] for c in site.children]
    assert max(accepted.values()) <= 1 + 2, "a mail came again though nobody was killed"
    assert sum(accepted.values()) - len(accepted) <= 2 * 2 * THREADS, "more came again than ran, or had just run, at the kills"
    assert shop.ask("/")[1] == {"users": PEOPLE, "orders": PEOPLE, "paid": PEOPLE}


def test_an_export_is_written_behind_the_visitors_back(shop):
    user = shop.sign_up("ada")
    orders = [shop.order(user, cents) for cents in (100, 250)]
    header, *lines = shop.export()
    assert header == "order,email,cents,paid"
    assert [line.rpartition(",")[0] for line in lines] == [f"{orders[0]},ada@example.com,100", f"{orders[1]},ada@example.com,250"]


def test_a_webhook_that_nobody_signed_changes_nothing(shop):
    order = shop.order(shop.sign_up("ada"), 100)
    assert shop.pay("evt-1", order, b"another secret") == 403
    assert shop.pay("evt-1", order + 1) == 404
    assert shop.ask("/")[1]["paid"] == 0
