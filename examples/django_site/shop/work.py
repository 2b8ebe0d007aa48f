"""What the shop owes because a row says so."""

from flagsweep import Backoff
from flagsweep.embed.django import flags

from .models import Order
from .tasks import send_mail


@flags.when(Order.needs_receipt, lane="mail", backoff=Backoff(first=1, cap="10m"), max_attempts=12)
def send_receipt(order):
    """Send the receipt of an order that is paid. The column is lowered after it."""
    text = f"You have paid {order.cents / 100:.2f} for order {order.pk}."
    send_mail(order.user, f"receipt-{order.pk}", f"Receipt for order {order.pk}", text)
