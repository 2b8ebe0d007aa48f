"""A site with schedules, whose clock stands still until it is told to go on."""

from flagsweep import FlagSweep
from flagsweep.consumer.firing import Firing
from flagsweep.models import Schedule, bump

MINUTE, HOUR, DAY = 60, 3600, 86400


class Site:
    """A site with a handler that notes for which times it runs, and that can be started anew with other code."""

    def __init__(self, url, clock, state):
        self.clock = clock
        self.ran = []
        self._make = lambda **settings: FlagSweep(url, clock=clock, state_dir=state, threads=1, **settings)
        self.flags = self.begin()
        self.flags.init()

    def begin(self, **options):
        """Deploy: the same database, code that declares nothing yet."""
        self.flags = self._make(**options)
        self.handler = self.declare("work")
        return self.flags

    def declare(self, kind, **options):
        def work(n=0, flag=None):
            self.ran.append((kind, n, flag.intended, flag.missed))

        return self.flags.handler(kind, **options)(work)

    def sweep(self, seconds=0):
        self.clock.advance(seconds)
        self.ran.clear()
        self.flags.sweep()
        return [(shown(intended), missed) for _, _, intended, missed in self.ran]

    def row(self, name="work"):
        return next((row for row in self.rows() if row.name == name), None)

    def rows(self):
        with self.flags.connections.lent("") as db:
            return list(Schedule.select().order_by(Schedule.name).execute(db))

    def set(self, name="work", **values):
        with self.flags.connections.lent("") as db:
            Schedule.update(values).where(Schedule.name == name).execute(db)

    def bump(self):
        """Have consumers read the schedules again, as after every change that is made by a command."""
        with self.flags.connections.lent("") as db:
            bump(db)


def shown(moment):
    return None if moment is None else f"{moment:%H:%M}"


def fire(flags):
    """Fire what is due, as a consumer does that stops before it sweeps."""
    duties = flags._duties()
    handlers = duties.handlers or {"slow": flags.handler("slow")(lambda n=0: None)}
    Firing(flags.store, handlers, flags.clock).fire()
    flags.connections.close_engine()
