"""The pytest plugin: a site's own FlagSweep in a fresh database, and nothing at all unless a fixture is asked for."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

pytest_plugins = ["pytester"]

WORK = """
from peewee import BooleanField, CharField, Model, SqliteDatabase
from flagsweep import FlagSweep

db = SqliteDatabase("site.db")
flags = FlagSweep(db)
done = []


class User(Model):
    email = CharField()
    needs_welcome = BooleanField(default=False)

    class Meta:
        database = db


@flags.handler(backoff="10s")
def send(user_id, how="ok"):
    if how == "fail":
        raise OSError("no mail server")
    done.append(user_id)


@flags.every("1h")
@flags.handler(lane="nightly")
def clean_up():
    send.raise_flag(user_id=0)


@flags.when(User.needs_welcome)
def greet(user):
    done.append(user.email)


def sign_up(email, fails=False):
    with db.atomic():
        send.raise_flag(user_id=User.create(email=email, needs_welcome=True).id)
        if fails:
            raise ValueError("no such address")
"""


@pytest.fixture
def site(pytester, env, monkeypatch):
    """Give `site(tests, **files)`: run a site's tests in a process of its own, with the plugin as it is installed."""
    for name in set(os.environ) - set(env):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(work=WORK)

    def site(tests, *options, work=WORK, **files):
        pytester.makepyfile(test_it=tests, work=work, **files)
        return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:django", *options, timeout=120)

    return site


def test_a_sites_tests_raise_sweep_and_assert_in_a_fresh_database_each(site, pytester):
    result = site(
        """
        import pytest, work

        @pytest.fixture(autouse=True)
        def tables(flags):
            flags.database.create_tables([work.User])
            work.done.clear()

        @pytest.mark.parametrize("again", [1, 2])
        def test_signing_up_sends_a_mail(flags, assert_raised, refute_raised, sweep_all, again):
            assert flags is work.flags
            work.sign_up("ada@example.com")
            assert assert_raised(work.send, user_id=1).payload == {"user_id": 1}
            assert sweep_all()["lowered"] >= 2
            refute_raised("send")
            assert sorted(map(str, work.done)) == ["0", "1", "ada@example.com"] or work.done == [1, "ada@example.com"]

        def test_a_sign_up_that_fails_raises_nothing(refute_raised):
            with pytest.raises(ValueError):
                work.sign_up("ada@example.com", fails=True)
            refute_raised(work.send)
            assert work.User.select().count() == 0

        def test_what_a_handler_raised_fails_the_test_and_is_tried_again_by_the_clock(sweep_all, fake_clock, assert_raised):
            work.send.raise_flag(7, "fail")
            with pytest.raises(OSError, match="no mail server"):
                sweep_all()
            assert assert_raised(work.send, user_id=7).attempts == 1
            assert sweep_all() == {}
            fake_clock.advance("11s")
            with pytest.raises(OSError):
                sweep_all()

        def test_schedules_go_by_the_clock_and_what_they_raise_in_another_lane_is_swept_too(sweep_all, fake_clock):
            sweep_all()
            work.done.clear()
            fake_clock.advance("1h")
            assert sweep_all()["lowered"] == 2
            assert work.done == [0]

        def test_delays_go_by_the_clock(sweep_all, fake_clock):
            work.send.using(delay="5m").raise_flag(9)
            sweep_all()
            assert 9 not in work.done
            fake_clock.advance("5m")
            sweep_all()
            assert 9 in work.done
        """
    )
    result.assert_outcomes(passed=6)
    assert not (pytester.path / "site.db").exists(), "the site's own database was touched"


