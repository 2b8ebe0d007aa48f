"""The shop's tables, in Peewee's words."""

import os

from peewee import BooleanField, CharField, ForeignKeyField, IntegerField, Model, SqliteDatabase

database = SqliteDatabase(os.environ.get("SHOP_DATABASE", "shop.db"), pragmas={"foreign_keys": 1}, timeout=10)


class Table(Model):
    """What all tables have in common."""

    class Meta:
        database = database


class User(Table):
    """Somebody who signed up."""

    name = CharField()
    email = CharField(unique=True)


class Order(Table):
    """What somebody bought. Its column says that a receipt is owed, and nothing else has to."""

    user = ForeignKeyField(User)
    cents = IntegerField()
    paid = BooleanField(default=False)
    needs_receipt = BooleanField(default=False, index=True)


class Payment(Table):
    """A message of the payment provider, by the name that it gives it: it sends each until we answer, and now and then twice."""

    event = CharField(primary_key=True)
    order = ForeignKeyField(Order)


class Export(Table):
    """A list of all orders that somebody asked for."""

    ready = BooleanField(default=False)
