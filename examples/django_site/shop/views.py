"""The shop's pages: people sign up, order and pay. What takes time is enqueued in the transaction that it is owed for."""

import hashlib
import hmac
import json

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import FileResponse, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from .models import Export, Order, Payment, User
from .tasks import export_path, send_welcome, take_payment, write_export


@require_GET
def overview(request):
    """Show how it goes."""
    paid = Order.objects.filter(paid=True).count()
    return JsonResponse({"users": User.objects.count(), "orders": Order.objects.count(), "paid": paid})


@csrf_exempt
@require_POST
def sign_up(request):
    """Let somebody in; the welcome mail is owed from the moment at which they are."""
    told = json.loads(request.body)
    try:
        with transaction.atomic():
            user = User.objects.create(name=told["name"], email=told["email"])
            send_welcome.enqueue(user.pk)
    except IntegrityError:
        return HttpResponse("somebody has this address already", status=409)
    return JsonResponse({"id": user.pk}, status=201)


@csrf_exempt
@require_POST
def buy(request):
    """Take an order."""
    told = json.loads(request.body)
    order = Order.objects.create(user=get_object_or_404(User, pk=told["user"]), cents=told["cents"])
    return JsonResponse({"id": order.pk}, status=201)


@csrf_exempt
@require_POST
def hear_of_payment(request):
    """Keep what the payment provider says, and answer at once: what follows from it is a task's."""
    signed = hmac.new(settings.WEBHOOK_SECRET.encode(), request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signed, request.headers.get("X-Signature", "")):
        return HttpResponse(status=403)
    told = json.loads(request.body)
    order = get_object_or_404(Order, pk=told["order"])
    with transaction.atomic():
        payment, is_new = Payment.objects.get_or_create(event=told["event"], defaults={"order": order})
        if is_new:
            take_payment.enqueue(payment.event)
    return HttpResponse(status=204)


@csrf_exempt
@require_POST
def ask_for_export(request):
    """Have all orders be written into a file."""
    with transaction.atomic():
        export = Export.objects.create()
        write_export.enqueue(export.pk)
    return JsonResponse({"id": export.pk}, status=202)


@require_GET
def fetch_export(request, export_id):
    """Hand the file out once it is there."""
    if not get_object_or_404(Export, pk=export_id).ready:
        return JsonResponse({"ready": False}, status=202)
    return FileResponse(export_path(export_id).open("rb"), content_type="text/csv")
