"""One table of a site, as each layer maps it, and what a test does to it."""

import datetime
import uuid
from contextlib import closing, contextmanager

from layers import django_settings, set_django_up, sqlalchemy_url

ALIAS = "mapped"
NOW = datetime.datetime(2026, 1, 1, 10, 0, 0, 123456)


class Mapped:
    """Be a site: its model, how it names work, and its own transactions."""

    def __init__(self, url):
        self.url = url
        self.open()

    def close(self): ...


class DjangoSite(Mapped):
    def open(self):
        set_django_up()
        from django.db import connections, models

        connections.databases[ALIAS] = connections.configure_settings({"default": {}, ALIAS: django_settings(self.url)})[ALIAS]
        self.connection, self.given = ALIAS, ALIAS
        (self.Order, self.Ticket), self.models = django_models(), models
        with connections[ALIAS].schema_editor() as editor:
            editor.create_model(self.Order)
            editor.create_model(self.Ticket)
        connections[ALIAS].close()

    def add(self, cls=None, **values):
        with self.fresh():
            made = (cls or self.Order)._base_manager.using(ALIAS).create(**values)
            return made.pk

    def change(self, pk, cls=None, **values):
        with self.fresh():
            (cls or self.Order)._base_manager.using(ALIAS).filter(pk=pk).update(**values)

    def read(self, pk, name, cls=None):
        with self.fresh():
            return (cls or self.Order)._base_manager.using(ALIAS).values_list(name, flat=True).get(pk=pk)

    def fresh(self):
        from django.db import connections

        return closing(connections[ALIAS])

    @contextmanager
    def around(self):
        with self.fresh():
            yield

    def column(self, name, cls=None):
        return getattr(cls or self.Order, name)

    def condition(self):
        return self.Order.objects.filter(paid=True, sent=False)

    def changing(self, limit):
        return lambda: self.Order.objects.filter(number__gte=limit())

    def save(self, order):
        order.save()

    def close(self):
        from django.db import connections

        connections[ALIAS].close()
        del connections[ALIAS], connections.databases[ALIAS]


MODELS = []


def django_models():
    """Return the models, made once: Django keeps a register."""
    if MODELS:
        return MODELS
    from django.db import models

    class Manager(models.Manager):
        def get_queryset(self):
            return super().get_queryset().using(ALIAS).filter(hidden=False)

    class Order(models.Model):
        number = models.IntegerField(default=0)
        needs_receipt = models.BooleanField(default=False)
        owed_at = models.DateTimeField(null=True)
        paid = models.BooleanField(default=False)
        sent = models.BooleanField(default=False)
        hidden = models.BooleanField(default=False)
        objects = Manager()

        class Meta:
            app_label = "shop"
            db_table = "shop_order"

    class TicketManager(models.Manager):
        def get_queryset(self):
            return super().get_queryset().using(ALIAS)

    class Ticket(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        owed = models.BooleanField(default=True)
        objects = TicketManager()

        class Meta:
            app_label = "shop"
            db_table = "shop_ticket"

    MODELS.extend([Order, Ticket])
    return MODELS


class AlchemySite(Mapped):
    def open(self):
        from sqlalchemy import DateTime, create_engine
        from sqlalchemy.dialects.mysql import DATETIME
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

        class Base(DeclarativeBase): ...

        class Order(Base):
            __tablename__ = "shop_order"
            id: Mapped[int] = mapped_column(primary_key=True)
            number: Mapped[int] = mapped_column(default=0)
            needs_receipt: Mapped[bool] = mapped_column(default=False)
            owed_at: Mapped[datetime.datetime | None] = mapped_column(DateTime().with_variant(DATETIME(fsp=6), "mysql"))
            paid: Mapped[bool] = mapped_column(default=False)
            sent: Mapped[bool] = mapped_column(default=False)

        class Ticket(Base):
            __tablename__ = "shop_ticket"
            id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
            owed: Mapped[bool] = mapped_column(default=True)

        self.Order, self.Ticket = Order, Ticket
        self.engine = create_engine(sqlalchemy_url(self.url))
        Base.metadata.create_all(self.engine)
        self.given = self.session = scoped_session(sessionmaker(self.engine))

    def add(self, cls=None, **values):
        from sqlalchemy.orm import Session

        with Session(self.engine) as session, session.begin():
            made = (cls or self.Order)(**values)
            session.add(made)
            session.flush()
            return made.id

    def change(self, pk, cls=None, **values):
        from sqlalchemy import update

        with self.engine.begin() as connection:
            connection.execute(update(cls or self.Order).where((cls or self.Order).id == pk).values(**values))

    def read(self, pk, name, cls=None):
        from sqlalchemy import select

        cls = cls or self.Order
        with self.engine.connect() as connection:
            return connection.execute(select(getattr(cls, name)).where(cls.id == pk)).scalar_one()

    def column(self, name, cls=None):
        return getattr(cls or self.Order, name)

    def condition(self):
        return self.Order.paid & ~self.Order.sent

    def changing(self, limit):
        from sqlalchemy import select

        return lambda: select(self.Order).where(self.Order.number >= limit())

    def save(self, order):
        self.session.commit()

    def close(self):
        self.session.remove()
        self.engine.dispose()


SITES = {"django": DjangoSite, "sqlalchemy": AlchemySite}
