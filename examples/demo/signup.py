"""The site of the demo: people sign up, and everybody who did is owed a welcome mail.

`python signup.py people.csv` is the site, `flagsweep --app signup:flags run` the consumer beside it.
"""

import argparse
import csv
import os
import random
import smtplib
import time
from email.headerregistry import Address
from email.message import EmailMessage

from peewee import BooleanField, CharField, Model, SqliteDatabase

from flagsweep import Backoff, FlagSweep

THREADS = 4
MAIL_PORT = int(os.environ.get("SIGNUP_MAIL_PORT", "2525"))

database = SqliteDatabase(os.environ.get("SIGNUP_DATABASE", "signup.db"), timeout=10)
flags = FlagSweep(database, lanes={"mail": THREADS})


class User(Model):
    """Somebody who signed up. The Boolean column is the flag column: true means that a mail is owed."""

    name = CharField()
    email = CharField(unique=True)
    needs_welcome_email = BooleanField(default=True, index=True)

    class Meta:
        database = database


@flags.when(User.needs_welcome_email, lane="mail", backoff=Backoff(first=1, factor=1.2, cap=2), max_attempts=20)
def send_welcome_email(user):
    """Hand one mail to the mail server. Any answer but 250 is an exception, and the mail is tried again."""
    # Without a name of our own, smtplib would ask the resolver for one.
    with smtplib.SMTP("127.0.0.1", MAIL_PORT, local_hostname="signup.example", timeout=30) as server:
        server.send_message(welcome_mail(user))


def welcome_mail(user):
    """Write the mail. Its Message-ID depends on the user alone, so that a mail which comes twice can be told."""
    message = EmailMessage()
    local_part, _, domain = user.email.rpartition("@")
    message["From"] = Address("The sign-up site", "hello", "example.com")
    message["To"] = Address(user.name, local_part, domain)
    message["Subject"] = f"Welcome, {user.name}!"
    message["Message-ID"] = message_id(user.id)
    message.set_content(f"{user.name},\n\nit is good to have you here.\n")
    return message


def message_id(user_id):
    """Name the one mail that is owed to this user."""
    return f"<welcome-{user_id}@signup.example>"


def create_tables():
    """Prepare the database: once, before anything else."""
    flags.init()
    with database:
        database.create_tables([User])


def sign_up(people):
    """Commit some people together. The debt of their mails commits, or rolls back, with them."""
    with database.atomic():
        for person in people:
            User.create(name=person["name"], email=person["email"])


def in_small_groups(people, dice):
    """Cut the list into groups of one to four: now and then several people sign up in one transaction."""
    start = 0
    while start < len(people):
        size = dice.randint(1, 4)
        yield people[start : start + size]
        start += size


def main():
    """Let everybody in the CSV sign up, as fast as `--rate` says."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("people")
    parser.add_argument("--rate", type=float, default=40, help="sign-ups a second (default: 40)")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    dice = random.Random(f"{options.seed} sign-ups")
    with open(options.people, encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file))
    for group in in_small_groups(people, dice):
        time.sleep(len(group) * dice.uniform(0.5, 1.5) / options.rate)
        sign_up(group)
    print(f"{len(people)} people signed up", flush=True)


if __name__ == "__main__":
    main()
