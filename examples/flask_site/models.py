"""The shop's tables, in SQLAlchemy's words."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What all tables have in common."""


db = SQLAlchemy(model_class=Base)


class User(db.Model):
    """Somebody who signed up."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    email: Mapped[str] = mapped_column(String(200), unique=True)


class Order(db.Model):
    """What somebody bought. Its column says that a receipt is owed, and nothing else has to."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    cents: Mapped[int]
    paid: Mapped[bool] = mapped_column(default=False)
    needs_receipt: Mapped[bool] = mapped_column(default=False, index=True)

    user: Mapped[User] = relationship()


class Payment(db.Model):
    """A message of the payment provider, by the name that it gives it: it sends each until we answer, and now and then twice."""

    __tablename__ = "payments"

    event: Mapped[str] = mapped_column(String(100), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Export(db.Model):
    """A list of all orders that somebody asked for."""

    __tablename__ = "exports"

    id: Mapped[int] = mapped_column(primary_key=True)
    ready: Mapped[bool] = mapped_column(default=False)
