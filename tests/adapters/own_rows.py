"""The tables of a site whose own rows are work, and another program that writes them."""

import uuid

from peewee import (
    AutoField,
    BooleanField,
    CharField,
    DateTimeField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
    TimestampField,
    UUIDField,
)
from rig import plain


class User(Model):
    email = TextField(default="")
    owed = BooleanField(default=False)
    owed_at = DateTimeField(null=True)
    paid = IntegerField(default=0)
    sent = BooleanField(default=False)

    class Meta:
        table_name = "user"


class Order(Model):
    user = IntegerField(default=0)
    paid = BooleanField(default=False)

    class Meta:
        table_name = "orders"


class Named(Model):
    name = CharField(primary_key=True)
    owed = BooleanField(default=True)


class Unique(Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owed = BooleanField(default=True)


class Profile(Model):
    user = ForeignKeyField(User, primary_key=True)
    owed = BooleanField(default=True)


class Stamped(Model):
    id = AutoField(column_name="stamp_id")
    owed_at = TimestampField(null=True, default=None, column_name="due")


MODELS = (User, Order, Named, Unique, Profile, Stamped)


def add(db_path, **columns):
    """Insert a user as another program would, and return its id."""
    values = {"email": "", "owed": 0, "paid": 0, "sent": 0, **columns}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    plain(db_path, f"INSERT INTO user ({names}) VALUES ({marks})", *values.values())
    return plain(db_path, "SELECT max(id) FROM user")[0][0]


def column(db_path, name, id=1):
    return plain(db_path, f"SELECT {name} FROM user WHERE id = ?", id)[0][0]
