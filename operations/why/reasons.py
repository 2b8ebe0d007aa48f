"""The reasons, in the order in which they are asked for: the first that holds is the answer, the others are told besides.

``page.py`` makes ``docs/why-not.md`` of this list.
"""

from __future__ import annotations

from . import closed, database, ended, held, nobody, timed, waiting, whole
from .answer import Reason

DATABASE = (
    Reason(
        "wrong-database",
        "{error}.",
        "name the database that the site uses, or make the tables in this one",
        "flagsweep init",
        database.no_database,
        9,
    ),
    Reason(
        "old-tables",
        "The tables have version {version}, and this flagsweep needs {needed}.",
        "bring them up to date",
        "flagsweep init",
        database.old_tables,
        9,
    ),
    Reason(
        "new-tables",
        "The tables have version {version}, and this flagsweep knows {needed}.",
        "install the newer flagsweep here, too",
        "flagsweep doctor",
        database.new_tables,
        9,
    ),
    Reason(
        "database-away",
        "The database does not answer, so that nothing runs: {error}.",
        "have it answer again: all goes on by itself then",
        "flagsweep doctor",
        database.database_away,
        9,
    ),
)
"""Why nobody can be asked. Those of the tables are asked for first."""

UNUSED = Reason(
    "unused-database",
    "No flag was ever raised in this database, and no consumer has ever run on it ({where}): is it the one that the site uses?",
    "name the database of the site, as its own process has it",
    "flagsweep doctor",
    database.unused,
    8,
)

