"""A world with schedules: of each policy, in zones whose clocks change, beside clocks that are set and consumers that vanish.

What is fired is seen by triggers in the database, in the transaction that fires it. The chain of a schedule's next times covers
all time: each link accounts for exactly the occurrences that lie in it, and where a wrong clock's link is taken back, nothing
that has run is within. So none is missed and none is doubled.
"""

from world import HOUR, JUMPS, OUTCOMES, YEAR, Vanished, World

from flagsweep.config import SECOND
from flagsweep.schedules import parse
from flagsweep.schedules.catching import AHEAD, COUNTED

TABLE = (
    ("every", "7m", "UTC", {"missed": "once"}),
    ("every", "1d", "UTC", {"missed": "all", "cap": 20}),
    ("every", "36h", "UTC", {"missed": "skip", "grace": "6h"}),
    ("cron", "0 * * * *", "Australia/Lord_Howe", {"missed": "once"}),
    ("cron", "*/20 * * * *", "Africa/Cairo", {"missed": "skip", "grace": "5m"}),
    ("cron", "30 2 * * *", "America/New_York", {"missed": "once"}),
    ("cron", "15 1,13 * * *", "Europe/Berlin", {"missed": "all"}),
    ("cron", "0 0 * * *", "America/Santiago", {"missed": "all", "cap": 3}),
    ("cron", "0 3 * * *", "Asia/Seoul", {"missed": "skip", "grace": "1h"}),
    ("cron", "30 1 * * 0", "Asia/Beirut", {"missed": "once"}),
)
"""Sort, spec, zone and policy of each schedule; its number is its handler's argument."""

LOG = """
CREATE TABLE fired (n INTEGER PRIMARY KEY, what TEXT, name TEXT, one INTEGER, two INTEGER, three INTEGER);
CREATE TRIGGER links AFTER UPDATE OF next_at ON flagsweep_schedule BEGIN
  INSERT INTO fired (what, name, one, two, three)
  VALUES (CASE WHEN NEW.last_at IS NULL AND OLD.last_at IS NOT NULL THEN 'forgot' ELSE 'link' END, NEW.name,
          OLD.next_at, NEW.next_at, NEW.skipped - OLD.skipped); END;
CREATE TRIGGER raised AFTER INSERT ON flagsweep_flag WHEN NEW.intended IS NOT NULL BEGIN
  INSERT INTO fired (what, name, one, two, three) VALUES ('raise', NEW.schedule, NEW.intended, NEW.missed, 0); END;
CREATE TRIGGER raised_again AFTER UPDATE OF generation ON flagsweep_flag
WHEN NEW.intended IS NOT OLD.intended OR NEW.missed <> OLD.missed BEGIN
  INSERT INTO fired (what, name, one, two, three)
  VALUES ('raise', NEW.schedule, NEW.intended,
          CASE WHEN OLD.intended IS NULL THEN NEW.missed ELSE NEW.missed - OLD.missed - 1 END, 0); END;
"""


class Line:
    """Follow one schedule through all that is fired for it."""

    def __init__(self, sort, text, zone, policy):
        self.spec, self.policy, self.cap = parse(sort, text, zone), policy["missed"], policy.get("cap", 100)
        self.last = None
        """The last occurrence that has run, by the clock of that time."""
        self.believed = None
        """The last that has run while the clock was right."""
        self.counts = True
        """Whether the occurrences of the latest link are counted: those of ten years take long, and most of them are left out."""
        self.owed = self.raised = self.ran = 0
        """Occurrences of the latest link that no raise has answered for; of all raises; of all runs that are settled."""

    def link(self, old, new, skipped, now):
        """Take a step of the next time; yield what is wrong with it."""
        if self.owed:
            yield f"{self.owed} occurrences were neither run nor skipped"
        self.owed = 0
        self.counts = new - old < YEAR * SECOND
        if new > old and self.counts:
            limit = self.cap + COUNTED if self.policy == "all" else COUNTED
            self.owed = self.spec.count(old - 1, new - 1, limit, old) - skipped
        elif new < old:
            yield from self.waits(new, now)

    def forget(self, new, now):
        """Begin anew after a clock that was years ahead; yield what is wrong with it."""
        if self.last is None or self.last <= now + AHEAD:
            yield f"{self.last} was forgotten at {now}"
        self.last = self.believed
        yield from self.waits(new, now)

    def waits(self, new, now):
        """Yield what is wrong with a next time that was set anew: not later than it should be, and later than what has run."""
        last = self.last_at(now)
        if new > self.spec.next(max(now, last), new):
            yield f"waits for {new} at {now}"
        if new <= last:
            yield f"waits for {new} again"

    def last_at(self, now):
        """Return the last occurrence that has run, or 0; what a clock has fired that was years ahead does not count."""
        last = self.last if self.last is None or self.last <= now + AHEAD else self.believed
        return last or 0

    def hear(self, intended, missed, now, right):
        """Take a raise; yield what is wrong with it.

        :param right: whether the clock was.
        """
        self.owed -= (missed + 1) * self.counts
        self.raised += missed + 1
        if self.last is not None and intended <= self.last:
            yield f"{intended} fired after {self.last}: twice"
        if self.spec.latest(intended, intended - 1, intended) != intended or intended > now:
            yield f"{intended} is no time of it at {now}"
        self.last = intended
        if right:
            self.believed = intended


