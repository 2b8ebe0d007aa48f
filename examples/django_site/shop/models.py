"""The shop's tables, in Django's words."""

from django.db import models


class User(models.Model):
    """Somebody who signed up."""

    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)


class Order(models.Model):
    """What somebody bought. Its column says that a receipt is owed, and nothing else has to."""

    user = models.ForeignKey(User, models.CASCADE)
    cents = models.IntegerField()
    paid = models.BooleanField(default=False)
    needs_receipt = models.BooleanField(default=False, db_index=True)


class Payment(models.Model):
    """A message of the payment provider, by the name that it gives it: it sends each until we answer, and now and then twice."""

    event = models.CharField(max_length=100, primary_key=True)
    order = models.ForeignKey(Order, models.CASCADE)


class Export(models.Model):
    """A list of all orders that somebody asked for."""

    ready = models.BooleanField(default=False)
