"""The shop: people sign up, order and pay. What takes time is a flag, which commits with what it is owed for.

There is no other process: the server sweeps, between its requests.
"""

import hashlib
import hmac
import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from peewee import IntegrityError
from pydantic import BaseModel
from work import export_path, flags, send_welcome, take_payment, write_export

from flagsweep.embed.asgi import lifespan
from models import Export, Order, Payment, User, database

SECRET = os.environ.get("SHOP_WEBHOOK_SECRET", "change me").encode()


class NewUser(BaseModel):
    """What a sign-up says."""

    name: str
    email: str


class NewOrder(BaseModel):
    """What an order says."""

    user: int
    cents: int


class Event(BaseModel):
    """What the payment provider says."""

    event: str
    order: int


@asynccontextmanager
async def life(app):
    """Make the shop's tables before anything is swept."""
    with database:
        database.create_tables([User, Order, Payment, Export])
    async with lifespan(flags)(app):
        yield


app = FastAPI(title="A shop", lifespan=life)


@app.get("/")
def overview():
    """Show how it goes."""
    with database:
        paid = Order.select().where(Order.paid).count()
        return {"users": User.select().count(), "orders": Order.select().count(), "paid": paid}


@app.post("/users", status_code=201)
def sign_up(new: NewUser):
    """Let somebody in; the welcome mail is owed from the moment at which they are."""
    try:
        with database:  # Connected, and in a transaction.
            user = User.create(name=new.name, email=new.email)
            send_welcome.raise_flag(user.id)
    except IntegrityError:
        raise HTTPException(409, "somebody has this address already") from None
    return {"id": user.id}


@app.post("/orders", status_code=201)
def buy(new: NewOrder):
    """Take an order."""
    with database:
        if User.get_or_none(id=new.user) is None:
            raise HTTPException(404)
        return {"id": Order.create(user=new.user, cents=new.cents).id}


@app.post("/payments", status_code=204)
async def hear_of_payment(request: Request, x_signature: Annotated[str, Header()] = ""):
    """Keep what the payment provider says, and answer at once: what follows from it is a flag's."""
    body = await request.body()
    if not hmac.compare_digest(hmac.new(SECRET, body, hashlib.sha256).hexdigest(), x_signature):
        raise HTTPException(403)
    await run_in_threadpool(keep, Event.model_validate_json(body))
    return Response(status_code=204)


def keep(message: Event):
    """Note a message that was not here before, and what is owed for it."""
    with database:
        if Order.get_or_none(id=message.order) is None:
            raise HTTPException(404)
        if Payment.insert(event=message.event, order=message.order).on_conflict_ignore().execute():
            take_payment.raise_flag(message.event)


@app.post("/exports", status_code=202)
def ask_for_export():
    """Have all orders be written into a file."""
    with database:
        export = Export.create()
        write_export.raise_flag(export.id)
    return {"id": export.id}


@app.get("/exports/{export_id}")
def fetch_export(export_id: int, response: Response):
    """Hand the file out once it is there."""
    with database:
        if (export := Export.get_or_none(id=export_id)) is None:
            raise HTTPException(404)
    if export.ready:
        return FileResponse(export_path(export_id), media_type="text/csv")
    response.status_code = 202
    return {"ready": False}
