"""Assertions about flags that are up."""

import pytest
from peewee import BooleanField, Model

from flagsweep import SignatureError, UnknownKind
from flagsweep.testing import assert_raised, drain, refute_raised


def test_assert_raised_returns_the_flag_that_has_the_arguments(flags, send):
    first, second = send.raise_flag(1), send.raise_flag(2, text="bye")
    assert assert_raised(flags, "send").id == first.id
    assert assert_raised(flags, send, user_id=2).id == second.id
    assert assert_raised(flags, send, text="hello").id == first.id, "a default counts as given"
    assert assert_raised(flags, send, user_id=2, text="bye").payload == {"user_id": 2, "text": "bye"}


def test_assert_raised_says_what_is_up_instead(flags, send):
    send.raise_flag(1)
    with pytest.raises(AssertionError, match=r"no flag of send with \{'user_id': 2\} is up; up are: \{'user_id': 1\}"):
        assert_raised(flags, send, user_id=2)


def test_refute_raised_names_the_flag_that_is_up(flags, send):
    send.raise_flag(1)
    refute_raised(flags, send, user_id=2)
    with pytest.raises(AssertionError, match="flag 1 of send is up"):
        refute_raised(flags, send)
    drain(flags)
    refute_raised(flags, send)


@pytest.mark.parametrize("check", [assert_raised, refute_raised])
def test_a_slip_of_the_keyboard_does_not_pass_for_a_flag_that_is_not_up(flags, send, check):
    with pytest.raises(SignatureError, match="has no argument usr_id"):
        check(flags, send, usr_id=1)
    with pytest.raises(UnknownKind):
        check(flags, "sned")


def test_own_rows_are_asserted_by_instance_or_by_primary_key(flags, send):
    class User(Model):
        new = BooleanField(default=True)

        class Meta:
            database = flags.database

    @flags.when(User.new)
    def greet(user): ...

    with flags.database.connection_context():
        flags.database.create_tables([User])
        user = User.create()
    greet.raise_flag(user)
    assert assert_raised(flags, greet, user=user) == assert_raised(flags, "greet", user=user.id) == assert_raised(flags, greet)
    refute_raised(flags, greet, user=99)


def test_arguments_are_compared_as_json_keeps_them(flags):
    @flags.handler
    def tag(names): ...

    tag.raise_flag(("a", "b"))
    assert_raised(flags, tag, names=("a", "b"))
    assert_raised(flags, tag, names=["a", "b"])
