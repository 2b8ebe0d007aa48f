"""A site whose kinds have limits and a provider that may be away, and the consumers that sweep it.

``python tests/faults/gated.py run DATABASE JOURNAL SETTINGS`` is a consumer; SETTINGS are those of ``Gated``.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from work import Work, command, main

RATE, BURST, LIMIT = 10.0, 10, 3  # a second, tokens, flags at the same time
PACE = "600/m burst 10"


class Gated(Work):
    """Kinds: ``paced`` has a rate, ``narrow`` a limit, ``both`` both; ``mails`` go to a provider, ``plain`` ones to nobody.

    :param provider: a file: while it is there, the provider is away.
    """

    def __init__(self, database, journal, attempts=1000, backoff=0.5, provider="", **settings):
        super().__init__(database, journal, attempts, backoff, **{"lanes": {"default": 8, "mail": 4, "slow": 1}, **settings})
        self.provider = provider
        options = {"max_attempts": attempts, "backoff": backoff}
        for kind, limits in {
            "paced": {"rate": PACE},
            "narrow": {"limit": LIMIT},
            "both": {"rate": PACE, "limit": LIMIT},
            "mails": {},
            "plain": {},
        }.items():
            self.flags.handler(kind, **{**options, **limits})(self.act)

    def _mail(self, n, seconds, gate, flag):
        """Send a mail, where the provider answers."""
        time.sleep(seconds)
        if os.path.exists(self.provider):
            raise ConnectionError("the provider is away")

    def _poison(self, n, seconds, gate, flag):
        """Fail for the flag's own sake, as the provider's refusal does."""
        time.sleep(seconds)
        raise ConnectionError("the provider refuses this one")


def consume(backend, **settings):
    """Start a consumer as its own process."""
    settings = {"shutdown_timeout": 2, **settings}
    _, _, *rest = command("run", (backend.database, backend.journal), **settings)
    return backend.spawn(sys.executable, __file__, *rest, env=backend.env)


# What the receiving side saw.


def too_many(starts, late=0.0, rate=RATE, burst=BURST):
    """Return by how many starts the worst window has more than burst, what the rate brings in it, and one.

    :param late: seconds by which a run may have begun too late, so that it comes beside those of later tokens.
    """
    starts, worst = sorted(starts), 0.0
    for index, first in enumerate(starts):
        for count, last in enumerate(starts[index:], 1):
            worst = max(worst, count - (burst + rate * (last - first + late) + 1))
    return worst


if __name__ == "__main__":
    import work

    work.Work = Gated
    main(*sys.argv[1:])