@pytest.mark.parametrize(
    ("database", "name"),
    [
        ('"sqlite:///site.db"', "a URL"),
        ("None", "none yet"),
        ('SqliteDatabase(":memory:")', "memory"),
        ("DatabaseProxy()", "a proxy"),
    ],
    ids=lambda value: value if " " not in value else None,
)
def test_wherever_the_sites_own_database_is_the_test_has_a_fresh_one(site, pytester, database, name):
    work = f"""
    from peewee import DatabaseProxy, SqliteDatabase
    from flagsweep import FlagSweep
    flags = FlagSweep({database})

    @flags.handler
    def send(n): ...

    def make_site(url):
        flags.configure(shutdown_timeout=3)
    """
    result = site(
        """
        import pytest, work

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(flags, sweep_all, n):
            work.make_site("of no account")
            assert flags.find() == []
            with flags.database.atomic():
                work.send.raise_flag(n)
            assert sweep_all() == {"lowered": 1}
            work.send.raise_flag(n)
        """,
        work=work,
    )
    result.assert_outcomes(passed=2)
    assert not (pytester.path / "site.db").exists()


def test_a_database_of_the_sites_choice_is_emptied_before_and_afterwards(site, pytester, db_path):
    result = site(
        """
        import pytest, work

        @pytest.fixture
        def flagsweep_database(tmp_path_factory):
            return tmp_path_factory.getbasetemp() / "kept.db"

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(flags, n):
            assert flags.path.name == "kept.db" and flags.find() == []
            work.send.raise_flag(n)
            assert len(flags.find()) == 1
        """,
        work=WORK.replace("@flags.when(User.needs_welcome)\n", ""),
    )
    result.assert_outcomes(passed=2)


def test_which_flagsweep_is_said_in_pytests_settings_or_by_a_fixture(site, pytester):
    test = "def test_it(flags): assert [*flags.handlers] == ['other']"
    other = "from flagsweep import FlagSweep\nmine = FlagSweep('site.db')\n@mine.handler\ndef other(): ..."
    pytester.makepyfile(shop=other)
    pytester.makeini("[pytest]\nflagsweep_app = shop:mine\n")
    site(test).assert_outcomes(passed=1)
    pytester.makeini("[pytest]\n")
    fixture = "import pytest, shop\n@pytest.fixture\ndef flagsweep_app(): return shop.mine"
    site(test, conftest=fixture).assert_outcomes(passed=1)
    (pytester.path / "work.py").unlink()
    pytester.makepyfile(conftest="")
    pytester.makepyfile(test_it=test)
    result = pytester.runpytest_subprocess("-q", "-p", "no:django", timeout=60)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*flagsweep_app = work:flags*"])


def test_a_sites_own_fixture_of_the_name_wins(site):
    fixture = "import pytest\n@pytest.fixture\ndef flags(): return 'own'"
    site("def test_it(flags): assert flags == 'own'", conftest=fixture).assert_outcomes(passed=1)


def test_it_can_be_turned_off(site):
    result = site("def test_it(flags): ...", "-p", "no:flagsweep")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'flags' not found*"])


def test_tests_that_ask_for_none_of_it_import_nothing_of_it(site):
    site(
        """
        import sys

        def test_it(request):
            assert request.config.pluginmanager.has_plugin("flagsweep")
            assert not {"huey", "peewee", "flagsweep.app", "flagsweep.testing.crashes"} & set(sys.modules)
        """
    ).assert_outcomes(passed=1)


def test_importing_it_costs_next_to_nothing(env):
    source = "import pytest, sys; before = set(sys.modules); import flagsweep.testing.plugin; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60)
    ours = sorted(name for name in done.stdout.split() if name.startswith("flagsweep"))
    assert ours == ["flagsweep", "flagsweep.errors", "flagsweep.modules", "flagsweep.testing", "flagsweep.testing.plugin"]
    assert len(done.stdout.split()) < 15, done.stdout + done.stderr


def test_a_site_within_a_transaction_is_told_to_leave_it(site):
    result = site(
        """
        import pytest, work

        def test_it(request):
            with work.db.atomic():
                request.getfixturevalue("flags")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the site is within a transaction on site.db*"])