WAITING = (
    Reason(
        "moved",
        "Nothing is begun in this database {since}: it {moved}.",
        "have the site use the other database; 'flagsweep move' ends a move that was cut short, and takes what was raised since",
        "flagsweep move --to {to}",
        closed.moved,
        9,
    ),
    Reason(
        "damaged",
        "Its row is damaged: {problems}.",
        "raise it again, or take it down",
        "flagsweep list --kind {kind}",
        waiting.damaged,
        5,
    ),
    Reason(
        "backing-off",
        "Attempt {attempt} failed {at} ({error}), and it backs off: it is tried again at {until}.",
        "mend what the error names, and start the consumer anew where that is code; to have it tried at once, retry it",
        "flagsweep retry {id}",
        waiting.backing_off,
        3,
    ),
    Reason(
        "snoozed",
        "Its handler ran {at} and asked for later: it runs again at {until}.",
        "wait, or raise it again for now",
        "",
        waiting.snoozed,
        0,
    ),
    Reason(
        "not-due",
        "It is not due before {until}.",
        "wait, or raise it again for an earlier time: the earlier one holds",
        "",
        waiting.not_due,
        0,
    ),
    Reason(
        "expired-waiting",
        "It expired {at}: it was not worth doing any more, and the next sweep lowers it without running it.",
        "raise it again, with a later expiry; and see why it was not begun in time",
        "flagsweep check",
        waiting.expired_waiting,
        4,
    ),
    Reason(
        "restored",
        "Everything is held back {since}: {why}.",
        "see what would be done a second time, and have it go on",
        "flagsweep confirm",
        closed.restored,
        8,
    ),
    Reason(
        "all-paused",
        "Everything is paused by {by} {since}, {ends}.",
        "have it go on",
        "flagsweep resume --all",
        closed.all_paused,
        7,
    ),
    Reason(
        "lane-paused",
        "Lane {name} is paused by {by} {since}, {ends}.",
        "have it go on",
        "flagsweep resume --lane {name}",
        closed.lane_paused,
        6,
    ),
    Reason(
        "kind-paused",
        "{name} is paused by {by} {since}, {ends}.",
        "have it go on",
        "flagsweep resume {name}",
        closed.kind_paused,
        6,
    ),
    Reason(
        "asked-to-wait",
        "All of {of} waits until {until}, as its handler has asked ({why}).",
        "wait: the provider has said when",
        "flagsweep gates",
        closed.asked_to_wait,
        3,
    ),
    Reason(
        "quiet-hours",
        "These are quiet hours ({hours}) of {kind}: none starts before {until}.",
        "wait, or change quiet= of the handler",
        "flagsweep gates",
        closed.quiet,
        0,
    ),
    Reason(
        "breaker",
        "The provider of {kind} seems to be away {since}, since flag after flag failed with {why}: only a probe is let through, "
        "and the next {next}.",
        "mend the provider: the first probe that succeeds opens it; once it is back, a retry has one go within seconds",
        "flagsweep retry --kind {quoted}",
        closed.breaker,
        6,
    ),
    Reason(
        "rate",
        "The rate of {of}, {limit}, is used up: the next starts at {until}.",
        "wait, or change rate= of the handler",
        "flagsweep gates",
        closed.rate,
        1,
    ),
    Reason(
        "budget",
        "The budget of {of}, {limit}, is used up: the next starts at {until}.",
        "wait, or change budget= of the handler",
        "flagsweep gates",
        closed.budget,
        2,
    ),
    Reason(
        "limit",
        "No more than {limit} of {of} may run at the same time, and so many do; {usual}.",
        "wait until one ends, or change limit= of the handler",
        "flagsweep list --state claimed",
        closed.limit,
        1,
    ),
    Reason(
        "no-handler",
        "No handler has the kind {kind}: {had}.",
        "start the application that has it; or, if it was renamed, say {alias}, and start the consumer again",
        "",
        nobody.no_handler,
        6,
    ),
    Reason(
        "disk-full",
        "The disk of {file} is {full}: {then}.",
        "make room on it: all goes on by itself then",
        "flagsweep doctor",
        database.disk_full,
        9,
    ),
    Reason(
        "open-transaction",
        "An open transaction holds {holds} {since}: {who}.",
        "have it commit or roll back; or end it: {end}",
        "flagsweep doctor",
        held.open_transaction,
        8,
    ),
    Reason(
        "no-consumer",
        "No consumer runs, so that nothing is swept: {left}.",
        "start it, and have what starts it (systemd, supervisor, Docker) start it again whenever it ends",
        "flagsweep run",
        nobody.no_consumer,
        8,
    ),
    Reason(
        "between-sweeps",
        "No consumer runs; 'flagsweep sweep' ran {at}, and the next one takes what is due.",
        "wait for the next sweep, or call it now",
        "flagsweep sweep",
        nobody.between_sweeps,
        1,
    ),
    Reason(
        "consumer-cannot-write",
        "The process of {who} lives, and has not said for {for} that it goes on: it cannot write while that transaction is open.",
        "end that transaction, and leave the consumer alone: it goes on by itself then",
        "flagsweep doctor",
        nobody.consumer_cannot_write,
        7,
    ),
    Reason(
        "consumer-silent",
        "The process of {who} lives, but has not said for {for} that it goes on: it hangs, or stands still.",
        "look at its log since {at}; then end it (kill -9 {pid}) and start it again: what it had in hand is given back",
        "flagsweep doctor",
        nobody.consumer_silent,
        8,
    ),
    Reason(
        "lane-not-swept",
        "The process of {who} lives and says so, but does not sweep lane {lane}: {last}.",
        "look at its log for that lane; then start it again (kill {pid}, and 'flagsweep run')",
        "flagsweep doctor",
        nobody.lane_not_swept,
        7,
    ),
    Reason(
        "consumer-without-handler",
        "The consumers that run have no handler for {kind}, though the code here has one: {who}, which began {since}.",
        "end them (kill {pids}: they finish what they have in hand) and start them again, with the code that has it, unless what "
        "starts them (systemd, supervisor, Docker) does; a deploy that has forgotten the consumer looks like this",
        "flagsweep run",
        nobody.consumer_without_handler,
        7,
    ),
    Reason(
        "suspect",
        "Its process died {crashes} while it ran, so that it is suspected, and runs alone among the suspected.",
        "wait for its turn; after three deaths it is dead, and the others are free",
        "flagsweep show {id}",
        waiting.suspect,
        3,
        alone=True,
    ),
    Reason(
        "lane-busy",
        "Lane {lane} is busy: {threads}, the longest with {what} {since}; {usual}.",
        "wait until one ends, or give the lane more threads",
        "flagsweep lane {lane} --threads {more}",
        waiting.lane_busy,
        2,
        alone=True,
    ),
    Reason(
        "behind-others",
        "It waits its turn behind {many} of lane {lane}, which does {pace} a minute: {soon}.",
        "wait, or give the lane more threads, or the kind a higher priority",
        "flagsweep lane {lane} --threads {more}",
        waiting.behind_others,
        2,
        alone=True,
    ),
    Reason(
        "any-moment",
        "It is due {since}, and nothing is in its way: it begins at any moment.",
        "",
        "",
        waiting.any_moment,
        0,
        alone=True,
    ),
    Reason(
        "unexplained",
        "It is due {since}, nothing that can be seen from here is in its way, and consumer {who} has not begun it.",
        "look at the log of that consumer; start it again if the log says nothing",
        "flagsweep doctor",
        waiting.unexplained,
        5,
        alone=True,
    ),
)
"""Why a flag waits. What concerns it alone comes first, then gates, then who should do it, then whose turn it is."""

