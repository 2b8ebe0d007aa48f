"""The work that the shop owes: each handler does one flag, in the application's context, with a session of its own."""

import csv
import os
import smtplib
from email.message import EmailMessage

from flask import current_app

from flagsweep import Backoff, FlagSweep
from models import Export, Order, Payment, User, db

flags = FlagSweep(lanes={"mail": 4, "default": 2})

MAIL = {"lane": "mail", "backoff": Backoff(first=1, factor=2, cap="10m"), "max_attempts": 12}


@flags.handler(**MAIL)
def send_welcome(user_id):
    """Welcome somebody who signed up."""
    user = db.session.get(User, user_id)
    send_mail(user, f"<welcome-{user.id}@shop.example>", f"Welcome, {user.name}!", "It is good to have you here.")


@flags.when(Order.needs_receipt, **MAIL)
def send_receipt(order):
    """Send the receipt of an order that is paid. The column is lowered after it."""
    text = f"You have paid {order.cents / 100:.2f} for order {order.id}."
    send_mail(order.user, f"<receipt-{order.id}@shop.example>", f"Receipt for order {order.id}", text)


@flags.handler
def take_payment(event):
    """Have an order be paid, and its receipt be owed: both commit together, and once, however often this is done."""
    order = db.session.get(Order, db.session.get(Payment, event).order_id)
    if not order.paid:
        order.paid = order.needs_receipt = True
        db.session.commit()


@flags.handler
def write_export(export_id):
    """Write all orders into a file, which is there as a whole or not at all."""
    export = db.session.get(Export, export_id)
    path = export_path(export.id)
    with open(f"{path}.part", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("order", "email", "cents", "paid"))
        for order in db.session.scalars(db.select(Order).order_by(Order.id)):
            rows.writerow((order.id, order.user.email, order.cents, order.paid))
    os.replace(f"{path}.part", path)
    export.ready = True
    db.session.commit()


def export_path(export_id):
    """Return where the file of an export is."""
    return os.path.join(current_app.instance_path, f"orders-{export_id}.csv")


def send_mail(user, id, subject, text):
    """Hand a mail to the mail server; any answer but yes is an exception, and it is tried again.

    :param id: the same at each try, so that a mail which comes twice, after a crash, can be told.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"], mail["Message-ID"] = "shop@shop.example", user.email, subject, id
    mail.set_content(f"{user.name},\n\n{text}\n")
    where = current_app.config["MAIL_HOST"], current_app.config["MAIL_PORT"]
    with smtplib.SMTP(*where, local_hostname="shop.example", timeout=30) as server:
        server.send_message(mail)
