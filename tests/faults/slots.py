"""What a journal shows of schedules: for which times their flags ran, and whether each time was answered for, and once."""

from collections import Counter

from flagsweep.config import SECOND


def occurrences(site):
    """Return the beginnings of runs for times of schedules."""
    return [event for event in site.journal.events("start") if "intended" in event.more]


class Answered:
    """Compare the runs of one schedule of every second with the times that it had.

    :param row: its row in the end.
    :param first: when it was to fire first, in microseconds UTC.
    :param deaths: the processes that were killed: what they had begun may run again. It is the same flag then, by its id: one
        that is fired again is another.
    """

    def __init__(self, site, flag, row, first, deaths=()):
        runs = [event for event in occurrences(site) if event.flag == flag]
        last = {event.more["intended"]: event for event in runs}  # Of a run and its repeat the later counts.
        others = [event for event in runs if event is not last[event.more["intended"]]]
        again = [event for event in others if event.more["id"] == last[event.more["intended"]].more["id"]]
        self.repeated = sum(event.pid in deaths for event in again)
        self.twice = len(others) - self.repeated
        self.count = (row.next_at - first) // SECOND
        self.skipped = row.skipped
        """Times that nobody was to run."""
        answered = Counter()
        for intended, event in last.items():
            answered.update(intended - number * SECOND for number in range(event.more["missed"] + 1))
        self.twice += sum(times - 1 for times in answered.values())
        self.missed = self.count - self.skipped - len(answered)
        """Times that were neither run nor skipped."""
