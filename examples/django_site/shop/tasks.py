"""What the shop does later, as tasks of Django's: ``enqueue`` writes a flag, in the transaction that is open."""

import csv
import os

from django.conf import settings
from django.core.mail import EmailMessage

from .models import Export, Order, Payment, User

try:
    from django.tasks import task
except ImportError:  # Before Django 6.
    from django_tasks import task


@task(queue_name="mail")
def send_welcome(user_id):
    """Welcome somebody who signed up."""
    user = User.objects.get(pk=user_id)
    send_mail(user, f"welcome-{user.pk}", f"Welcome, {user.name}!", "It is good to have you here.")


@task()
def take_payment(event):
    """Have an order be paid, and its receipt be owed: both at once, and once, however often this is done."""
    order = Payment.objects.get(pk=event).order_id
    Order.objects.filter(pk=order, paid=False).update(paid=True, needs_receipt=True)


@task()
def write_export(export_id):
    """Write all orders into a file, which is there as a whole or not at all."""
    path = export_path(export_id)
    path.parent.mkdir(exist_ok=True)
    with open(f"{path}.part", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("order", "email", "cents", "paid"))
        rows.writerows(Order.objects.order_by("pk").values_list("pk", "user__email", "cents", "paid"))
    os.replace(f"{path}.part", path)
    Export.objects.filter(pk=export_id).update(ready=True)


def export_path(export_id):
    """Return where the file of an export is."""
    return settings.EXPORTS / f"orders-{export_id}.csv"


def send_mail(user, name, subject, text):
    """Hand a mail to the mail server; any answer but yes is an exception, and it is tried again.

    :param name: of this one mail, at each try: one that comes twice, after a crash, can be told by it.
    """
    named = {"Message-ID": f"<{name}@shop.example>"}
    EmailMessage(subject, f"{user.name},\n\n{text}\n", to=[user.email], headers=named).send()
