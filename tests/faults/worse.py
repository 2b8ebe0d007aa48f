"""A site whose handlers do worse than those of work.py, and the processes that sweep it.

``python tests/faults/worse.py run DATABASE JOURNAL SETTINGS`` is a consumer, ``sweep`` instead of ``run`` sweeps until the file
JOURNAL.stop is there, ``crash FILE`` has consumers kill themselves, ``preload DATABASE JOURNAL COUNT`` forks workers.
SETTINGS are those of ``Worse``.
"""

import _thread
import ctypes
import json
import logging
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from work import LIMIT, Work, main

from flagsweep import DatabaseAway, testing

MIB = 2**20


class Unheard(BaseException):
    """An error of the site's own that is no Exception."""


class Worse(Work):
    """A site with handlers that do worse, and a kind more: ``hung``, reported after a second, in a lane of two threads."""

    def __init__(self, database, journal, attempts=1000, backoff=0.01, **settings):
        lanes = {"default": 4, "mail": 4, "slow": 1, "hung": 2}
        super().__init__(database, journal, attempts, backoff, **{"lanes": lanes, **settings})
        self.hung = self.flags.handler("hung", lane="hung", max_attempts=attempts, backoff=backoff, slow_after=1)(self.act)

    # Ends of a process.

    def _segfault(self, n, seconds, gate, flag):
        ctypes.string_at(0)

    def _abort(self, n, seconds, gate, flag):
        os.abort()

    def _exit(self, n, seconds, gate, flag):
        os._exit(9)

    def _overflow(self, n, seconds, gate, flag):
        """Use the thread's stack up."""
        super()._overflow(n, seconds, __file__, flag)  # There is no other gate than this file.

    def _eat(self, n, seconds, gate, flag):
        """Do as the next one, on the first attempt."""
        if flag.attempt == 1:
            self._gorge(n, seconds, gate, flag)

    def _gorge(self, n, seconds, gate, flag):
        """Use all memory up that the process may have, to the last small piece, and hold it for so long.

        Two gigabytes of address space at the most, of which little is touched: it is not to eat the machine.
        """
        eaten, size, left = [], 64 * MIB, 2048 * MIB
        while size >= 64 and left > 0:
            try:
                eaten.append(bytearray(size))
                left -= size
            except MemoryError:
                size //= 2
        time.sleep(seconds)
        raise MemoryError("all eaten")

    # Exceptions.

    def _generator_exit(self, n, seconds, gate, flag):
        raise GeneratorExit

    def _system_exit(self, n, seconds, gate, flag):
        sys.exit(3)

    def _keyboard_interrupt(self, n, seconds, gate, flag):
        raise KeyboardInterrupt

    def _unheard(self, n, seconds, gate, flag):
        raise Unheard("of the site's own")

    # Handlers that hang: each for so long, on its first attempt alone.

    def _hang_sleep(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            time.sleep(seconds)

    def _hang_call(self, n, seconds, gate, flag):
        """Hang in a function of C, which lets other threads go on."""
        if flag.attempt == 1:
            ctypes.CDLL(None).usleep(int(seconds * 1e6))

    def _hang_lock(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            lock = threading.Lock()
            lock.acquire()
            lock.acquire(timeout=seconds)

    def _hang_regex(self, n, seconds, gate, flag):
        """Hang in a regular expression that backtracks without end: it lets no other thread go on."""
        if flag.attempt == 1:
            re.match(r"(a+)+$", "a" * 40 + "b")

    # Children.

    def _fork(self, n, seconds, gate, flag):
        self._forks(n, seconds, gate, flag)

    def _multiprocessing(self, n, seconds, gate, flag):
        multiprocessing.get_context("fork").Process(target=self._child, args=(gate,)).start()

    def _child(self, gate):
        Path(f"{gate}.child").write_text(str(os.getpid()))
        self._wait(0, 0, gate, None)
        os._exit(0)

    def _popen(self, n, seconds, gate, flag):
        waits = f"while [ ! -e {gate} ]; do sleep 0.05; done"
        child = subprocess.Popen(["sh", "-c", waits], close_fds=False, stdin=subprocess.DEVNULL)
        Path(f"{gate}.child").write_text(str(child.pid))

    # Resources.

    def _files(self, n, seconds, gate, flag):
        """Open all files that this process may, and hold them for so long: on the first attempt."""
        if flag.attempt > 1:
            return
        with ExitStack() as stack:
            try:
                while True:
                    stack.enter_context(open(os.devnull))
            finally:
                time.sleep(seconds)

    def _threads(self, n, seconds, gate, flag):
        """Start threads until none can be started, and hold them for so long: on the first attempt.

        Not by ``Thread.start``, which waits for ever for a thread in which memory ends.
        """
        if flag.attempt > 1:
            return
        done = threading.Event()
        try:
            for _ in range(1000):
                _thread.start_new_thread(done.wait, (LIMIT,))
        finally:
            time.sleep(seconds)
            done.set()


def command(mode, database, journal, **settings):
    """Return the command line of a process that consumes the flags of a site."""
    return sys.executable, __file__, mode, database, journal, json.dumps(settings)


def crash(jobs):
    """Have one consumer after the other kill itself at its point, two at a time, forked from here: to import takes longest.

    :param jobs: a JSON file: `[point, nth, folder, database]` each. How and when each ended is added to it.
    """
    waiting, running, ended = json.loads(Path(jobs).read_text()), {}, []
    while waiting or running:
        while waiting and len(running) < 2:
            job = waiting.pop(0)
            running[_forked(*job)] = job
        pid, status = os.wait()
        ended.append([*running.pop(pid), pid, os.waitstatus_to_exitcode(status), time.monotonic()])
    Path(jobs).write_text(json.dumps(ended))


def _forked(point, nth, folder, database):
    """Start a consumer on the site in a folder in a child process, and return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
            os.environ.update({testing.AT: f"{point}:{nth}", testing.LOG: f"{folder}/reached"})
            main("run", database, f"{folder}/journal", '{"shutdown_timeout": 2, "batch": 20, "schedules": true}')
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return pid


def preload(database, journal, count):
    """Use the site as `gunicorn --preload` does, then fork workers that raise flags, ten at a time.

    Each worker raises five flags, one of them in a transaction, and asks for what is up. The last is forked in mid-transaction.
    """
    site = Worse(database, journal)
    site.flags.database.connect()
    site.raise_("work", 0)
    site.flags.sweep()
    chance, running = random.Random(count), set()
    for number in range(1, int(count) + 1):
        running.add(_forked_worker(site, number))
        site.raise_("work", number * 10 + 8)
        while len(running) >= 10 or (running and chance.random() < 0.5):
            running.discard(_reaped())
    while running:
        running.discard(_reaped())
    with site.flags.database.atomic():
        site.raise_("work", int(count) * 10 + 19)
        _forked_worker(site, int(count) + 1)
    _, status = os.wait()
    print("in mid-transaction:", os.waitstatus_to_exitcode(status))
    site.flags.database.close()


def _forked_worker(site, number):
    pid = os.fork()
    if pid == 0:
        _worker(site, number)
    return pid


def _reaped():
    pid, status = os.wait()
    if status:
        raise SystemExit(f"worker {pid} ended with {os.waitstatus_to_exitcode(status)}")
    return pid


def _worker(site, number):
    code = 1
    try:
        for index in range(4):
            site.raise_("work", number * 10 + index)
        with site.flags.database.connection_context(), site.flags.database.atomic():
            site.raise_("exact", number * 10 + 4, do="effect")
        site.flags.find()
        code = 0
    except DatabaseAway:
        code = 3
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    if sys.argv[1] in ("crash", "preload"):
        {"crash": crash, "preload": preload}[sys.argv[1]](*sys.argv[2:])
    else:
        import work

        work.Work = Worse
        main(*sys.argv[1:])