HELD = (
    Reason(
        "running",
        "It runs: {who} {has} {since}; {usual}.",
        "wait until it ends; a handler that hangs is named by the log (slow_after=, stuck_after=)",
        "flagsweep list --state claimed",
        held.running,
        0,
    ),
    Reason(
        "claimed-ahead",
        "The next: {who} has claimed it ahead {since}, and begins it as soon as a thread of lane {lane} is free.",
        "wait, or give the lane more threads",
        "flagsweep lane {lane} --threads {more}",
        held.claimed_ahead,
        1,
    ),
    Reason(
        "claimed-by-dead-consumer",
        "It is claimed {since} by {who}, which has died, and was not given back yet: {soon}.",
        "start a consumer, or sweep once: either gives it back first",
        "flagsweep run",
        held.claimed_by_the_dead,
        7,
    ),
)
"""Why a claimed flag is not done yet."""

DEAD = Reason(
    "dead",
    "It is dead since its last attempt, {tries}, failed {at}: {error}.",
    "mend what the error names, start the consumer anew, then retry it; or discard it",
    "flagsweep retry {id}",
    ended.dead,
    4,
)

GONE = (
    Reason("done", "Its work is done: it was lowered {at}{attempt}.", "", "", ended.lowered, 0),
    Reason(
        "discarded",
        "It was discarded {at}, and is not done: {reason}.",
        "raise it again if it is to be done after all",
        "flagsweep raise {kind}",
        ended.discarded,
        1,
    ),
    Reason(
        "expired",
        "It expired, and was lowered {at} without being run: {reason}.",
        "raise it again if it is worth doing after all",
        "flagsweep raise {kind}",
        ended.expired,
        1,
    ),
    Reason(
        "lowered-by-hand",
        "Somebody took it down {at}: it {reason}.",
        "raise it again if it is to be done after all",
        "flagsweep raise {kind}",
        ended.lowered_by_hand,
        1,
    ),
    Reason(
        "gone",
        "Flag {id} was up once and is not any more, so that it was lowered or discarded: {known}.",
        "to have a line kept of each success, give the handler history=True",
        "",
        ended.gone,
        0,
    ),
    Reason(
        "done-or-never-raised",
        "No such flag is up: it is done, or was never raised; within a day {done} of {kind} were done, of which no line is kept.",
        "to have a line kept of each success, give the handler history=True",
        "flagsweep list --kind {kind}",
        ended.done_or_never,
        0,
    ),
    Reason(
        "never-raised",
        "There is no {what}, and nothing is known of one: it was never raised in {where} ({known}).",
        "look whether the code that raises it runs, and commits, and on which database",
        "flagsweep status",
        ended.never_raised,
        1,
    ),
)
"""Why there is no such flag."""

