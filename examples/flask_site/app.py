"""The shop: people sign up, order and pay. What takes time is a flag, which commits with what it is owed for."""

import hashlib
import hmac
import os

from flask import Blueprint, Flask, abort, current_app, request, send_file
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from work import export_path, flags, send_welcome, take_payment, write_export

from flagsweep.embed.flask import init_app
from models import Export, Order, Payment, User, db

shop = Blueprint("shop", __name__)


def create_app():
    """Make the application. Its configuration comes from variables such as SHOP_MAIL_PORT."""
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI="sqlite:///shop.db", MAIL_HOST="127.0.0.1", MAIL_PORT=2525, WEBHOOK_SECRET="change me"
    )
    app.config.from_prefixed_env("SHOP")
    os.makedirs(app.instance_path, exist_ok=True)
    db.init_app(app)
    init_app(app, flags)
    app.register_blueprint(shop)
    app.cli.command("setup")(setup)
    return app


def setup():
    """Make the tables: the shop's, and those of the flags."""
    db.create_all()
    flags.init()


@shop.get("/")
def overview():
    """Show how it goes."""
    paid = db.select(func.count()).where(Order.paid)
    counted = {"users": db.select(func.count(User.id)), "orders": db.select(func.count(Order.id)), "paid": paid}
    return {name: db.session.scalar(query) for name, query in counted.items()}


@shop.post("/users")
def sign_up():
    """Let somebody in; the welcome mail is owed from the moment at which they are."""
    user = User(name=request.json["name"], email=request.json["email"])
    db.session.add(user)
    try:
        db.session.flush()
    except IntegrityError:
        abort(409, "somebody has this address already")
    send_welcome.raise_flag(user.id)
    db.session.commit()
    return {"id": user.id}, 201


@shop.post("/orders")
def buy():
    """Take an order."""
    order = Order(user=db.get_or_404(User, request.json["user"]), cents=request.json["cents"])
    db.session.add(order)
    db.session.commit()
    return {"id": order.id}, 201


@shop.post("/payments")
def hear_of_payment():
    """Keep what the payment provider says, and answer at once: what follows from it is a flag's."""
    signed = hmac.new(current_app.config["WEBHOOK_SECRET"].encode(), request.get_data(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signed, request.headers.get("X-Signature", "")):
        abort(403)
    payment = Payment(event=request.json["event"], order_id=db.get_or_404(Order, request.json["order"]).id)
    db.session.add(payment)
    try:
        db.session.flush()
    except IntegrityError:
        return "", 204  # It was here before.
    take_payment.raise_flag(payment.event)
    db.session.commit()
    return "", 204


@shop.post("/exports")
def ask_for_export():
    """Have all orders be written into a file."""
    export = Export()
    db.session.add(export)
    db.session.flush()
    write_export.raise_flag(export.id)
    db.session.commit()
    return {"id": export.id}, 202


@shop.get("/exports/<int:export_id>")
def fetch_export(export_id):
    """Hand the file out once it is there."""
    if not db.get_or_404(Export, export_id).ready:
        return {"ready": False}, 202
    return send_file(export_path(export_id), mimetype="text/csv")