class Timetable(World):
    """A world in which schedules fire, too."""

    weights = (6, 20, 40, 4, 2, 3, 25, 8, 1)
    outcomes = OUTCOMES
    fuses = 0.2
    calm_after = 40
    jumps = (*JUMPS[:-1] * 4, JUMPS[-1])  # To count what was missed in ten years takes long.

    def __init__(self, database, seed):
        super().__init__(database, seed)
        tick = self.flags.handler("tick", max_attempts=1000, backoff=10)(self.tick)
        for number, (sort, text, zone, policy) in enumerate(TABLE):
            getattr(tick, sort)(text, name=f"s{number}", tz=zone, arguments={"n": number}, **policy)
        self.flags.database.connection().executescript(LOG)
        self.lines = {f"s{number}": Line(*each) for number, each in enumerate(TABLE)}
        self.heard = 0
        self.off = 0
        self.ticks = {}
        """By (id, token): the schedule of a run that is done, and for how many occurrences it stands."""

    # The handler.

    def tick(self, n, flag):
        crew = self.on_stage[-1]
        if crew.gone:
            raise Vanished("before a handler")
        self.must(self.running.get(flag.id) is None, f"flag {flag.id} runs twice at one time")
        self.running[flag.id] = crew
        try:
            if not self.calm and self.depth < 1 and self.chance.random() < 0.3:
                self.depth += 1
                self.keep()
                self.pass_time()
                self.keep()
                self.depth -= 1
            self.tick_ends(crew, n, flag)
        finally:
            if self.running.get(flag.id) is crew:
                del self.running[flag.id]

    def tick_ends(self, crew, n, flag):
        if crew.gone:
            raise Vanished("within a handler")
        how = "ok" if self.calm else self.chance.choice(("ok", "ok", "ok", "ok", "fail", "vanish"))
        self.seen[f"tick {how}"] += 1
        if how == "vanish":
            crew.gone = True
            raise Vanished("within a handler")
        if how == "fail":
            raise RuntimeError("asked to")
        crew.settling[flag.id, flag._claimed.token] = "tick"
        if flag.intended is not None:
            self.must(flag.intended.tzinfo.key == TABLE[n][2], f"intended in the zone {flag.intended.tzinfo}")
            self.ticks[flag.id, flag._claimed.token] = f"s{n}", flag.missed + 1

    def settled(self, claim):
        if claim in self.ticks:
            name, count = self.ticks.pop(claim)
            self.lines[name].ran += count

    def vanished(self, crew):
        for claim in crew.settling:
            self.ticks.pop(claim, None)
        super().vanished(crew)

    # What happens.

    def keep(self):
        """Have a consumer fire; it may vanish at any point of that, or stand still just before it while others fire."""
        crew = self.free_crew()
        if crew is None or self.calm:
            return super().keep()
        crew.store.connections.fuse = self.chance.randint(1, 12) if self.chance.random() < self.fuses else None
        self.asleep = crew if self.chance.random() < 0.1 else None
        try:
            if crew.keep():
                crew.alive(crew.rescue)
        finally:
            crew.store.connections.fuse = self.asleep = None

    asleep = None

    def before_writing(self, crew):
        if crew is self.asleep:
            self.asleep = None
            self.seen["overtaken"] += 1
            self.advance(self.chance.choice((0, 1, HOUR)))
            for other in [other for other in self.crews if not other.busy]:
                other.keep()

    def raise_one(self):
        """Raise a flag by hand that a schedule raises, too: what else there is to raise, F36 has."""
        self.raises += 1
        self.flags.handlers["tick"].raise_flag(n=self.chance.randrange(len(TABLE)))

    def set_clock(self):
        """Set the clock to and fro. From ten years ahead it is set right, never behind: of what it had fired nothing is known."""
        choices = (0,) if self.off >= YEAR else (*self.jumps, *[0] * len(self.jumps))
        self.off = self.chance.choice(choices)
        self.clock.set(self.truth + self.off * SECOND)
        self.advance(1)
        for crew in list(self.crews):
            if not crew.busy:
                crew.keep()

    def calm_down(self):
        """Set the clock right: all that is due by it fires, and nothing waits for longer than it should."""
        self.calm, self.off = True, 0
        self.clock.set(self.truth)
        self.come()
        for _ in range(3):
            self.advance(20)  # Who vanishes while it rescues leaves claims of nobody, which are looked for every 15 s.
            for crew in self.crews:
                assert crew.keep()
        for name, next_at in self.flags.database.execute_sql("SELECT name, next_at FROM flagsweep_schedule").fetchall():
            line, now = self.lines[name], self.clock.now()
            assert not line.owed, f"{name}: {line.owed} are owed"
            right = line.spec.next(max(now, line.last_at(now)), next_at)
            assert next_at == right, f"{name} waits for {next_at} at {now}, not {right}"
        super().calm_down()
        for name, line in self.lines.items():
            assert line.ran == line.raised, f"{name}: {line.raised} occurrences were raised, {line.ran} have run"

    # What must hold.

    def committed(self):
        self.listen()

    def listen(self):
        """Go through what was fired since the last time."""
        rows = self.flags.database.execute_sql(f"SELECT * FROM fired WHERE n > {self.heard} ORDER BY n").fetchall()
        for n, what, name, *values in rows:
            self.heard = n
            for wrong in self.told(what, self.lines[name], *values):
                self.must(False, f"{name} ({self.lines[name].spec.text}): {wrong}")

    def told(self, what, line, one, two, three):
        now = self.clock.now()
        self.seen[what] += 1
        if what == "link":
            return line.link(one, two, three, now)
        return line.forget(two, now) if what == "forgot" else line.hear(one, two, now, not self.off)
