"""The smallest whole program: a flag that commits with the data, and a sweep. Run it: `python plain.py`."""

from peewee import CharField, Model, SqliteDatabase

from flagsweep import FlagSweep

database = SqliteDatabase("site.db")
flags = FlagSweep(database)


class User(Model):
    email = CharField()

    class Meta:
        database = database


@flags.handler(lane="mail", max_attempts=8)
def send_welcome_email(user_id):
    print("Welcome,", User.get_by_id(user_id).email)


def sign_up(email):
    with database.atomic():  # the flag commits, or rolls back, with the data
        user = User.create(email=email)
        send_welcome_email.raise_flag(user_id=user.id)


if __name__ == "__main__":
    flags.init()
    database.create_tables([User])
    sign_up("minji@example.com")
    print(flags.sweep())  # and for good, in a process of its own: flagsweep --app plain:flags run