SCHEDULE = (
    Reason(
        "schedule-damaged",
        "It cannot fire: {problem}.",
        "mend what is wrong; where code declares it, take what that says",
        "flagsweep schedule reset {name}",
        timed.schedule_damaged,
        6,
    ),
    Reason(
        "schedule-paused",
        "It is paused by {by} {since}, {ends}.",
        "have it go on",
        "flagsweep schedule resume {name}",
        timed.schedule_paused,
        6,
    ),
    Reason(
        "schedule-never-fires",
        "It never fires: no time is left that {spec} could mean; {fired}.",
        "give it other times, or remove it",
        "flagsweep schedule edit {name} {times}",
        timed.schedule_never,
        5,
    ),
    Reason(
        "schedule-behind-a-pause",
        "It is due and does not fire, since what it raises is paused: {what}, by {by} {since}, {ends}.",
        "have that go on",
        "flagsweep resume {option}",
        timed.schedule_behind_pause,
        6,
    ),
    Reason(
        "schedule-without-handler",
        "It is due {since}, and nobody fires it: no handler has its kind, {kind}.",
        "start the application that has it; where the kind was renamed, name it in aliases= of the other, or remove the schedule",
        "flagsweep schedule remove {name}",
        timed.schedule_no_handler,
        6,
    ),
    Reason(
        "schedule-overdue",
        "It is due {since}, and nobody fires it.",
        "start a consumer: it fires what was missed as missed= says",
        "flagsweep run",
        timed.schedule_overdue,
        7,
    ),
    Reason(
        "schedule-far-off",
        "It fires next on {date}, in {days} days, and not before ({plain}); {fired}.",
        "give it the times that are meant",
        "flagsweep schedule edit {name} {times}",
        timed.schedule_far_off,
        1,
    ),
    Reason(
        "schedule-not-due",
        "It fires {next} ({plain}).",
        "",
        "",
        timed.schedule_not_due,
        0,
    ),
)
"""Why a schedule does not fire."""

KIND_DEAD = Reason(
    "dead-of-kind",
    "Nothing of {kind} waits, but flags of it are dead; the newest, flag {id}, died {at}: {error}.",
    "mend what the error names, start the consumer anew, then retry them",
    "flagsweep retry --kind {kind}",
    ended.kind_dead,
    4,
)
NOTHING_UP = Reason(
    "nothing-up",
    "No flag of it is up: nothing is to be done. Within a day it had {done} that succeeded, and {failed} that failed.",
    "",
    "",
    whole.nothing_up,
    0,
)
UNKNOWN_NAME = Reason(
    "unknown-name",
    "There is no kind, no lane and no schedule {name}: nothing of that name is up, and none has ever run.",
    "say the name as the code does; kinds and lanes that have no flags are known only where the handlers are",
    "flagsweep kinds",
    whole.unknown_name,
    1,
)
KIND = (KIND_DEAD, NOTHING_UP, UNKNOWN_NAME)
"""What is told of a kind or a lane of which nothing waits."""

OLDER_CODE = Reason(
    "older-code",
    "{who} runs {since} with the code of that time; {file} was changed {at}.",
    "end it (kill {pids}: it finishes what it has in hand) and start it again, unless what starts it (systemd, supervisor, "
    "Docker) does; then retry what failed",
    "flagsweep run",
    nobody.older_code,
    6,
)
"""Told first where runs fail: what was mended is of no use yet. Elsewhere it is told besides."""

DEAD_LATELY = Reason(
    "died-lately",
    "{many} of {kind} died within a day, most with {error}.",
    "mend what the error names, start the consumer anew, then retry them",
    "flagsweep retry --kind {kind}",
    whole.dead_lately,
    4,
)
DEAD_CONSUMER = Reason(
    "dead-consumer",
    "{who} has died (it was last heard of {at}), and what it had claimed was not given back yet.",
    "start a consumer, or sweep once",
    "flagsweep run",
    whole.dead_consumers,
    6,
)
FAILING = Reason(
    "failing",
    "{kind} fails: {many} within an hour, and none succeeded{error}.",
    "mend what the error names, and start the consumer anew; what backs off is tried again by itself, or at once by retry",
    "flagsweep retry --kind {kind}",
    whole.failing,
    5,
)
PAUSED = Reason(
    "paused",
    "{what} is paused by {by} {since}; nothing that is due waits behind it.",
    "have it go on",
    "flagsweep resume {option}",
    whole.pauses,
    2,
)
ALL_WELL = Reason("all-well", "All is well: {who} sweeps, and {waits}.", "", "", whole.all_well, 0)
SITE = (UNUSED, DEAD_CONSUMER, OLDER_CODE, FAILING, DEAD_LATELY, PAUSED, ALL_WELL)
"""What is told of the site as a whole, besides what the oldest due flag of each kind waits for, and each schedule."""

TABLE = {
    "A flag that waits": WAITING,
    "A flag that a consumer has": HELD,
    "A flag that is dead, or not up": (DEAD, *GONE),
    "A schedule": SCHEDULE,
    "A kind or a lane": KIND,
    "The site": SITE,
    "The database": DATABASE,
}
"""All of them, by what they are about."""
