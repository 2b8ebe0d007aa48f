"""The work that the shop owes: each handler does one flag."""

import csv
import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

from flagsweep import Backoff, FlagSweep
from models import Export, Order, Payment, User, database

flags = FlagSweep(database, mode="embedded", lanes={"mail": 4, "default": 2})

MAIL = {"lane": "mail", "backoff": Backoff(first=1, factor=2, cap="10m"), "max_attempts": 12}
MAIL_SERVER = os.environ.get("SHOP_MAIL_HOST", "127.0.0.1"), int(os.environ.get("SHOP_MAIL_PORT", "2525"))


@flags.handler(**MAIL)
def send_welcome(user_id):
    """Welcome somebody who signed up."""
    user = User.get_by_id(user_id)
    post(user, f"welcome-{user.id}", f"Welcome, {user.name}!", "It is good to have you here.")


@flags.when(Order.needs_receipt, **MAIL)
def send_receipt(order):
    """Send the receipt of an order that is paid. The column is lowered after it."""
    text = f"You have paid {order.cents / 100:.2f} for order {order.id}."
    post(order.user, f"receipt-{order.id}", f"Receipt for order {order.id}", text)


@flags.handler(atomic=True)
def take_payment(event):
    """Have an order be paid, and its receipt be owed, in the transaction that lowers the flag: exactly once."""
    order = Payment.get_by_id(event).order
    Order.update(paid=True, needs_receipt=True).where(Order.id == order.id, ~Order.paid).execute()


@flags.handler
def write_export(export_id):
    """Write all orders into a file, which is there as a whole or not at all."""
    done, part = export_path(export_id), export_path(export_id).with_suffix(".part")
    orders = Order.select(Order.id, User.email, Order.cents, Order.paid).join(User).order_by(Order.id)
    with part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("order", "email", "cents", "paid"), *orders.tuples()])
    part.replace(done)
    Export.update(ready=True).where(Export.id == export_id).execute()


def export_path(export_id):
    """Return where the file of an export is."""
    return Path(database.database).absolute().with_name(f"orders-{export_id}.csv")


def post(user, name, subject, text):
    """Hand a mail to the mail server; any answer but yes is an exception, and it is tried again.

    :param name: of this one mail, at each try: one that comes twice, after a crash, can be told by it.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@shop.example", user.email, subject
    mail["Message-ID"] = f"<{name}@shop.example>"
    mail.set_content(f"{user.name},\n\n{text}\n")
    with smtplib.SMTP(*MAIL_SERVER, local_hostname="shop.example", timeout=30) as server:
        server.send_message(mail)
